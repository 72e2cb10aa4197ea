"""Rebuild the published tables: train each row, keep its result as a file, and print ours beside the published scores.

    python examples/reproduce_tables.py --data data

Trains what examples/results/plan.toml lists and has no result yet, hours in all; a run that was stopped goes on where it
was. With --print it trains nothing and prints the tables. The published setting itself, on a GPU:

    python examples/reproduce_tables.py --weights bert-base-uncased --device cuda --results results

The protocol of every run: a tenth of each training file is held out, by the seed. It alone chooses the epoch, the
learning rates and whatever else is chosen. The dev files are read once, when the training is over. The data are the
course's: multitask fetch data --quora small.
"""

import argparse
import csv
import json
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minbert import MinbertError
from multitask import Run, RunConfig, Task, build_config, train
from multitask.metrics import bootstrap_score, compute_metric

HERE = Path(__file__).parent / "results"
STEMS = {"sst": "ids-sst", "para": "quora", "sts": "sts"}
PUBLISHED_WEIGHTS = "bert-base-uncased"
Result = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A row of the plan; see plan.toml."""

    name: str
    about: str
    preset: str
    seeds: Sequence[int]
    set: Sequence[str] = ()
    epochs: int | None = None
    published: Sequence[float] | None = None
    screen: bool = False
    rates: Sequence[float] = field(default=())


@dataclass(frozen=True)
class Job:
    """One training.

    :param name: of its result, which is NAME-SEED.json.
    :param sets: settings that differ from the preset's, as --set takes them.
    """

    name: str
    preset: str
    sets: tuple[str, ...]
    seed: int
    screen: bool

    @property
    def file(self) -> str:
        """The name of its result file."""
        return f"{self.name}-{self.seed}.json"


def read_plan(path: Path) -> list[Planned]:
    """Read a plan file."""
    return [Planned(**row) for row in tomllib.loads(path.read_text("utf-8"))["run"]]


def rate_sets(rate: float) -> tuple[str, ...]:
    """Set one learning rate for all tasks, and four times as much for their decoders."""
    return tuple(f"tasks.{name}.{key}={value:g}" for name in STEMS for key, value in (("lr", rate),))


def jobs_of(row: Planned, results: Path, weights: str | None) -> Iterator[Job]:
    """Give a row's trainings, each when the result of those before it is there.

    :param weights: take the place of the published ones.
    """
    sets = tuple(row.set)
    if weights is not None and row.published is not None:
        sets = (f"encoder.weights={weights}", *sets)
        if row.epochs is not None and weights != PUBLISHED_WEIGHTS:
            sets = (*sets, f"train.epochs={row.epochs}")
    if row.rates:
        screens = [Job(f"{row.name}-lr{rate:g}", row.preset, sets + rate_sets(rate), 1, True) for rate in row.rates]
        yield from screens
        means = [held_out_mean(read_result(results / screen.file)) for screen in screens]
        sets += rate_sets(row.rates[means.index(max(means))])
    for seed in row.seeds:
        yield Job(row.name, row.preset, sets, seed, row.screen)


def read_result(path: Path) -> Result:
    """Read a result file."""
    result: Result = json.loads(path.read_text("utf-8"))
    return result


def held_out_mean(result: Result) -> float:
    """Return the mean score of the epoch that was kept, on the held-out rows."""
    return float(result["epochs"][result["kept"] - 1]["mean"])


def config_of(job: Job, data: Path) -> RunConfig:
    """Build a job's settings: the dev files stand as test files, so that a tenth of train is held out as dev."""
    sets = [*job.sets, "train.hold_out=true"]
    for name, stem in STEMS.items():
        sets += [f"tasks.{name}.dev=none", f"tasks.{name}.test={(data / f'{stem}-dev.csv').resolve()}"]
    config = build_config(preset=job.preset, sets=sets, data=data, seed=job.seed)
    if job.screen:
        rows = {task.name: sum(1 for _ in open(task.train, "rb")) - 1 for task in config.tasks if task.train}
        rounds = min(9 * rows[task.name] // 10 // (task.batch_size or 32) for task in config.tasks)
        config = build_config(preset=job.preset, sets=sets, data=data, seed=job.seed, rounds=rounds // 2)
    return config


def result_of(run: Run, job: Job) -> Result:
    """Collect what is kept of a run: scores of each epoch on the held-out rows, and once those of the dev files."""
    record = json.loads((run.folder / "record.json").read_text("utf-8"))
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    seconds = [json.loads(line)["seconds"] for line in (run.folder / "timing.jsonl").read_text("utf-8").splitlines()]
    kept = json.loads((run.folder / "best" / "scores.json").read_text("utf-8"))["epoch"]
    epochs: dict[int, dict[str, float]] = {}
    for line in lines:
        if line.get("split") == "dev":
            epochs.setdefault(line["epoch"], {}).setdefault(line["task"], line["value"])
    for scores in epochs.values():
        scores["mean"] = sum(scores.values()) / len(scores)
    result = {
        "name": job.name,
        "preset": job.preset,
        "set": list(job.sets),
        "seed": job.seed,
        "screen": job.screen,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"processor": processor(), "device": str(run.device), "threads": record["threads"]},
        "versions": record["versions"],
        "precision": record["precision"],
        "minutes": round(sum(seconds) / 60, 1),
        "rows": {name: task["train_rows"] for name, task in record["tasks"].items()},
        "epochs": [epochs[number] for number in sorted(epochs)],
        "kept": kept,
    }
    if not job.screen:
        result |= dev_scores(run)
    return result


def labels_of(task: Task) -> tuple[list[dict[str, str]], np.ndarray]:
    """Read the rows of a task's dev file, which stands as its test file, and their labels as numbers."""
    assert task.test is not None
    with open(task.test, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return rows, np.array([float(row[task.label]) for row in rows])


def dev_scores(run: Run) -> Result:
    """Score the dev files, and keep the predictions in the rows' order: a digit a row for classes, else a number."""
    scores: Result = {}
    predictions: Result = {}
    for task in run.config.tasks:
        rows, labels = labels_of(task)
        answers = [answer.label for answer in run.predict(task.name, rows)]
        found = np.array([float(str(answer)) for answer in answers])
        metric = task.scored_by
        score = bootstrap_score(metric, found, labels)
        scores[task.name] = {metric: score.value, "low": score.low, "high": score.high, "rows": score.n}
        if task.kind == "regression":
            scores[task.name]["spearman"] = compute_metric("spearman", found, labels)
            predictions[task.name] = " ".join(f"{value:.3f}" for value in found)
        else:
            predictions[task.name] = "".join(map(str, answers))
    return {"dev": scores, "predictions": predictions}


def processor() -> str:
    """Return what the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def run_job(job: Job, args: argparse.Namespace) -> None:
    """Train what a job says, unless its result is there, and write its result."""
    place = args.results / job.file
    if place.exists():
        return
    out = args.runs / f"{job.name}-{job.seed}"
    print(f"{time.strftime('%H:%M')} {job.file}: {shlex.join(job.sets)}", file=sys.stderr, flush=True)
    run = train(config_of(job, args.data), out, device=args.device, resume=(out / "config.json").exists())
    result = result_of(run, job)
    args.results.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(".part")
    partial.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    partial.replace(place)
    print(f"{job.file}: {result['minutes']} minutes, held out {held_out_mean(result):.4f}", file=sys.stderr, flush=True)


