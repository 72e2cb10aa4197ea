"""Compare what train reaches with few rows, nothing set, with a probe on the frozen encoder, the cosine, and SetFit.

    python examples/08_few_rows.py --only sst2 --rows 8 --draws 1-3

Prints a table: by task, number of rows and method the mean score over several draws of the rows, with its standard
error, and how far train is above the probe on the same draws. What the line above asks for takes two minutes on two
cores; all tasks and ten draws take hours, and --results keeps what is done for a later call to go on from.

The files are the course's three: multitask fetch data --quora small writes them. sst5 and sst2 (classes 0 and 1 against
3 and 4) draw so many rows a class, para and sts so many rows in all. Scored is the whole dev file: accuracy, for sts
Pearson's correlation. The rule was fixed before any default of train was tuned: rows are drawn without replacement by
numpy's default_rng((draw, rows)), training's seed is the draw; draws 1 to 5 are for tuning, 6 to 10 for the report.

- probe: L2-normalised mean vectors of the frozen encoder, for a pair [u, v, |u - v|, u * v], under logistic regression
  (C = 1) or ridge regression (alpha = 1), scikit-learn's defaults.
- cosine: of a pair's two vectors; for classes with the threshold that is best on the drawn rows.
- ours: train with its tasks, rows and seed; it has no dev rows but those that it takes from the drawn ones itself.
- setfit (arXiv 2209.11055), where it is installed: the same encoder, SetFit's defaults.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from minbert import BertModel, BertTokenizer, MinbertError, encode
from multitask import Task, train

Row = tuple[tuple[str, ...], str]  # its texts, its label
Answers = Callable[[Sequence[Row]], np.ndarray]  # what a fitted method says of rows: labels, or numbers
Line = dict[str, Any]  # of the results: task, rows, draw, method, score and seconds
TUNING = 5  # the last draw that a default may be tuned on


@dataclass(frozen=True)
class Problem:
    """A task, and how many rows are drawn of it: of each class, or in all.

    :param classes: classes of the file under other names; those not named are left out.
    """

    stem: str
    text: tuple[str, ...]
    label: str
    kind: str
    sizes: tuple[int, ...]
    classes: dict[str, str] = field(default_factory=dict)


PAIR, A_CLASS, IN_ALL = ("sentence1", "sentence2"), (8, 32, 128, 512), (40, 160, 640)
PROBLEMS = {
    "sst5": Problem("ids-sst", ("sentence",), "sentiment", "classification", A_CLASS),
    "sst2": Problem(
        "ids-sst", ("sentence",), "sentiment", "binary", A_CLASS, {"0": "low", "1": "low", "3": "high", "4": "high"}
    ),
    "para": Problem("quora", PAIR, "is_duplicate", "binary", IN_ALL),
    "sts": Problem("sts", PAIR, "similarity", "regression", IN_ALL),
}


def read(problem: Problem, data: Path, split: str) -> list[Row]:
    """Return a split's rows that have all texts and a label."""
    with open(data / f"{problem.stem}-{split}.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    rows = [(tuple(line[name] for name in problem.text), line[problem.label]) for line in table]
    if problem.classes:
        rows = [(texts, problem.classes.get(label, "")) for texts, label in rows]
    return [(texts, label) for texts, label in rows if label and all(texts)]


def draw_rows(rows: Sequence[Row], problem: Problem, size: int, draw: int) -> list[Row]:
    """Draw rows without replacement: ``size`` of each class for single texts, else ``size`` in all."""
    rng = np.random.default_rng((draw, size))
    classes = sorted({label for _, label in rows}) if len(problem.text) == 1 else [None]
    groups = [[at for at, row in enumerate(rows) if label in (row[1], None)] for label in classes]
    return [rows[at] for group in groups for at in rng.choice(group, size, replace=False)]


class Vectors:
    """The frozen encoder's vector of each text, computed once; ``seconds`` is what one text takes."""

    def __init__(self, weights: str) -> None:
        self.weights, self.seconds, self.of = weights, 0.0, dict[str, np.ndarray]()

    def add(self, texts: set[str]) -> None:
        """Encode texts."""
        model, tokenizer = BertModel.from_pretrained(self.weights).eval(), BertTokenizer.from_pretrained(self.weights)
        started, ordered = time.perf_counter(), sorted(texts)
        vectors = torch.nn.functional.normalize(encode(model, tokenizer, ordered), dim=-1).cpu().numpy()
        self.seconds = (time.perf_counter() - started) / len(ordered)
        self.of.update(zip(ordered, vectors.astype(np.float64), strict=True))

    def sides(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return the vectors of the rows' first texts, (rows, hidden), and of their second ones if there are any."""
        return [np.stack([self.of[text] for text in side]) for side in zip(*(texts for texts, _ in rows), strict=True)]

    def features(self, rows: Sequence[Row]) -> np.ndarray:
        """Return what the probe sees: u, (rows, hidden), or for pairs [u, v, |u - v|, u * v], (rows, 4 * hidden)."""
        sides = self.sides(rows)
        return sides[0] if len(sides) == 1 else np.hstack([*sides, abs(sides[0] - sides[1]), sides[0] * sides[1]])

    def cosines(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the cosine of each pair, (rows,)."""
        first, second = self.sides(rows)
        return (first * second).sum(axis=1)


def labels_of(rows: Sequence[Row], kind: str) -> np.ndarray:
    """Return the rows' labels: numbers for a regression, else strings."""
    return np.array([label for _, label in rows], dtype=np.float64 if kind == "regression" else None)


def logistic(features: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Minimise the sum of the cross-entropies plus ||W||² / 2, the biases free; of two classes the first scores 0.

    :param targets: class indices, (rows,).
    :return: weights and, in the last row, biases: (features + 1, classes).
    """
    inputs, truth = np.hstack([features, np.ones((len(features), 1))]), np.eye(classes)[targets]
    fixed = 1 if classes == 2 else 0  # columns that stay 0

    def columns(flat: np.ndarray) -> np.ndarray:
        return np.hstack([np.zeros((inputs.shape[1], fixed)), flat.reshape(inputs.shape[1], -1)])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = columns(flat)
        logs = log_softmax(inputs @ weights, axis=1)
        gradient = inputs.T @ (np.exp(logs) - truth)
        gradient[:-1] += weights[:-1]
        return (weights[:-1] ** 2).sum() / 2 - (logs * truth).sum(), gradient[:, fixed:].ravel()

    start = np.zeros(inputs.shape[1] * (classes - fixed))
    return columns(minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x)


def ridge(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Minimise the sum of squares plus ||w||², the bias free; return weights and bias, (features + 1,)."""
    centre, mean = features.mean(axis=0), targets.mean()
    moved = features - centre  # solved by its rows, of which there are fewer than features
    weights = moved.T @ np.linalg.solve(moved @ moved.T + np.eye(len(moved)), targets - mean)
    return np.append(weights, mean - centre @ weights)


def fit_probe(rows: Sequence[Row], problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Fit a linear model on the frozen vectors."""
    features, labels = vectors.features(rows), labels_of(rows, problem.kind)
    if problem.kind == "regression":
        line = ridge(features, labels)
        return lambda rows: vectors.features(rows) @ line[:-1] + line[-1]
    classes, targets = np.unique(labels, return_inverse=True)
    weights = logistic(features, targets, len(classes))
    return lambda rows: classes[(vectors.features(rows) @ weights[:-1] + weights[-1]).argmax(axis=1)]


def fit_cosine(rows: Sequence[Row], problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Take a pair's cosine as its number, or choose the threshold between two classes on the rows."""
    if problem.kind == "regression":
        return vectors.cosines
    labels, cosines = labels_of(rows, problem.kind), vectors.cosines(rows)
    classes = np.unique(labels)
    ends = np.sort(np.concatenate([cosines, [-1.0, 1.0]]))
    middles = (ends[1:] + ends[:-1]) / 2
    best = max(middles, key=lambda threshold: float(((cosines > threshold) == (labels == classes[1])).mean()))
    return lambda rows: classes[(vectors.cosines(rows) > best).astype(int)]


def fit_ours(rows: Sequence[Row], problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Train as anyone would who names the columns and the kind, and sets nothing."""
    task = Task(name="task", text=problem.text, label=problem.label, kind=problem.kind)
    given = [{**dict(zip(problem.text, texts, strict=True)), problem.label: label} for texts, label in rows]
    with TemporaryDirectory() as folder:
        data = {"task": {"train": given}}
        run = train(
            tasks=[task], data=data, weights=vectors.weights, seed=draw, out=Path(folder) / "run", progress=False
        )
    return lambda rows: np.array([answer.label for answer in run.predict("task", [texts for texts, _ in rows])])


def fit_setfit(rows: Sequence[Row], problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Train SetFit with its defaults on the same encoder, saved where it can load it without the network."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, models
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    classes, targets = np.unique(labels_of(rows, problem.kind), return_inverse=True)
    with TemporaryDirectory() as folder:
        model = BertModel.from_pretrained(vectors.weights)
        model.save_pretrained(folder)
        BertTokenizer.from_pretrained(vectors.weights).save_pretrained(folder)
        modules = [models.Transformer(folder, max_seq_length=256), models.Pooling(model.config.hidden_size, "mean")]
        setfit = SetFitModel(SentenceTransformer(modules=[*modules, models.Normalize()]), LogisticRegression())
        examples = Dataset.from_dict({"text": [texts[0] for texts, _ in rows], "label": targets.tolist()})
        Trainer(setfit, TrainingArguments(f"{folder}/run", seed=draw), train_dataset=examples).train()
    return lambda rows: classes[np.asarray(setfit.predict([texts[0] for texts, _ in rows]))]


FITS = {"probe": fit_probe, "cosine": fit_cosine, "ours": fit_ours, "setfit": fit_setfit}
FROZEN = ("probe", "cosine")  # computed from vectors that are there already, whose time is added


def measure(
    method: str, rows: Sequence[Row], dev: Sequence[Row], problem: Problem, vectors: Vectors, draw: int
) -> Line:
    """Fit to the rows, answer the dev rows and score the answers; return score and seconds."""
    if method == "setfit":
        import_module("setfit")  # is not timed
    times = [time.perf_counter()]
    answers = FITS[method](rows, problem, vectors, draw)
    times.append(time.perf_counter())
    found, labels = answers(dev), labels_of(dev, problem.kind)
    times.append(time.perf_counter())
    encoding = vectors.seconds * len(problem.text) if method in FROZEN else 0
    score = np.corrcoef(found, labels)[0, 1] if problem.kind == "regression" else (found == labels).mean()
    return {
        "score": float(score),
        "fit_seconds": times[1] - times[0] + encoding * len(rows),
        "predict_seconds": times[2] - times[1] + encoding * len(dev),
    }


def measure_all(name: str, todo: Sequence[tuple[int, int, str]], data: Path, vectors: Vectors) -> Iterator[Line]:
    """Measure a task by rows, draw and method."""
    problem = PROBLEMS[name]
    rows, dev = (read(problem, data, split) for split in ("train", "dev"))
    drawn = {(size, draw): draw_rows(rows, problem, size, draw) for size, draw, _ in todo}
    if any(method in FROZEN for *_, method in todo):
        vectors.add({text for part in (dev, *drawn.values()) for texts, _ in part for text in texts})
    for size, draw, method in todo:
        line = {"task": name, "rows": size, "draw": draw, "method": method}
        yield line | measure(method, drawn[size, draw], dev, problem, vectors, draw)


def mean_and_error(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean of draws, its standard error and their number as the table shows them."""
    if not values:
        return "-"
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f} ({len(values)})"


def print_table(results: Sequence[Line]) -> None:
    """Print by task, rows and method the scores of the draws to report and of all, and ours minus each other method."""
    scores: dict[tuple[str, int], dict[str, dict[int, Line]]] = {}
    for line in results:
        scores.setdefault((line["task"], line["rows"]), {}).setdefault(line["method"], {})[line["draw"]] = line
    print(
        f"\n{'task':<6}{'rows':>4}  {'method':<15}{'draws 6 to 10':<20}{'all draws':<20}{'fit s':>8}{'predict s':>10}"
    )
    for (task, size), methods in sorted(scores.items(), key=lambda item: (list(PROBLEMS).index(item[0][0]), item[0])):
        for method in [name for name in FITS if name in methods]:
            draws = methods[method]
            values = {draw: line["score"] for draw, line in draws.items()}
            seconds = [np.mean([line[key] for line in draws.values()]) for key in ("fit_seconds", "predict_seconds")]
            print_line(task, size, method, values, f"{seconds[0]:8.1f}{seconds[1]:10.1f}")
        ours = methods.get("ours", {})
        for other in [name for name in FITS if name in methods and name != "ours" and ours]:
            both = sorted(ours.keys() & methods[other].keys())
            apart = {draw: ours[draw]["score"] - methods[other][draw]["score"] for draw in both}
            print_line(task, size, f"ours - {other}", apart)


def print_line(task: str, size: int, name: str, values: dict[int, float], end: str = "") -> None:
    """Print one line of the table; ``values`` by draw."""
    report = mean_and_error([value for draw, value in values.items() if draw > TUNING])
    print(f"{task:<6}{size:>4}  {name:<15}{report:<20}{mean_and_error(list(values.values())):<20}{end}".rstrip())


def numbers(words: str) -> range:
    """Return the draws of "3" or "1-5"."""
    first, _, last = words.partition("-")
    return range(int(first), int(last or first) + 1)


def main(argv: list[str] | None = None) -> int:
    """Measure what is asked for and not yet there, and print the table of all there is.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    installed = [name for name in FITS if name != "setfit" or find_spec("setfit")]
    parser = argparse.ArgumentParser(description="Compare train on few rows with a probe, the cosine and SetFit.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the course's files (%(default)s)")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="name, hub id or folder of the encoder")
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="tasks (all)")
    parser.add_argument("--rows", nargs="+", type=int, help="rows to draw, instead of each task's own numbers")
    parser.add_argument("--draws", type=numbers, default=range(1, 11), help="such as 3 or 1-5 (1-10)")
    parser.add_argument("--methods", nargs="+", choices=FITS, default=installed, help="(those installed)")
    parser.add_argument("--results", type=Path, help="JSON lines to go on from and to add to")
    args = parser.parse_args(argv)

    known = args.results is not None and args.results.exists()
    results = [json.loads(line) for line in args.results.read_text("utf-8").splitlines()] if known else []
    done = {(line["task"], line["rows"], line["draw"], line["method"]) for line in results}
    vectors = Vectors(args.weights)
    for name in args.only:
        problem = PROBLEMS[name]
        other = "cosine" if len(problem.text) == 1 else "setfit"  # is not for this task
        cells = product(args.rows or problem.sizes, args.draws, [method for method in args.methods if method != other])
        todo = [cell for cell in cells if (name, *cell) not in done]
        for line in measure_all(name, todo, args.data, vectors) if todo else ():
            results.append(line)
            print("{task} {rows} draw {draw} {method} {score:.3f}".format(**line), file=sys.stderr)
            if args.results is not None:
                with args.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    print_table(results)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinbertError as error:
        sys.exit(f"error: {error}")
