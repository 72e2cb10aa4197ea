"""Say how much the encoder and the training files know of the dev files already.

    python examples/contamination.py --data data

Both sentence encoders were trained on Quora's duplicates, among others. So the first lines are of the encoder as it
comes: the cosine of a pair's two vectors, for Quora with the threshold that is best on the training file. And some dev
rows are known from the training files: STS pairs and SST sentences that stand in both, and Quora pairs of which a
question does. With result files of reproduce_tables.py those runs are scored on all dev rows, and without these.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from more_rows import vectors_of
from reproduction import predictions_of, read_dev, read_rows
from reproduction_plan import COURSE, Result, read_result

from minbert import MinbertError
from multitask import DataError
from multitask.metrics import compute_metric

Texts = Sequence[tuple[str, ...]]


def single_spaced(rows: Texts) -> Texts:
    """Return the texts with each run of blanks made one."""
    return [tuple(" ".join(text.split()) for text in row) for row in rows]


def known_rows(train: Texts, dev: Texts, *, by_text: bool) -> np.ndarray:
    """Return which dev rows stand in train, in either order, or have a text that does: bool (rows,)."""
    seen = {text for row in train for text in row} if by_text else {tuple(sorted(row)) for row in train}
    return np.array([any(t in seen for t in row) if by_text else tuple(sorted(row)) in seen for row in dev])


def cosines(weights: str, *parts: Texts) -> list[np.ndarray]:
    """Return the cosine of each pair's mean vectors."""
    vectors = vectors_of(sorted({text for rows in parts for row in rows for text in row}), weights)
    sides = [[torch.stack([vectors[text] for text in side]) for side in zip(*rows, strict=True)] for rows in parts]
    return [(first * second).sum(1).double().numpy() for first, second in sides]


def best_threshold(values: np.ndarray, labels: np.ndarray) -> float:
    """Return the threshold, half-way between two values, above which ``1`` is right most often."""
    order = np.argsort(values)
    positive = labels[order] == 1
    # With the threshold above the first n values, the zeros among these are right, and the ones among the rest.
    zeros = np.concatenate([[0], np.cumsum(~positive)])
    right = zeros + positive.sum() - np.concatenate([[0], np.cumsum(positive)])
    right[1:-1][np.diff(values[order]) == 0] = -1  # nothing is between equal values
    ends = np.concatenate([[-1.0], values[order], [1.0]])
    best = int(np.argmax(right))
    return float(ends[best : best + 2].mean())


def zero_shot(weights: str, data: Path) -> dict[str, float]:
    """Score the encoder's cosine on the dev files of Quora and STS."""
    (train, train_labels), (dev, labels) = (read_rows("para", data, split) for split in ("train", "dev"))
    pairs, similarity = read_rows("sts", data, "dev")
    of_train, of_dev, of_sts = cosines(weights, train, dev, pairs)
    answers = (of_dev > best_threshold(of_train, train_labels)).astype(float)
    return {
        "para accuracy": compute_metric("accuracy", answers, labels),
        "sts pearson": compute_metric("pearson", of_sts, similarity),
        "sts spearman": compute_metric("spearman", of_sts, similarity),
    }


def known_by_task(data: Path) -> dict[str, np.ndarray]:
    """Return by task which dev rows are known from the training file: for Quora by a question, else whole."""
    known = {}
    for task in COURSE:
        train, dev = (single_spaced(read_rows(task, data, split)[0]) for split in ("train", "dev"))
        known[task] = known_rows(train, dev, by_text=task == "para")
    return known


def without_known(result: Result, data: Path, known: Mapping[str, np.ndarray]) -> dict[str, tuple[int, float, float]]:
    """Score a run: by task the number of known rows, the score of all rows and that of the others."""
    scores = {}
    for task, (*_, metric) in COURSE.items():
        _, labels = read_dev(task, data, [result])
        found, left = predictions_of(result, task), ~known[task]
        others = compute_metric(metric, found[left], labels[left])
        scores[task] = (int(known[task].sum()), compute_metric(metric, found, labels), others)
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Say what encoder and training files know of the dev files.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the course's files (%(default)s)")
    parser.add_argument("--weights", nargs="*", default=["all-minilm-l6-v2"], help="names or folders (%(default)s)")
    parser.add_argument("--results", nargs="*", type=Path, default=[], metavar="FILE", help="of reproduce_tables.py")
    args = parser.parse_args(argv)
    for weights in args.weights:
        scores = zero_shot(weights, args.data)
        print(f"{weights}, no training: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    known = known_by_task(args.data) if args.results else {}
    for path in args.results:
        result = read_result(path)
        if result["screen"]:
            raise DataError(f"{path} must be the result of a row, got a screen, which never reads the dev files")
        for task, (count, every, others) in without_known(result, args.data, known).items():
            print(f"{result['name']}-{result['seed']} {task}: {every:.4f}, without {count} known rows {others:.4f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (MinbertError, OSError) as error:
        sys.exit(f"error: {error}")
