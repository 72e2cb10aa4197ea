"""Training a run into a folder: what stands around the loop, from the rows that are read to the epoch that is kept."""

import json
import math
import platform
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

import minbert
from minbert.files.storage import write_json
from multitask.data.batches import TaskData
from multitask.data.examples import OnBad
from multitask.data.load import Prepared, prepare, to_task_data
from multitask.data.sampling import RoundSampler
from multitask.data.splits import shared_rows
from multitask.distributed import gathered, is_main, rank, said_by_main, size, wait_for_all
from multitask.errors import ConfigError, RunError
from multitask.evaluation import evaluate_tasks, mean_score
from multitask.model.build import build_model
from multitask.model.model import MultitaskModel
from multitask.precision import choose_device, choose_precision
from multitask.run import Run
from multitask.settings.config import RunConfig
from multitask.training.checkpoints import (
    latest_checkpoint,
    read_state,
    remove_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from multitask.training.identity import (
    finished_identity,
    identity_of,
    refuse_changes,
    refuse_differences,
    refuse_to_overwrite,
)
from multitask.training.loop import TrainState, estimate_seconds, train_rounds
from multitask.training.progress import Reporter
from multitask.training.run_folder import JsonLines, NoLines, Signals, locked
from multitask.updates.known import UPDATES

__all__ = ["train"]


def train(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    select: str = "mean",
    limit: int | None = None,
    bad_rows: OnBad = "missing",
    resume: bool = False,
    save_every: int = 100,
    keep: int = 1,
    keep_optimizer: bool = False,
    progress: bool = True,
) -> Run:
    """Train all tasks of ``config`` into the folder ``out`` and give back the best epoch's run.

    Within ``distributed.process_group()`` all processes train together, each on its share of every batch, which is
    ``batch_size`` rows a process; all have to see the folder, the main one writes it.

    :param out: ``runs/`` and the preset's name, unless told.
    :param select: ``"mean"`` of the dev scores, or the task whose dev score says which epoch is kept in ``best/``.
    :param limit: take at most so many training and dev rows of each task, drawn by the seed.
    :param bad_rows: ``"missing"`` leaves out rows without text or label and refuses any other that can't be used,
        ``"error"`` refuses both, ``"skip"`` leaves both out; record.json names each row that was left out.
    :param resume: go on from the folder's last checkpoint, to the same bytes as a run that was never stopped on the
        same machine, torch and thread count; starts anew where there is no checkpoint, gives back a finished run.
    :param save_every: rounds between checkpoints; there is one after each epoch, too.
    :param keep: newest checkpoints to keep while training.
    :param keep_optimizer: leave the last checkpoint, with the optimizers' moments, in ``checkpoints/`` at the end.
    :param progress: show estimate, bars and scores on standard error.
    :raises RunError: for a folder that is in use, a changed configuration or data file, a loss that is not finite.
    :raises StoppedError: after SIGTERM or SIGINT, when the state has been saved.
    """
    out = Path("runs") / config.preset if out is None else Path(out)
    if is_main():
        _check_arguments(config, out, select, resume, {"limit": limit, "save_every": save_every, "keep": keep})
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{out}: the run folder can't be made ({error.strerror})") from None
    with locked(out) if is_main() else nullcontext():
        prepared = prepare(config, limit=limit, bad_rows=bad_rows)
        identity = identity_of(prepared.config, select, limit)
        refuse_differences(said_by_main(identity), identity)
        # From the main process alone: what the others see there may already be what it has changed.
        finished = said_by_main(finished_identity(out) if resume and is_main() else None)
        if finished is not None:
            refuse_changes(out, finished, identity)
            return Run.load(out, device=device)
        if resume and is_main():
            refuse_to_overwrite(out, prepared.config)
        session = _Session(prepared, out, identity, device=device, resume=resume)
        session.report = Reporter(progress and is_main())
        with Signals().noted() as signals:
            session.train(signals, save_every=save_every, keep=keep)
        if is_main():
            skipped = _skipped_steps(out / "metrics.jsonl")
            write_json(out / "record.json", {**session.record, "skipped_steps": skipped, "finished": identity})
            if not keep_optimizer:
                remove_checkpoints(out / "checkpoints")
        wait_for_all()  # best/ is read only when it is whole
    return Run.load(out, device=device)


class _Session:
    """One call of train: everything that the loop needs, built once, at the position where it starts."""

    def __init__(self, prepared: Prepared, out: Path, identity: dict[str, Any], *, device: str, resume: bool) -> None:
        self.out, self.identity, self.report = out, identity, Reporter(False)
        self.config = config = prepared.config
        self.device = choose_device(device)
        self.dtype, precision = choose_precision(config.train.precision, self.device)
        self.sampler = _sampler(config, {name: len(dataset.examples) for name, dataset in prepared.train.items()})
        torch.manual_seed(config.train.seed)
        self.model, self.tokenizer = build_model(config)
        self.model.to(self.device)
        if size() > 1:  # all start from the same weights, and drop out differently
            torch.manual_seed(int(np.random.SeedSequence((config.train.seed, rank())).generate_state(1)[0]))
        order_rng = np.random.default_rng(config.train.seed)
        self.update = UPDATES[config.train.update](self.model, config.train, order_rng, self.dtype)
        self.train_data = to_task_data(prepared.train, self.model, self.tokenizer, ahead=False)
        self.dev_data = to_task_data(prepared.dev, self.model, self.tokenizer)
        self.record = _record(self.model, prepared, self.train_data, self.dev_data, precision)
        self.state, self.evaluated, self.best = TrainState(), 0, -math.inf
        lengths = self._restore() if resume else {}
        # Sums of the weights, to see that all processes have the same; and where each of them begins.
        sums = [parameter.detach().double().sum().item() for parameter in self.model.parameters()] if size() > 1 else []
        places = gathered(torch.tensor([self.state.epoch, self.state.round, *sums], dtype=torch.float64))
        if any(not place.equal(places[0]) for place in places):
            raise RunError(f"{out}: processes begin with different weights or checkpoints; all have to see one folder")
        self.log: JsonLines | NoLines = NoLines()
        self.timing: JsonLines | NoLines = NoLines()
        if is_main():
            write_json(out / "config.json", config.to_dict())
            write_json(out / "record.json", self.record)
            self.log = JsonLines(out / "metrics.jsonl", lengths.get("metrics", 0))
            self.timing = JsonLines(out / "timing.jsonl", lengths.get("timing", 0))
        wait_for_all()
        if not (out / "config.json").exists():
            raise RunError(f"{out}: is not the folder that the main process writes; put it where all processes see it")

    def train(self, signals: Signals, *, save_every: int, keep: int) -> None:
        """From the session's position to the last epoch's dev scores."""
        epochs = self.config.train.epochs
        with closing(self.log), closing(self.timing):
            self.report.opening(self.record, self.sampler.rounds_per_epoch, self.config.train, self._estimate)
            while True:
                if self.state.epoch > self.evaluated:
                    self._evaluate()
                    self._save(keep)
                    self._stop_if_told(signals)
                if self.state.epoch == epochs:
                    break
                self._train_epoch(signals, save_every, keep)

    def _train_epoch(self, signals: Signals, save_every: int, keep: int) -> None:
        per_epoch, start = self.sampler.rounds_per_epoch, self.state.round
        rounds = train_rounds(
            self.model, self.update, self.sampler, self.train_data, self.config.train, self.state, device=self.device
        )
        epoch = self.state.epoch + 1
        for done in self.report.bar(rounds, start, per_epoch, epoch, self.config.train.epochs):
            for name, step in done.tasks.items():
                self.log.write(
                    round=done.number,
                    epoch=done.epoch,
                    task=name,
                    rows=step.rows,
                    loss=step.loss,
                    lr=step.lr,
                    grad_norm=step.grad_norm,
                )
            self.timing.write(round=done.number, seconds=done.seconds)
            if signals.agree() or done.number % save_every == 0:
                self._save(keep)
            self._stop_if_told(signals)

    def _stop_if_told(self, signals: Signals) -> None:
        """Leave, after a save, if a signal came."""
        if signals.agree():
            wait_for_all()  # torchrun kills the others when one has left
            signals.check()

    def _evaluate(self) -> None:
        """Score the dev rows, and keep the epoch in ``best/`` if none before it scored as high."""
        began = time.perf_counter()
        scores = evaluate_tasks(self.model, self.dev_data, device=self.device, dtype=self.dtype, intervals=False)
        epoch = self.evaluated = self.state.epoch
        for name, score in scores.items():
            value = None if math.isnan(score.value) else score.value
            self.log.write(epoch=epoch, split="dev", task=name, metric=score.metric, value=value)
        self.timing.write(epoch=epoch, split="dev", seconds=time.perf_counter() - began)
        select = self.identity["select"]
        chosen = mean_score(list(scores.values()) if select == "mean" else [scores[select]])
        self.report.scores(epoch, scores, mean_score(list(scores.values())), chosen > self.best)
        if chosen > self.best:
            self.best = chosen
            if is_main():
                self._replace_best()

    def _replace_best(self) -> None:
        """Write the epoch beside ``best/`` and swap the two, so that no mixture of epochs is ever there."""
        best, new, old = (self.out / name for name in ("best", ".best.new", ".best.old"))
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        self.model.save_pretrained(new, self.tokenizer)
        if best.exists():
            best.rename(old)
        new.rename(best)
        shutil.rmtree(old, ignore_errors=True)

    def _save(self, keep: int) -> None:
        state = {
            "epoch": self.state.epoch,
            "round": self.state.round,
            "evaluated": self.evaluated,
            "best": None if math.isinf(self.best) else self.best,
            "lengths": {"metrics": self.log.length(), "timing": self.timing.length()},
            "identity": self.identity,
            "versions": self.record["versions"],
            "threads": self.record["threads"],
        }
        save_checkpoint(
            self.out / "checkpoints",
            self.model,
            self.update,
            state,
            number=self.state.step(self.sampler.rounds_per_epoch),
            scored=self.state.round == 0 and self.evaluated == self.state.epoch,
            keep=keep,
        )

    def _restore(self) -> dict[str, int]:
        """Take up the last checkpoint, if there is one, and give back the logs' lengths."""
        folder = latest_checkpoint(self.out / "checkpoints")
        if folder is None:
            return {}
        state = read_state(folder)
        refuse_changes(self.out, state["identity"], self.identity)
        restore_checkpoint(folder, self.model, self.update, state)
        self.state = TrainState(state["epoch"], state["round"])
        self.evaluated, self.best = state["evaluated"], -math.inf if state["best"] is None else state["best"]
        for key in ("versions", "threads"):
            if state[key] != self.record[key]:
                self.record.setdefault("resumed_with_changes", []).append({key: [state[key], self.record[key]]})
        lengths: dict[str, int] = state["lengths"]
        return lengths

    def _estimate(self) -> float:
        return estimate_seconds(self.model, self.sampler, self.train_data, device=self.device, dtype=self.dtype)


def _skipped_steps(log: Path) -> dict[str, int]:
    """By task, the steps that were left out; from the log, which a resumed run goes on with."""
    lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return dict(Counter(line["task"] for line in lines if "round" in line and line["loss"] is None))


def _check_arguments(config: RunConfig, out: Path, select: str, resume: bool, counts: Mapping[str, int | None]) -> None:
    names = [task.name for task in config.tasks]
    if select != "mean" and select not in names:
        raise ConfigError(f"select is {select!r}; known: mean, {', '.join(names)}")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; at least 1 is due")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; name a new folder for the run")
    if not resume and out.exists() and any(entry.name != ".lock" for entry in out.iterdir()):
        raise RunError(f"{out}: is not empty; name a new folder for the run, or go on with it by --resume")


def _sampler(config: RunConfig, sizes: Mapping[str, int]) -> RoundSampler:
    samples = {task.name: task.sample_size for task in config.tasks if task.sample_size is not None}
    return RoundSampler(
        dict(sizes),
        {task.name: task.batch_size * size() for task in config.tasks},
        sample_sizes=samples or None,
        rounds=config.train.rounds,
        seed=config.train.seed,
        task_order=config.train.task_order,
    )


def _record(
    model: MultitaskModel,
    prepared: Prepared,
    train_data: Mapping[str, TaskData],
    dev_data: Mapping[str, TaskData],
    precision: str,
) -> dict[str, Any]:
    """What a reader of the run has to know beside its configuration: versions, rows, what was left out."""
    train, dev = prepared.train, prepared.dev
    reports = {name: str(encoder.load_report) for name, encoder in model.encoders.items()}
    tasks = {
        name: {
            "classes": list(model.tasks[name].classes),
            "train_rows": len(train[name].examples),
            "dev_rows": len(dev[name].examples),
            "truncated_train_rows": int(train_data[name].texts.truncated.sum()),
            "truncated_dev_rows": int(dev_data[name].texts.truncated.sum()),
            "skipped": [str(row) for row in (*train[name].skipped, *dev[name].skipped)],
            "dev_rows_also_in_train": len(shared_rows(train[name].examples, dev[name].examples)),
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
        "ranks": size(),
        "precision": precision,
        "weights": reports,
        "tasks": tasks,
    }
