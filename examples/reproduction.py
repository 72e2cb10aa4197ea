"""The trainings behind reproduce_tables.py: one for each seed of the plan's rows, and what is kept of it.

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
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from more_rows import write_more_rows
from reproduction_plan import COURSE, TASKS, Job, Planned, Result, held_out_mean, jobs_of, read_result

from multitask import DataError, Distillation, Run, RunConfig, StoppedError, build_config, train
from multitask.cli.output import write_split
from multitask.evaluation import Selection
from multitask.metrics import bootstrap_score, compute_metric
from multitask.training.identity import known_identity


def read_rows(task: str, data: Path, split: str) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Return the texts of a course file's labelled rows, and their labels as numbers."""
    stem, texts, label, _ = COURSE[task]
    with open(data / f"{stem}-{split}.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row[label]]
    return [tuple(row[name] for name in texts) for row in rows], np.array([float(row[label]) for row in rows])


def read_dev(task: str, data: Path, results: Iterable[Result]) -> tuple[list[tuple[str, ...]], np.ndarray]:
    """Return the dev rows of a task; DataError if they can't be those that the results have scores of."""
    texts, labels = read_rows(task, data, "dev")
    for result in results:
        if (rows := result["dev"][task]["rows"]) != len(labels):
            raise DataError(
                f"--data {data} must have the {rows} dev rows of {task} that {result['name']}-{result['seed']} was"
                f" scored on, got {len(labels)}"
            )
    return texts, labels


def predictions_of(result: Result, task: str) -> np.ndarray:
    """Return a run's predictions for the dev rows, (rows,)."""
    text = result["predictions"][task]
    return np.array([float(each) for each in (text.split() if COURSE[task][-1] == "pearson" else text)])


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
            epochs.setdefault(line["epoch"], {}).setdefault(line["task"], line["value"] or 0.0)  # undefined is null
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
        "machine": {"processor": processor(run.device), "device": str(run.device), "threads": record["threads"]},
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
            predictions[name] = " ".join(f"{value:.5f}" for value in found)
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


def processor(device: torch.device) -> str:
    """Return the name of the CPU or GPU that a run was trained on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def distillation_of(job: Job, plan: Sequence[Planned], args: argparse.Namespace, weights: str) -> Distillation | None:
    """Build what a job learns from: trains the teachers that are gone, and writes the rows without labels."""
    if job.distill is None:
        return None
    settings = dict(job.distill)
    teachers, times = [args.runs / name for name in settings.pop("teachers")], settings.pop("more_rows", None)
    folder = args.runs / f"{job.name}-{job.seed}-rows-{times}"
    unlabelled = {} if times is None else {name: folder / f"{name}.tsv" for name in TASKS}
    known = known_identity(args.runs / f"{job.name}-{job.seed}") is not None  # then it has the teachers' answers
    if not known or not all(file.exists() for file in unlabelled.values()):
        for name, _, seed in (teacher.name.rpartition("-") for teacher in teachers):
            row = next(row for row in plan if row.name == name)
            for each in jobs_of(row, plan, args.results, args.weights):
                if each.name != name:  # a screen, which helps to choose the rate
                    run_job(each, plan, args)
                elif str(each.seed) == seed:
                    train_job(each, plan, args)
        if times is not None:
            write_more_rows(Run.load(teachers[0]), folder, weights=weights, times=times, seed=job.seed)
    return Distillation(teachers=teachers, unlabelled=unlabelled, **settings)


def train_job(job: Job, plan: Sequence[Planned], args: argparse.Namespace) -> Run:
    """Train what a job says, from where it was stopped, or load it if it is finished."""
    out = args.runs / f"{job.name}-{job.seed}"
    print(f"{time.strftime('%H:%M')} {job.file}: {shlex.join(job.sets)}", file=sys.stderr, flush=True)
    config = config_of(job, args.data)
    told = distillation_of(job, plan, args, str(config.encoder.weights))
    try:
        return train(config, out, select=job.select, distillation=told, device=args.device, resume=True)
    except StoppedError as error:
        raise StoppedError(error.signum, error.callback, f"the same command goes on with {out}") from None


def check_result(result: Result, job: Job, place: Path, data: Path) -> None:
    """Refuse a result of other settings than a job's, or of other dev rows."""
    wanted: Result = {key: getattr(job, key) for key in ("preset", "screen", "select", "distill")}
    wanted["set"] = list(job.sets)
    found = {"select": "auto", "distill": None} | result
    for key, value in wanted.items():
        if found[key] != value:
            raise DataError(f"{place}: {key} must be {value}, got {found[key]}; name its --weights or other --results")
    for task in result.get("dev", ()):
        read_dev(task, data, [result])


def check_job(job: Job, args: argparse.Namespace) -> None:
    """Refuse settings of a job that can't be trained, and files that are not there, rather than after hours."""
    config = config_of(job, args.data)
    Selection.parse(job.select, config.tasks)
    if job.distill is not None:
        try:
            Distillation(**{key: value for key, value in job.distill.items() if key != "more_rows"})
        except TypeError as error:
            raise DataError(f"{job.name}: distill must have settings of multitask distill ({error})") from None
    needed = ([] if job.screen else ["dev"]) + (["test-student"] if job.predict else [])
    for file in [f"{stem}-{split}.csv" for stem, *_ in COURSE.values() for split in needed]:
        if not (args.data / file).exists():
            raise DataError(f"--data {args.data} must hold {file}, there is none")


def run_job(job: Job, plan: Sequence[Planned], args: argparse.Namespace) -> None:
    """Train what a job says, unless its result is there, and write its result."""
    place = args.results / job.file
    if place.exists():
        check_result(read_result(place), job, place, args.data)
        return
    check_job(job, args)
    run = train_job(job, plan, args)
    result = result_of(run, job, args.data)
    args.results.mkdir(parents=True, exist_ok=True)
    if job.predict:
        write_predictions(run, args.data, place.with_suffix(".tsv"))
    partial = place.with_suffix(".part")
    partial.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    partial.replace(place)
    print(f"{job.file}: {result['minutes']} minutes, held out {held_out_mean(result):.4f}", file=sys.stderr, flush=True)
