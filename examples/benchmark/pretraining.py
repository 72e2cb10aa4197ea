"""Measure a step of `multitask pretrain` beside a step of `multitask train` on the same rows, on this machine.

python examples/benchmark/pretraining.py --data data [--rounds 40] [--threads 2] [--weights NAME]

The rows are batches of 32 sentences of the SST task's training file, of like length, as pretraining draws them. The two
sides run in turn in one process. The ratio is that of the medians; the one of the pairs, and of the processor's time,
is less shaken by what else the machine does.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from multitask import PretrainConfig, TrainConfig, build_config
from multitask.data.batches import TaskData
from multitask.data.load import prepare
from multitask.model.build import build_model
from multitask.precision import choose_precision
from multitask.pretraining.masks import Masker
from multitask.pretraining.rows import build_rows
from multitask.pretraining.start import load_model, load_tokenizer, start_head
from multitask.pretraining.steps import Trainer
from multitask.settings.config import RunConfig
from multitask.updates.stepper import Stepper

WARM_UP = 3


def both_sides(config: RunConfig, rounds: int) -> dict[str, Callable[[int], object]]:
    """Build both trainings; each side is a function of the number of a batch."""
    torch.manual_seed(0)
    config = replace(config, tasks=[next(task for task in config.tasks if task.name == "sst")], train=TrainConfig())
    prepared = prepare(config)
    (task,), examples = prepared.config.tasks, prepared.train["sst"].examples
    weights, (dtype, sentence) = config.encoder.weights, choose_precision("auto", torch.device("cpu"))
    print(f"precision {sentence}")
    tuned, tokenizer = build_model(prepared.config)
    lengths = tokenizer.tokenize_all([example.texts[0] for example in examples], max_length=2**20).lengths
    settings = PretrainConfig(weights=weights, epochs=1)
    most = min(settings.max_length, tuned.max_length)
    examples = [example for example, length in zip(examples, lengths, strict=True) if length <= most]
    masker = Masker(load_tokenizer(weights))
    rows = build_rows([example.texts[0] for example in examples], tokenizer, masker, most)
    if len(rows) < len(examples):
        raise SystemExit("error: --data must have sentences with known words, so that both sides have the same rows")
    model, own_head = load_model(weights, settings.dropout)
    if not own_head:
        start_head(model, rows.tokens.input_ids)
    trainer = Trainer(model, rows, masker, settings, dtype)
    data = TaskData.build(task, examples, tokenizer, tuned.max_length, ahead=False)
    stepper = Stepper(tuned.train(), config.train, np.random.default_rng(0), dtype)
    batches = [
        trainer.order.rows(number // trainer.order.steps, number % trainer.order.steps) for number in range(rounds)
    ]
    return {
        "train": lambda number: stepper.round({task.name: data.batch(batches[number])}, 1.0),
        "pretrain": lambda number: trainer.step(number // trainer.order.steps, number % trainer.order.steps),
    }


def main() -> None:
    """Time both sides in turn and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--tasks", type=Path, metavar="FILE.toml")
    parser.add_argument("--weights", default="all-minilm-l6-v2", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=40, metavar="N")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = build_config(tasks_file=args.tasks, data=args.data, weights=args.weights)
    sides = both_sides(config, WARM_UP + args.rounds)
    clocks = {"by the clock": time.perf_counter, "of processor": time.process_time}
    times: dict[str, list[list[float]]] = {name: [] for name in sides}  # by side and round, by each clock
    for number in range(WARM_UP + args.rounds):
        for name in sides if number % 2 else reversed(sides):
            began = [now() for now in clocks.values()]
            sides[name](number)
            times[name].append([now() - then for now, then in zip(clocks.values(), began, strict=True)])
    for place, clock in enumerate(clocks):
        train, pretrain = (np.array(times[name][WARM_UP:])[:, place] for name in ("train", "pretrain"))
        low, middle, high = np.quantile(pretrain / train, (0.25, 0.5, 0.75))
        print(
            f"time {clock}: train {np.median(train) * 1e3:.1f} ms a step, pretrain {np.median(pretrain) * 1e3:.1f} ms;"
            f" pretrain / train {np.median(pretrain) / np.median(train):.2f}, of the pairs {middle:.2f},"
            f" the middle half {low:.2f} to {high:.2f}"
        )


if __name__ == "__main__":
    main()
