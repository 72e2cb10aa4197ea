"""Training a run into a folder: what stands around the loop, from the rows that are read to the epoch that is kept."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minbert.files.storage import write_json
from multitask.data.batches import TaskData
from multitask.data.examples import Dataset, OnBad
from multitask.data.load import Prepared, prepare, to_task_data
from multitask.data.memory import rows_by_task
from multitask.distributed import broadcast_from_main, is_main, rank, size, wait_for_all
from multitask.errors import RunError
from multitask.evaluation import evaluate_tasks, mean_score
from multitask.model.build import build_model
from multitask.precision import choose_device, choose_precision
from multitask.run import Run
from multitask.settings.config import EncoderConfig, RunConfig, TrainConfig
from multitask.settings.task import Task
from multitask.training.arguments import config_of, make_folder
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
    refuse_different_starts,
    refuse_to_overwrite,
)
from multitask.training.loop import RoundRecord, TrainState, build_sampler, estimate_seconds, train_rounds
from multitask.training.progress import Reporter
from multitask.training.record import changes, environment_of, skipped_steps, task_records, weights_records
from multitask.training.run_folder import JsonLines, NoLines, Signals, locked
from multitask.updates.known import UPDATES

__all__ = ["train"]


def train(
    config: RunConfig | None = None,
    out: str | Path | None = None,
    *,
    tasks: Sequence[Task] | None = None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    weights: str | Path | EncoderConfig | None = None,
    settings: TrainConfig | None = None,
    epochs: int | None = None,
    seed: int | None = None,
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
    """Train all tasks of ``config``, or ``tasks`` on ``weights``, into the folder ``out``.

    Within ``distributed.process_group()`` all processes train together, each on its share of every batch, which is
    ``batch_size`` rows a process; all have to see the folder, the main one writes it.

    :param out: ``runs/`` and the preset's name, unless told; without a preset ``runs/own``.
    :param data: rows in memory by task and split, ``{"topic": {"train": rows, "dev": rows}}``, for splits without a
        file: lists of dicts, pandas DataFrames, datasets.Dataset or any iterable of mappings.
    :param weights: name, hub id or folder of the encoder's weights, or an EncoderConfig.
    :param settings: with ``tasks``, all else; ``epochs`` and ``seed`` are shorthands of its.
    :param select: ``"mean"`` of the dev scores, or the task whose dev score says which epoch is kept in ``best/``.
    :param limit: take at most so many training and dev rows of each task, drawn by the seed.
    :param bad_rows: ``"missing"`` leaves out rows without text or label and refuses any other that can't be used,
        ``"error"`` refuses both, ``"skip"`` leaves both out; record.json names each row that was left out.
    :param resume: continue from the folder's last checkpoint, to the same bytes as a run that was never stopped, if
        machine, versions, threads, precision and kernels are the same; what is not is said and recorded. Starts anew
        without a checkpoint, and returns a finished run as it is.
    :param save_every: rounds between checkpoints; there is one after each epoch, too.
    :param keep: newest checkpoints to keep while training.
    :param keep_optimizer: leave the last checkpoint, with the optimizers' moments, in ``checkpoints/`` at the end.
    :param progress: show estimate, bars and scores on standard error.
    :return: the run of the best epoch.
    :raises RunError: for a folder that is in use, changed settings, files or rows, a loss that is not finite.
    :raises StoppedError: after SIGTERM or SIGINT, when the state has been saved.
    """
    config = config_of(config, tasks, weights, settings, epochs=epochs, seed=seed)
    given = rows_by_task(data, config.tasks) if data is not None else {}
    out = Path("runs") / config.preset if out is None else Path(out)
    if is_main():
        make_folder(config, out, select, resume, {"limit": limit, "save_every": save_every, "keep": keep})
    with locked(out) if is_main() else nullcontext():
        prepared = prepare(config, limit=limit, bad_rows=bad_rows, given=given)
        identity = identity_of(prepared.config, select, limit, given)
        refuse_differences(broadcast_from_main(identity), identity)
        # From the main process alone: what the others see there may already be what it has changed.
        finished = broadcast_from_main(finished_identity(out) if resume and is_main() else None)
        if finished is not None:
            refuse_changes(out, finished, identity)
            return Run.load(out, device=device, given=given)
        if resume and is_main():
            refuse_to_overwrite(out, prepared.config)
        session = _Session(prepared, out, identity, device=device, resume=resume, progress=progress)
        with Signals().noted() as signals:
            session.train(signals, save_every=save_every, keep=keep)
        session.finish(keep_optimizer)
    return Run.load(out, device=device, given=given)


class _Session:
    """One call of train: everything that the loop needs, built once, at the round where it starts.

    ``state`` says which round comes next, ``scored`` how many epochs have dev scores, ``best`` the highest of them.
    """

    def __init__(
        self, prepared: Prepared, out: Path, identity: dict[str, Any], *, device: str, resume: bool, progress: bool
    ) -> None:
        self.out, self.identity, self.report = out, identity, Reporter(progress and is_main())
        self.config = config = prepared.config
        self.device = choose_device(device)
        self.dtype, precision = choose_precision(config.train.precision, self.device)
        self.sampler = build_sampler(config, {name: len(dataset.examples) for name, dataset in prepared.train.items()})
        torch.manual_seed(config.train.seed)
        self.model, self.tokenizer = build_model(config)
        self.model.to(self.device)
        if size() > 1:  # all start from the same weights, and drop out differently
            torch.manual_seed(int(np.random.SeedSequence((config.train.seed, rank())).generate_state(1)[0]))
        order_rng = np.random.default_rng(config.train.seed)
        self.update = UPDATES[config.train.update](self.model, config.train, order_rng, self.dtype)
        self.train_data = self._tokenized(prepared.train, ahead=False)
        self.dev_data = self._tokenized(prepared.dev, ahead=True)
        self.environment = environment_of(self.dtype)
        self.record: dict[str, Any] = {
            **self.environment,
            "precision_chosen": precision,
            "ranks": size(),
            "weights": weights_records(self.model),
            "tasks": task_records(prepared, self.train_data, self.dev_data),
            "resumed_with_changes": [],
        }
        self.state, self.scored, self.best = TrainState(), 0, -math.inf
        log_lengths = self._restore() if resume else {}
        refuse_different_starts(out, self.model, (self.state.epoch, self.state.round))
        self._open_logs(log_lengths)

    def _tokenized(self, datasets: Mapping[str, Dataset], *, ahead: bool) -> dict[str, TaskData]:
        return to_task_data(datasets, self.model.tasks, self.tokenizer, self.model.max_length, ahead=ahead)

    def _restore(self) -> dict[str, int]:
        """Put everything back to where the last checkpoint was saved, if there is one.

        :return: the logs' lengths at that time, in bytes.
        """
        folder = latest_checkpoint(self.out / "checkpoints")
        if folder is None:
            return {}
        state = read_state(folder)
        refuse_changes(self.out, state["identity"], self.identity)
        restore_checkpoint(folder, self.model, self.update, state)
        self.state = TrainState(state["epoch"], state["round"])
        self.scored, self.best = state["scored"], -math.inf if state["best"] is None else state["best"]
        changed = changes(state["environment"], self.environment)
        self.record["resumed_with_changes"] = [*state["resumed_with_changes"], *([changed] if changed else [])]
        lengths: dict[str, int] = state["log_lengths"]
        return lengths

    def _open_logs(self, lengths: Mapping[str, int]) -> None:
        """Write what is known before the first round, and open the logs at their lengths."""
        self.metrics: JsonLines | NoLines = NoLines()
        self.timing: JsonLines | NoLines = NoLines()
        if is_main():
            write_json(self.out / "config.json", self.config.to_dict())
            write_json(self.out / "record.json", self.record)
            self.metrics = JsonLines(self.out / "metrics.jsonl", lengths.get("metrics", 0))
            self.timing = JsonLines(self.out / "timing.jsonl", lengths.get("timing", 0))
        wait_for_all()
        if not (self.out / "config.json").exists():
            raise RunError(f"{self.out}: must be the folder that the main process writes; all have to see one folder")

    def train(self, signals: Signals, *, save_every: int, keep: int) -> None:
        """Train and score epoch after epoch, from where the session starts to the last."""
        epochs = self.config.train.epochs
        with closing(self.metrics), closing(self.timing):
            self.report.opening(self.record, self.sampler.rounds_per_epoch, self.config.train, self._estimate)
            while True:
                if self.state.epoch > self.scored:
                    self._score_epoch()
                    self._save(keep)
                    self._stop_if_told(signals)
                if self.state.epoch == epochs:
                    break
                self._train_epoch(signals, save_every, keep)

    def finish(self, keep_optimizer: bool) -> None:
        """Mark the run as finished."""
        if is_main():
            skipped = skipped_steps(self.out / "metrics.jsonl")
            write_json(self.out / "record.json", {**self.record, "skipped_steps": skipped, "finished": self.identity})
            if not keep_optimizer:
                remove_checkpoints(self.out / "checkpoints")
        wait_for_all()  # best/ is read only when it is whole

    def _estimate(self) -> float:
        return estimate_seconds(self.model, self.sampler, self.train_data, device=self.device, dtype=self.dtype)

    def _train_epoch(self, signals: Signals, save_every: int, keep: int) -> None:
        """Train to the end of the epoch, saving every so many rounds and when a signal comes."""
        per_epoch, start, epoch = self.sampler.rounds_per_epoch, self.state.round, self.state.epoch + 1
        rounds = train_rounds(
            self.model, self.update, self.sampler, self.train_data, self.config.train, self.state, device=self.device
        )
        for done in self.report.bar(rounds, start, per_epoch, epoch, self.config.train.epochs):
            self._log_round(done)
            if signals.agree() or done.number % save_every == 0:
                self._save(keep)
            self._stop_if_told(signals)

    def _log_round(self, done: RoundRecord) -> None:
        for name, step in done.tasks.items():
            self.metrics.write(
                round=done.number,
                epoch=done.epoch,
                task=name,
                rows=step.rows,
                loss=step.loss,
                lr=step.lr,
                grad_norm=step.grad_norm,
            )
        self.timing.write(round=done.number, seconds=done.seconds)

    def _stop_if_told(self, signals: Signals) -> None:
        """Leave, after a save, if a signal came."""
        if signals.agree():
            wait_for_all()  # torchrun kills the others when one has left
            signals.check()

    def _score_epoch(self) -> None:
        """Score the dev rows, and keep the epoch in ``best/`` if none before it scored as high."""
        began = time.perf_counter()
        scores = evaluate_tasks(self.model, self.dev_data, device=self.device, dtype=self.dtype, intervals=False)
        epoch = self.scored = self.state.epoch
        for name, score in scores.items():
            value = None if math.isnan(score.value) else score.value
            self.metrics.write(epoch=epoch, split="dev", task=name, metric=score.metric, value=value)
        self.timing.write(epoch=epoch, split="dev", seconds=time.perf_counter() - began)
        mean, select = mean_score(list(scores.values())), self.identity["select"]
        chosen = mean if select == "mean" else mean_score([scores[select]])
        self.report.scores(epoch, scores, mean, chosen > self.best)
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
        """Save a checkpoint; _restore reads its state."""
        state = {
            "epoch": self.state.epoch,
            "round": self.state.round,
            "scored": self.scored,
            "best": None if math.isinf(self.best) else self.best,
            "log_lengths": {"metrics": self.metrics.length(), "timing": self.timing.length()},
            "identity": self.identity,
            "environment": self.environment,
            "resumed_with_changes": self.record["resumed_with_changes"],
        }
        save_checkpoint(
            self.out / "checkpoints",
            self.model,
            self.update,
            state,
            number=self.state.step(self.sampler.rounds_per_epoch),
            scored=self.state.round == 0 and self.scored == self.state.epoch,
            keep=keep,
        )
