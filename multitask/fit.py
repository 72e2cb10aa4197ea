"""Training a run into a folder: what stands around the loop. Files, estimate, progress, dev scores, the best epoch."""

import json
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

import minbert
from minbert.checkpoint import write_json
from multitask.batches import TaskData
from multitask.checkpoints import save_checkpoint
from multitask.config import RunConfig
from multitask.data import Dataset
from multitask.errors import ConfigError, RunError
from multitask.inference import evaluate_tasks, mean_score
from multitask.model import MultitaskModel
from multitask.precision import choose_device, choose_precision
from multitask.prepare import build_model, encode, prepare
from multitask.progress import Reporter
from multitask.run import Run
from multitask.sampling import RoundSampler
from multitask.training import RoundRecord, TrainState, estimate_seconds, train_rounds
from multitask.updates import UPDATES

__all__ = ["train"]


def train(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    select: str = "mean",
    limit: int | None = None,
    keep_optimizer: bool = False,
    progress: bool = True,
) -> Run:
    """Train all tasks of ``config`` into the new folder ``out`` and give back the best epoch's run.

    :param out: ``runs/`` and the preset's name, unless told.
    :param select: ``"mean"`` of the dev scores, or the task whose dev score says which epoch is kept in ``best/``.
    :param limit: take at most so many of the first training and dev rows of each task.
    :param keep_optimizer: leave the last checkpoint, with the optimizers' moments, in ``checkpoints/``.
    :param progress: show estimate, bars and scores on standard error.
    :raises RunError: for a folder that is in use, or a loss that is not finite.
    """
    out = Path("runs") / config.preset if out is None else Path(out)
    _check_arguments(config, out, select, limit)
    chosen_device = choose_device(device)
    dtype, why = choose_precision(config.train.precision, chosen_device)
    prepared = prepare(config, limit=limit)
    config = prepared.config
    sizes = {name: len(dataset.examples) for name, dataset in prepared.train.items()}
    sampler = _sampler(config, sizes)
    torch.manual_seed(config.train.seed)
    model, tokenizer = build_model(config)
    model.to(chosen_device)
    order_rng = np.random.default_rng(config.train.seed)
    update = UPDATES[config.train.update](model, config.train, order_rng, dtype)
    train_data = encode(prepared.train, model, tokenizer)
    dev_data = encode(prepared.dev, model, tokenizer)

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config.to_dict())
    record = _record(model, prepared.train, prepared.dev, train_data, why)
    write_json(out / "record.json", record)
    say = Reporter(progress)

    def estimate() -> float:
        return estimate_seconds(model, sampler, train_data, device=chosen_device, dtype=dtype)

    say.opening(record, sampler.rounds_per_epoch, config.train, estimate)
    log, timing = _JsonLines(out / "metrics.jsonl"), _JsonLines(out / "timing.jsonl")
    state, best = TrainState(), -math.inf
    while state.epoch < config.train.epochs:
        rounds = train_rounds(model, update, sampler, train_data, config.train, state, device=chosen_device)
        for done in say.bar(rounds, sampler.rounds_per_epoch, state.epoch, config.train.epochs):
            _log_round(log, timing, done)
        began = time.perf_counter()
        scores = evaluate_tasks(model, dev_data, device=chosen_device, dtype=dtype, intervals=False)
        for name, score in scores.items():
            value = None if math.isnan(score.value) else score.value
            log.write(epoch=state.epoch, split="dev", task=name, metric=score.metric, value=value)
        timing.write(epoch=state.epoch, split="dev", seconds=time.perf_counter() - began)
        chosen = mean_score(list(scores.values()) if select == "mean" else [scores[select]])
        say.scores(state.epoch, scores, mean_score(list(scores.values())), chosen > best)
        if chosen > best:
            best = chosen
            model.save_pretrained(out / "best", tokenizer)
    log.close()
    timing.close()
    if keep_optimizer:
        save_checkpoint(out / "checkpoints" / "last", model, update, state)
    return Run.load(out, device=device, precision=config.train.precision)


def _check_arguments(config: RunConfig, out: Path, select: str, limit: int | None) -> None:
    names = [task.name for task in config.tasks]
    if select != "mean" and select not in names:
        raise ConfigError(f"select is {select!r}; known: mean, {', '.join(names)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; at least 1 row of each task is needed")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is there already and not empty; name a new folder for the run, or remove it")


def _sampler(config: RunConfig, sizes: Mapping[str, int]) -> RoundSampler:
    samples = {task.name: task.sample_size for task in config.tasks if task.sample_size is not None}
    return RoundSampler(
        dict(sizes),
        {task.name: task.batch_size for task in config.tasks},
        sample_sizes=samples or None,
        rounds=config.train.rounds,
        seed=config.train.seed,
        task_order=config.train.task_order,
    )


def _record(
    model: MultitaskModel,
    train: Mapping[str, Dataset],
    dev: Mapping[str, Dataset],
    encoded: Mapping[str, TaskData],
    precision: str,
) -> dict[str, Any]:
    """What a reader of the run has to know beside its configuration: versions, rows, what was left out."""
    reports = {name: str(encoder.load_report) for name, encoder in model.encoders.items()}
    tasks = {
        name: {
            "train_rows": len(train[name].examples),
            "dev_rows": len(dev[name].examples),
            "truncated_rows": encoded[name].texts.truncated,
            "skipped": [str(row) for row in (*train[name].skipped, *dev[name].skipped)],
        }
        for name in model.tasks
    }
    versions = {
        "minbert": minbert.__version__,
        "torch": torch.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
    }
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "weights": reports,
        "tasks": tasks,
    }


def _log_round(log: "_JsonLines", timing: "_JsonLines", done: RoundRecord) -> None:
    for name, step in done.tasks.items():
        log.write(
            round=done.number, epoch=done.epoch, task=name, rows=step.rows, loss=step.loss, lr=step.lr,
            grad_norm=step.grad_norm,
        )  # fmt: skip
    timing.write(round=done.number, seconds=done.seconds)


class _JsonLines:
    """A log of one JSON object a line, flushed as it goes so that a killed run keeps what it did."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, **values: Any) -> None:
        self._file.write(json.dumps(values, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
