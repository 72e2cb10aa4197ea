"""Train, and show losses and dev scores by `tensorboard --logdir runs`; settings may follow: train.epochs=1.

Needs tensorboard: pip install -c constraints.txt '.[examples]'.
"""

import sys
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from multitask import RoundRecord, Score, build_config, train

board, rounds = SummaryWriter("runs/board-events"), [0]


def on_round(record: RoundRecord) -> None:
    """Draw each task's loss."""
    rounds[0] = record.number
    board.add_scalars("loss", {name: step.loss for name, step in record.tasks.items()}, record.number)


def on_epoch(scores: Mapping[str, Score]) -> None:
    """Draw each task's dev score."""
    board.add_scalars("dev", {name: score.value for name, score in scores.items()}, rounds[0])


config = build_config(tasks_file="examples/tasks.toml", sets=sys.argv[1:])
train(config, "runs/board", on_round=on_round, on_epoch=on_epoch)
board.close()
