"""Compare what train reaches with few rows, nothing set, with a probe on the frozen encoder, the cosine, and SetFit.

    python examples/08_few_rows.py --only sst2 --rows 8 --draws 1-3

Prints a table: by task, number of rows and method the mean score over several draws of the rows, with its standard
error, and how far train is above the probe on the same draws. What the line above asks for takes a minute or two on two
cores; all tasks and ten draws take hours, and --results keeps what is done for a later call to go on from.

The files are the course's three: multitask fetch data --quora small writes them. Needs pandas (pip install -c
constraints.txt '.[examples]'). sst5 and sst2 (classes 0 and 1 against 3 and 4) draw so many rows a class, para and sts
so many rows in all. Scored is the whole dev file: accuracy, for sts Pearson's correlation. The rule was fixed before
any default of train was tuned: rows are drawn without replacement by numpy's default_rng((draw, rows)), training's seed
is the draw; draws 1 to 5 are for tuning, 6 to 10 for the report.

- probe: L2-normalised mean vectors of the frozen encoder, for a pair [u, v, |u - v|, u * v], under logistic regression
  (C = 1) or ridge regression (alpha = 1), scikit-learn's defaults.
- cosine: of a pair's two vectors; for classes with the threshold that is best on the drawn rows.
- ours: train with its tasks, rows and seed; it has no dev rows but those that it takes from the drawn ones itself.
- setfit (Tunstall et al. 2022), where it is installed: the same encoder, SetFit's defaults; not for pairs.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from minbert import BertModel, BertTokenizer, MinbertError, encode
from multitask import Task, train

Answers = Callable[[pd.DataFrame], np.ndarray]  # what a fitted method says of rows: labels, or numbers
Line = dict[str, Any]  # of the results: task, rows, draw, method, score and seconds
TUNING = 5  # the last draw that a default may be tuned on


@dataclass(frozen=True)
class Problem:
    """A task, and how many rows are drawn of it: of each class for single texts, in all for pairs.

    :param classes: classes of the file under other names; those not named are left out.
    """

    stem: str
    text: list[str]
    label: str
    kind: str
    sizes: tuple[int, ...]
    classes: dict[str, str] | None = None


TEXT, PAIR, A_CLASS, IN_ALL = ["sentence"], ["sentence1", "sentence2"], (8, 32, 128, 512), (40, 160, 640)
TWO = {"0": "low", "1": "low", "3": "high", "4": "high"}
PROBLEMS = {
    "sst5": Problem("ids-sst", TEXT, "sentiment", "classification", A_CLASS),
    "sst2": Problem("ids-sst", TEXT, "sentiment", "binary", A_CLASS, TWO),
    "para": Problem("quora", PAIR, "is_duplicate", "binary", IN_ALL),
    "sts": Problem("sts", PAIR, "similarity", "regression", IN_ALL),
}


def read(problem: Problem, data: Path, split: str) -> pd.DataFrame:
    """Return the columns with text and the label of a split's rows that lack neither; a regression's are numbers."""
    table = pd.read_csv(data / f"{problem.stem}-{split}.csv", sep="\t", dtype=str, keep_default_na=False, na_values="")
    rows = table[problem.text].assign(label=table[problem.label])
    if problem.classes is not None:
        rows["label"] = rows["label"].map(problem.classes)
    rows = rows.dropna()
    return rows.astype({"label": float}) if problem.kind == "regression" else rows


def draw_rows(rows: pd.DataFrame, problem: Problem, size: int, draw: int) -> pd.DataFrame:
    """Draw rows without replacement: ``size`` of each class for single texts, else ``size`` in all."""
    rng = np.random.default_rng((draw, size))
    groups = [np.arange(len(rows))]
    if problem.text == TEXT:
        groups = [np.flatnonzero(rows["label"] == label) for label in sorted(set(rows["label"]))]
    return rows.iloc[np.concatenate([rng.choice(group, size, replace=False) for group in groups])]


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

    def sides(self, rows: pd.DataFrame, problem: Problem) -> list[np.ndarray]:
        """Return the vectors of the rows' texts, and of their second texts if there are any, each (rows, hidden)."""
        return [np.stack([self.of[text] for text in rows[name]]) for name in problem.text]


def logistic(features: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """Minimise the sum of the cross-entropies plus ||W||² / 2, the biases free.

    :param targets: class indices, (rows,).
    :return: weights and, in the last row, biases: (features + 1, classes).
    """
    inputs, truth = np.hstack([features, np.ones((len(features), 1))]), np.eye(classes)[targets]
    # Two classes have one column of weights, w; as two columns, w / 2 and -w / 2, its squares count half.
    penalty = 1.0 if classes == 2 else 0.5

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(-1, classes)
        logs = log_softmax(inputs @ weights, axis=1)
        gradient = inputs.T @ (np.exp(logs) - truth)
        gradient[:-1] += 2 * penalty * weights[:-1]
        return penalty * (weights[:-1] ** 2).sum() - (logs * truth).sum(), gradient.ravel()

    options = {"maxiter": 1000, "ftol": 1e-12}
    found = minimize(loss, np.zeros(inputs.shape[1] * classes), jac=True, method="L-BFGS-B", options=options)
    weights: np.ndarray = found.x.reshape(-1, classes)
    return weights


def ridge(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Minimise the sum of squares plus ||w||², the bias free; return weights and bias, (features + 1,)."""
    centre, mean = features.mean(axis=0), targets.mean()
    moved = features - centre  # solved by its rows, of which there are fewer than features
    weights = moved.T @ np.linalg.solve(moved @ moved.T + np.eye(len(moved)), targets - mean)
    return np.append(weights, mean - centre @ weights)


def fit_probe(rows: pd.DataFrame, problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Fit a linear model to frozen vectors: u for a text, [u, v, |u - v|, u * v] for a pair."""

    def features(rows: pd.DataFrame) -> np.ndarray:
        first, *second = vectors.sides(rows, problem)
        return np.hstack([first, *(part for v in second for part in (v, abs(first - v), first * v))])

    labels = rows["label"].to_numpy()
    if problem.kind == "regression":
        line = ridge(features(rows), labels)
        return lambda rows: features(rows) @ line[:-1] + line[-1]
    classes, targets = np.unique(labels, return_inverse=True)
    weights = logistic(features(rows), targets, len(classes))
    return lambda rows: classes[(features(rows) @ weights[:-1] + weights[-1]).argmax(axis=1)]


def fit_cosine(rows: pd.DataFrame, problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Take a pair's cosine as its number, or choose the threshold between two classes on the rows."""

    def cosines(rows: pd.DataFrame) -> np.ndarray:
        first, second = vectors.sides(rows, problem)
        sums: np.ndarray = (first * second).sum(axis=1)
        return sums

    if problem.kind == "regression":
        return cosines
    labels, found = rows["label"].to_numpy(), cosines(rows)
    classes = np.unique(labels)
    ends = np.sort([-1, *found, 1])
    right = [((found > threshold) == (labels == classes[1])).sum() for threshold in (ends[1:] + ends[:-1]) / 2]
    best = ends[np.argmax(right) :][:2].mean()
    return lambda rows: classes[(cosines(rows) > best).astype(int)]


def fit_ours(rows: pd.DataFrame, problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Train as anyone would who names the columns and the kind, and sets nothing."""
    tasks, data = [Task(name="task", text=problem.text, label="label", kind=problem.kind)], {"task": {"train": rows}}
    with TemporaryDirectory() as out:
        run = train(tasks=tasks, data=data, weights=vectors.weights, seed=draw, out=out, progress=False)
    return lambda rows: run.predict("task", rows)["prediction"].to_numpy()


def fit_setfit(rows: pd.DataFrame, problem: Problem, vectors: Vectors, draw: int) -> Answers:
    """Train SetFit with its defaults on the same encoder, saved where it is loaded without the network."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, models
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    classes, targets = np.unique(rows["label"].to_numpy(), return_inverse=True)
    with TemporaryDirectory() as folder:
        encoder = BertModel.from_pretrained(vectors.weights)
        encoder.save_pretrained(folder)
        BertTokenizer.from_pretrained(vectors.weights).save_pretrained(folder)
        modules = [models.Transformer(folder, max_seq_length=256), models.Pooling(encoder.config.hidden_size, "mean")]
        setfit = SetFitModel(SentenceTransformer(modules=[*modules, models.Normalize()]), LogisticRegression())
        examples = Dataset.from_dict({"text": list(rows[problem.text[0]]), "label": targets.tolist()})
        Trainer(setfit, TrainingArguments(f"{folder}/run", seed=draw), train_dataset=examples).train()
    return lambda rows: classes[np.asarray(setfit.predict(list(rows[problem.text[0]])))]


FITS = {"probe": fit_probe, "cosine": fit_cosine, "ours": fit_ours, "setfit": fit_setfit}
FROZEN = ("probe", "cosine")  # computed from vectors that are there already, whose time is added


def measure(name: str, todo: Sequence[tuple[int, int, str]], data: Path, vectors: Vectors) -> Iterator[Line]:
    """Draw rows of a task, fit, answer the dev rows and score the answers, by number of rows, draw and method."""
    problem = PROBLEMS[name]
    rows, dev = (read(problem, data, split) for split in ("train", "dev"))
    labels = dev["label"].to_numpy()
    drawn = {(size, draw): draw_rows(rows, problem, size, draw) for size, draw, _ in todo}
    if any(method in FROZEN for *_, method in todo):
        vectors.add({text for part in (dev, *drawn.values()) for text in part[problem.text].to_numpy().ravel()})
    for size, draw, method in todo:
        encoding = vectors.seconds * len(problem.text) if method in FROZEN else 0.0  # of a row
        if method == "setfit":
            import_module("setfit")  # is not timed
        started = time.perf_counter()
        answers = FITS[method](drawn[size, draw], problem, vectors, draw)
        fitted = time.perf_counter()
        found = answers(dev)
        seconds = {
            "fit_seconds": fitted - started + encoding * len(drawn[size, draw]),
            "predict_seconds": time.perf_counter() - fitted + encoding * len(dev),
        }
        score = np.corrcoef(found, labels)[0, 1] if problem.kind == "regression" else np.mean(found == labels)
        yield {"task": name, "rows": size, "draw": draw, "method": method, "score": float(score), **seconds}


def print_table(results: Sequence[Line]) -> None:
    """Print mean scores on the draws to report and on all, and how far ours is above the others."""
    table = pd.DataFrame(results)
    wide = table.pivot_table(index=["task", "rows", "draw"], columns="method", values="score")
    for other in [name for name in FITS if {name, "ours"} <= {*wide} and name != "ours"]:
        wide[f"ours - {other}"] = wide["ours"] - wide[other]
    scores = wide.melt(ignore_index=False, value_name="score").dropna().reset_index()
    seconds = table.groupby(["task", "rows", "method"])[["fit_seconds", "predict_seconds"]].mean()
    order = [*FITS, *(f"ours - {name}" for name in FITS)]
    print(f"\n{'task':<6}{'rows':>4}  {'method':<15}{'draws from 6':<20}{'all draws':<20}{'fit s':>8}{'predict s':>11}")
    for task, size, method in product(PROBLEMS, sorted(set(table["rows"])), order):
        lines = scores[(scores["task"] == task) & (scores["rows"] == size) & (scores["method"] == method)]
        if len(lines):
            cells = [shown(each) for each in (lines["score"][lines["draw"] > TUNING], lines["score"])]
            times = [f"{each:.1f}" for each in seconds.loc[task, size, method]] if method in FITS else ["", ""]
            print(f"{task:<6}{size:>4}  {method:<15}{cells[0]:<20}{cells[1]:<20}{times[0]:>8}{times[1]:>11}".rstrip())


def shown(values: pd.Series) -> str:
    """Return the mean over draws, its standard error and the number of draws."""
    return f"{values.mean():.3f} ± {values.sem():.3f} ({len(values)})" if len(values) else "-"


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
        for line in measure(name, todo, args.data, vectors) if todo else ():
            results.append(line)
            print("{task} {rows} draw {draw} {method} {score:.3f}".format(**line), file=sys.stderr)
            if args.results is not None:
                with args.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
    if results:
        print_table(results)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinbertError as error:
        sys.exit(f"error: {error}")
