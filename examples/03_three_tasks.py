"""Fine-tune one small BERT on three tasks at once: separate backward passes, one optimizer for each task.

    python examples/03_three_tasks.py

Prints each epoch's dev scores, a table of scores beside what one constant answer would get, and the answers to six new
rows. One to two minutes on two cores, after a download of 91 MB.

"Separate" is how the tasks share the encoder. Each round takes one batch of every task. For each task in turn: forward
pass, loss, backward pass, and a step of that task's own AdamW over the shared encoder and that task's decoder; then the
gradients are cleared. No loss is added to another, and no task moves another's decoder or sees another's moments.

The tasks are in tasks.toml, their rows in data/: the sentiment of film reviews in five grades (sst), whether two
questions ask the same (para), and how alike two sentences are, from 0 to 5 (sts). 120 rows a task, written for this
project, are too few for good scores, but enough to see that it learns.
"""

import argparse
import csv
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from minbert import MinbertError
from multitask import Run, Task, baseline_score, build_config, train

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


def labels_of(path: str | Path | None, column: str) -> list[float]:
    """Read the labels in one column of a tab-separated file; these are numbers in all three tasks."""
    assert path is not None
    with open(path, encoding="utf-8", newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file, delimiter="\t")]


def baseline(task: Task) -> float:
    """Score one answer for all dev rows: the training rows' most common class or mean."""
    return baseline_score(task, labels_of(task.train, task.label), labels_of(task.dev, task.label)).value


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
    parser.add_argument("--out", type=Path, help="run folder to write (runs/three-tasks-TIME)")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="name, hub id or folder of the encoder")
    parser.add_argument("--epochs", type=int, help="epochs to train, instead of those in tasks.toml")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything that is drawn")
    args = parser.parse_args(argv)
    out = args.out or Path("runs") / time.strftime("three-tasks-%Y%m%d-%H%M%S")

    started = time.monotonic()
    config = build_config(tasks_file=TASKS, weights=args.weights, epochs=args.epochs, seed=args.seed)
    run = train(config, out)
    print(f"Trained {len(config.tasks)} tasks on one encoder in {time.monotonic() - started:.0f} s.")
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
