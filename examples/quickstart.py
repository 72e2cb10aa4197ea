"""Fine-tune one small BERT on three tasks at once, score it, save it, and label a few new sentences.

    python examples/quickstart.py

The tasks are in tasks.toml, their rows in data/: sentiment of film reviews in five grades (sst), whether two questions
ask the same (para), and how alike two sentences are, from 0 to 5 (sts). The rows are a sample written for this project:
too few for good scores, but enough to see in a minute or two that it learns.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from minbert import MinbertError
from multitask import Run, Task, build_config, train
from multitask.data.examples import read_examples
from multitask.metrics import baseline_score

TASKS = Path(__file__).parent / "tasks.toml"

NEW_ROWS: dict[str, Sequence[str | tuple[str, str]]] = {
    "sst": [
        "A warm, funny and very moving film that I would gladly see again.",
        "Two hours of my life that nobody will give back to me.",
    ],
    "para": [
        ("How do I get rid of ants in my kitchen?", "What is the best way to keep ants out of a kitchen?"),
        ("How do I get rid of ants in my kitchen?", "Which ants live in kitchens?"),
    ],
    "sts": [
        ("A man is playing a guitar on stage.", "A guitarist performs in front of an audience."),
        ("A man is playing a guitar on stage.", "The council raised the price of parking."),
    ],
}


def baseline(task: Task) -> float:
    """Score the dev rows with one answer for all: the training rows' most common class, or their mean."""
    assert task.train is not None
    assert task.dev is not None
    return baseline_score(task, read_examples(task.train, task).labels, read_examples(task.dev, task).labels).value


def print_scores(run: Run) -> None:
    """Print each task's dev score with its 95 % interval, beside the baseline."""
    scores = run.evaluate("dev")
    print(f"\n{'task':<6}{'metric':<10}{'baseline':>8}{'score':>8}   95 % interval")
    for task in run.config.tasks:
        score = scores[task.name]
        print(
            f"{task.name:<6}{score.metric:<10}{baseline(task):>8.3f}{score.value:>8.3f}"
            f"   {score.low:.3f} to {score.high:.3f}"
        )


def main(argv: list[str] | None = None) -> int:
    """Train, score, save and predict.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Train three tasks on the sample data and use the result.")
    parser.add_argument("--out", type=Path, help="run folder to write (runs/quickstart-TIME)")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="name, hub id or folder of the encoder")
    parser.add_argument("--epochs", type=int, help="epochs to train, instead of those in tasks.toml")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything that is drawn")
    args = parser.parse_args(argv)
    out = args.out or Path("runs") / time.strftime("quickstart-%Y%m%d-%H%M%S")

    config = build_config(tasks_file=TASKS, weights=args.weights, epochs=args.epochs, seed=args.seed)
    run = train(config, out)
    print_scores(run)

    print("\nNew rows:")
    for name, rows in NEW_ROWS.items():
        for row, prediction in zip(rows, run.predict(name, rows), strict=True):
            label = prediction.label
            shown = f"{label:.1f}" if isinstance(label, float) else label
            print(f"  {name:<5}{shown:>4}  {row if isinstance(row, str) else ' / '.join(row)}")

    print(f"\nThe run is in {out}. Use it from Python with Run.load({str(out)!r}), or from a shell:")
    print(f"  echo 'What a lovely film.' | {sys.executable} -m multitask predict {shlex.quote(str(out))} --task sst")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinbertError as error:
        sys.exit(f"error: {error}")
