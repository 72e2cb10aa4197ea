"""Make rows without labels from a run's training texts, for its students: multitask distill --unlabelled.

    python examples/more_rows.py runs/mpnet --out more

Of a task with one text: spans of its texts, from three words on, after the n-gram sampling of Tang et al. 2019 (arXiv
1903.12136, section 3.2). Of one with two: each text beside one of its ten nearest, by the cosine of the encoder's mean
vectors: the semantic search of Thakur et al. 2021 (Augmented SBERT, arXiv 2010.08240, section 3.1). Only texts of the
run's training rows are used, and pairs that are training or dev rows are left out. Writes OUT/TASK.tsv and prints how
many rows each file has. Takes a minute for 40,000 texts on two cores.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from minbert import BertModel, BertTokenizer, MinbertError, encode
from multitask import DataError, Run

NEAREST = 10
SHORTEST = 3  # words of a span


def spans(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[tuple[str]]:
    """Draw up to ``count`` different spans of words, about as many of each text."""
    known, found = {" ".join(text.split()) for text in texts}, dict[str, None]()
    for number in np.resize(rng.permutation(len(texts)), count).tolist():
        words = texts[number].split()
        length = rng.integers(min(SHORTEST, len(words)), len(words) + 1)
        start = rng.integers(len(words) - length + 1)
        found[" ".join(words[start : start + length])] = None
    return [(text,) for text in found if text not in known]


def neighbours(
    pairs: Sequence[tuple[str, ...]], vectors: dict[str, torch.Tensor], count: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Draw up to ``count`` different pairs of a text and one of its nearest.

    :param pairs: are left out, in either order.
    :param vectors: of each text, of length 1.
    """
    texts, stacked = list(vectors), torch.stack(list(vectors.values()))
    # Each text is the nearest of its own.
    nearest = [
        found for part in stacked.split(1000) for found in (part @ stacked.T).topk(min(NEAREST + 1, len(texts))).indices
    ]
    known, found = {frozenset(pair) for pair in pairs}, dict[frozenset[str], tuple[str, str]]()
    for number in np.resize(rng.permutation(len(texts)), max(len(texts), 2 * count)).tolist():
        pair = texts[number], texts[int(rng.choice(nearest[number]))]
        if len({*pair}) == 2 and frozenset(pair) not in known:
            found.setdefault(frozenset(pair), pair)
    return list(found.values())[:count]


def vectors_of(texts: Sequence[str], weights: str) -> dict[str, torch.Tensor]:
    """Return the mean vector of each text, of length 1."""
    model, tokenizer = BertModel.from_pretrained(weights).eval(), BertTokenizer.from_pretrained(weights)
    return dict(zip(texts, torch.nn.functional.normalize(encode(model, tokenizer, texts), dim=-1), strict=True))


def write_more_rows(
    run: Run, out: Path, *, weights: str, times: float = 1.0, seed: int = 0, data: Path | None = None
) -> dict[str, tuple[Path, int]]:
    """Write a file for each of a run's tasks, up to ``times`` as many rows as it trains on.

    :param weights: of the encoder that says which texts of a pair are near.
    :return: by task its file, and how many rows that has.
    :raises DataError: for columns without names, and a task whose files are written in a format of their own.
    """
    files = {}
    try:
        dev = run.read_split("dev", data=data, bad_rows="missing")
    except DataError as error:  # it may have none
        dev = {}
        print(f"no dev rows are left out: {error}", file=sys.stderr)
    for name, dataset in run.read_split("train", data=data, bad_rows="missing").items():
        columns = run.config.task(name).text
        if any(column.isdecimal() for column in columns):
            raise DataError(f"tasks.{name}.text must be columns with names, got {', '.join(columns)}")
        written = {key: value for key, value in run.config.task(name).format.to_dict().items() if value is not None}
        if written:  # a student would read these rows so, too
            raise DataError(f"tasks.{name}.format must be unset, got {written}")
        rows, rng = [example.texts for example in dataset.examples], np.random.default_rng(seed)
        count, texts = round(times * len(rows)), sorted({text for row in rows for text in row})
        if len(columns) == 1:
            found: Sequence[tuple[str, ...]] = spans(texts, count, rng)
        else:
            held = [example.texts for example in dev[name].examples] if name in dev else []
            found = neighbours([*rows, *held], vectors_of(texts, weights), count, rng)
        out.mkdir(parents=True, exist_ok=True)
        files[name] = out / f"{name}.tsv", len(found)
        with open(files[name][0], "w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows([columns, *found])
    return files


def main(argv: list[str] | None = None) -> int:
    """Write the files.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Make rows without labels from a run's training texts.")
    parser.add_argument("run", type=Path, help="the teacher's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="encoder that says what is near (%(default)s)")
    parser.add_argument(
        "--times", type=float, default=1.0, help="at most this many rows for each training row (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the training files, if they moved")
    args = parser.parse_args(argv)
    if not 0 < args.times <= 100:
        parser.error(f"--times must be above 0 and at most 100, got {args.times:g}")
    if args.seed < 0:
        parser.error(f"--seed must be at least 0, got {args.seed}")
    run = Run.load(args.run)
    files = write_more_rows(run, args.out, weights=args.weights, times=args.times, seed=args.seed, data=args.data)
    for path, rows in files.values():
        print(f"{path}: {rows:,} rows")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (MinbertError, OSError) as error:
        sys.exit(f"error: {error}")
