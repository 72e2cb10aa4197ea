"""The trainings behind reproduce_tables.py: the plan's rows, one training for each seed, and what is kept of it.

The protocol of every run: a tenth of each training file is held out, by the seed. It alone chooses the epoch, the
learning rates and whatever else is chosen. The dev files are read once, when the training is over.
"""

import argparse
import csv
import json
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from more_rows import write_more_rows

from multitask import DataError, Distillation, Run, RunConfig, build_config, train
from multitask.cli.output import write_split
from multitask.metrics import bootstrap_score, compute_metric

# Of the course's tasks: the file's stem, the columns of texts and label, and the metric.
COURSE = {
    "sst": ("ids-sst", ("sentence",), "sentiment", "accuracy"),
    "para": ("quora", ("sentence1", "sentence2"), "is_duplicate", "accuracy"),
    "sts": ("sts", ("sentence1", "sentence2"), "similarity", "pearson"),
}
TASKS = tuple(COURSE)
PUBLISHED_WEIGHTS = "bert-base-uncased"
OURS = ("minilm", "mpnet")  # presets with weights of their own
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
    rates: Sequence[float] = ()
    rate_of: str | None = None
    predict: bool = False
    log_conflict: bool = False
    select: str = "auto"
    distill: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Claim:
    """Two rows of the plan that are to be compared, and what is claimed of them.

    :param better: the name of one, ``than`` that of the other.
    :param task: whose scores; "mean" for the mean of all three.
    """

    text: str
    better: str
    than: str
    task: str


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
    predict: bool = False
    log_conflict: bool = False
    select: str = "auto"
    distill: Mapping[str, Any] | None = None

    @property
    def file(self) -> str:
        """The name of its result file."""
        return f"{self.name}-{self.seed}.json"


def read_plan(path: Path) -> tuple[list[Planned], list[Claim]]:
    """Read a plan file: its runs and its claims."""
    plan = tomllib.loads(path.read_text("utf-8"))
    return [Planned(**row) for row in plan["run"]], [Claim(**claim) for claim in plan.get("claim", [])]


def rate_sets(rate: float) -> tuple[str, ...]:
    """Set one learning rate for all tasks."""
    return tuple(f"tasks.{name}.lr={rate:g}" for name in TASKS)


def jobs_of(row: Planned, plan: Sequence[Planned], results: Path, weights: str) -> Iterator[Job]:
    """Give a row's trainings, each when the results of those before it are there.

    :param weights: take the place of the published ones.
    """
    sets = tuple(row.set)
    if row.preset not in OURS and weights != PUBLISHED_WEIGHTS:
        sets = (f"encoder.weights={weights}", *sets)
        if row.epochs is not None:
            sets = (*sets, f"train.epochs={row.epochs}")
    screens = [Job(f"{row.name}-lr{rate:g}", row.preset, sets + rate_sets(rate), 1, True) for rate in row.rates]
    yield from screens
    tuned = next((other for other in plan if other.name == row.rate_of), row)
    if tuned.rates:
        means = [held_out_mean(read_result(results / f"{tuned.name}-lr{rate:g}-1.json")) for rate in tuned.rates]
        sets += rate_sets(tuned.rates[means.index(max(means))])
    for seed in row.seeds:
        predict = row.predict and seed == row.seeds[0]
        log_conflict = row.log_conflict and seed == row.seeds[-1]
        yield Job(row.name, row.preset, sets, seed, row.screen, predict, log_conflict, row.select, row.distill)


def read_rows(task: str, data: Path, split: str) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Return the texts of a course file's labelled rows, and their labels as numbers."""
    stem, texts, label, _ = COURSE[task]
    with open(data / f"{stem}-{split}.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row[label]]
    return [tuple(row[name] for name in texts) for row in rows], np.array([float(row[label]) for row in rows])


def predictions_of(result: Result, task: str) -> np.ndarray:
    """Return a run's predictions for the dev rows, (rows,)."""
    text = result["predictions"][task]
    return np.array([float(each) for each in (text.split() if COURSE[task][-1] == "pearson" else text)])


def read_result(path: Path) -> Result:
    """Read a result file."""
    try:
        result: Result = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path} must be a result file ({error})") from None
    return result


def held_out_mean(result: Result) -> float:
    """Return the mean score of the epoch that was kept, on the held-out rows."""
    return float(result["epochs"][result["kept"] - 1]["mean"])


def config_of(job: Job, data: Path) -> RunConfig:
    """Build a job's settings: the dev files stand as test files, so that a tenth of train is held out as dev."""
    sets = [*job.sets, "train.hold_out=true", *(["train.log_conflict=true"] if job.log_conflict else [])]
    for name, (stem, *_) in COURSE.items():
        sets += [f"tasks.{name}.dev=none", f"tasks.{name}.test={(data / f'{stem}-dev.csv').resolve()}"]
    config = build_config(preset=job.preset, sets=sets, data=data, seed=job.seed)
    if job.screen:
        rows = {task.name: len(read_rows(task.name, data, "train")[1]) for task in config.tasks}
        rounds = min(9 * rows[task.name] // 10 // (task.batch_size or 32) for task in config.tasks)
        config = build_config(preset=job.preset, sets=sets, data=data, seed=job.seed, rounds=rounds // 2)
    return config


def result_of(run: Run, job: Job, data: Path) -> Result:
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
        **({} if job.select == "auto" else {"select": job.select}),
        **({} if job.distill is None else {"distill": dict(job.distill)}),
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
        result |= dev_scores(run, data)
    return result


def dev_scores(run: Run, data: Path) -> Result:
    """Score the dev files, and keep the predictions in the rows' order: a digit a row for classes, else a number."""
    scores: Result = {}
    predictions: Result = {}
    for name, (*_, metric) in COURSE.items():
        texts, labels = read_rows(name, data, "dev")
        answers = [answer.label for answer in run.predict(name, texts)]
        found = np.array([float(str(answer)) for answer in answers])
        score = bootstrap_score(metric, found, labels)
        scores[name] = {metric: score.value, "low": score.low, "high": score.high, "rows": score.n}
        if metric == "pearson":
            scores[name]["spearman"] = compute_metric("spearman", found, labels)
            predictions[name] = " ".join(f"{value:.3f}" for value in found)
        else:
            predictions[name] = "".join(map(str, answers))
    return {"dev": scores, "predictions": predictions}


def write_predictions(run: Run, data: Path, path: Path) -> None:
    """Write the answers to the rows of the test files, which have no labels: task, id and prediction."""
    answers = {}
    for name, (stem, *_) in COURSE.items():
        with open(data / f"{stem}-test-student.csv", encoding="utf-8", newline="") as rows:
            answers[name] = run.predict(name, list(csv.DictReader(rows, delimiter="\t")))
    with open(path, "w", encoding="utf-8", newline="") as file:
        write_split(file, {task.name: task for task in run.config.tasks}, answers)


def processor() -> str:
    """Return what the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def distillation_of(job: Job, runs: Path, weights: str) -> Distillation | None:
    """Build what a job learns from, and write the rows without labels that it asks for."""
    if job.distill is None:
        return None
    settings = {**job.distill, "teachers": [runs / name for name in job.distill["teachers"]]}
    times, folder = settings.pop("more_rows", None), runs / f"{job.name}-{job.seed}-rows"
    if times is not None:
        if not (runs / f"{job.name}-{job.seed}" / "teachers.safetensors").exists():  # else the teacher may be gone
            write_more_rows(Run.load(settings["teachers"][0]), folder, weights=weights, times=times, seed=job.seed)
        settings["unlabelled"] = {name: folder / f"{name}.tsv" for name in TASKS}
    return Distillation(**settings)


def run_job(job: Job, args: argparse.Namespace) -> None:
    """Train what a job says, unless its result is there, and write its result."""
    place = args.results / job.file
    if place.exists():
        return
    needed = ([] if job.screen else ["dev"]) + (["test-student"] if job.predict else [])
    for file in [f"{stem}-{split}.csv" for stem, *_ in COURSE.values() for split in needed]:
        if not (args.data / file).exists():  # rather than after hours
            raise DataError(f"--data {args.data} must hold {file}, there is none")
    out = args.runs / f"{job.name}-{job.seed}"
    print(f"{time.strftime('%H:%M')} {job.file}: {shlex.join(job.sets)}", file=sys.stderr, flush=True)
    config, resume = config_of(job, args.data), (out / "config.json").exists()
    told = distillation_of(job, args.runs, str(config.encoder.weights))
    run = train(config, out, select=job.select, distillation=told, device=args.device, resume=resume)
    result = result_of(run, job, args.data)
    args.results.mkdir(parents=True, exist_ok=True)
    if job.predict:
        write_predictions(run, args.data, place.with_suffix(".tsv"))
    partial = place.with_suffix(".part")
    partial.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    partial.replace(place)
    print(f"{job.file}: {result['minutes']} minutes, held out {held_out_mean(result):.4f}", file=sys.stderr, flush=True)
