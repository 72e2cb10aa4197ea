"""One call of train: everything that the loop needs, and what is done between its rounds."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from minbert.files.storage import write_json
from multitask.data.batches import TaskData
from multitask.data.examples import Dataset
from multitask.data.load import Prepared, to_task_data
from multitask.distributed import broadcast_from_main, is_main, rank, size, totals_over_ranks, wait_for_all
from multitask.errors import ConfigError, RunError
from multitask.evaluation import evaluate_tasks, mean_score
from multitask.metrics import Score
from multitask.model.build import build_model
from multitask.precision import choose_device, choose_precision
from multitask.settings.checks import shown
from multitask.training.checkpoints import (
    latest_checkpoint,
    read_state,
    remove_checkpoints,
    restore_checkpoint,
    save_checkpoint,
)
from multitask.training.decisions import pooling_notes, selection_for, training_notes
from multitask.training.identity import plugins_of, refuse_changes, refuse_different_starts, tokenizer_digest
from multitask.training.loop import RoundRecord, TrainState, build_sampler, estimate_seconds, train_rounds
from multitask.training.origin import Origin, Start, keep_thresholds
from multitask.training.progress import Reporter
from multitask.training.record import changes, environment_of, opening_record, skipped_steps
from multitask.training.run_folder import JsonLines, NoLines, Signals, replace_best
from multitask.training.start import start_decoders
from multitask.training.teachers import Teaching
from multitask.updates.stepper import Stepper

__all__ = ["OnEpoch", "OnRound", "Session"]

OnRound = Callable[[RoundRecord], Literal["stop"] | None]
OnEpoch = Callable[[Mapping[str, Score]], Literal["stop"] | None]


class Session:
    """One call of train: everything that the loop needs, built once, at the round where it starts.

    ``state`` says which round comes next, ``scored`` how many epochs have dev scores, ``best`` the highest of them,
    ``since_best`` how many epochs came after that one, ``spent`` the seconds of earlier calls, and ``ended`` what ended
    the training before its last epoch, if anything did.

    :param origin: the run to begin from.
    :param teaching: the runs to learn from.
    :param on_round: called with each round's record, by the main process.
    :param on_epoch: called with each epoch's dev scores, by the main process.
    """

    def __init__(
        self,
        prepared: Prepared,
        out: Path,
        identity: dict[str, Any],
        *,
        device: str,
        resume: bool,
        progress: bool,
        origin: Origin | None = None,
        teaching: Teaching | None = None,
        on_round: OnRound | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.on_round, self.on_epoch = on_round, on_epoch
        self.out, self.identity, self.report = out, identity, Reporter(progress and is_main())
        self.config = config = prepared.config
        self.device = choose_device(device)
        self.dtype, precision = choose_precision(config.train.precision, self.device)
        sizes = {name: len(rows) for name, rows in prepared.train.items()} if teaching is None else teaching.sizes
        self.sampler = build_sampler(config, sizes)
        torch.manual_seed(config.train.seed)
        held_with = {name: names for name, names in prepared.held_with.items() if len(prepared.dev[name])}
        start = Start(*build_model(config)) if origin is None else origin.build(config, identity["data"], held_with)
        self.model, self.tokenizer = start.model, start.tokenizer
        self.model.to(self.device)
        if size() > 1:  # all start from the same weights, and drop out differently
            torch.manual_seed(int(np.random.SeedSequence((config.train.seed, rank())).generate_state(1)[0]))
        order_rng = np.random.default_rng(config.train.seed)
        self.stepper = Stepper(self.model, config.train, order_rng, self.dtype)
        self.train_data = self._tokenized(prepared.train, ahead=False)
        self.dev_data = self._tokenized(prepared.dev, ahead=True)
        self.digest = tokenizer_digest(self.tokenizer, self.train_data)
        self.selection = selection_for(identity["select"], prepared)
        self.environment = environment_of(self.dtype)
        self.record = opening_record(
            prepared,
            self.model,
            self.train_data,
            self.dev_data,
            environment=self.environment,
            precision=precision,
            plugins=plugins_of(config, identity["select"]),
            origin=start.origin,
            notes=[*start.notes, *pooling_notes(config, self.model), *training_notes(config, sizes, self.sampler)],
        )
        self.state, self.scored, self.best, self.since_best = TrainState(), 0, -math.inf, 0
        self.spent, self.began = 0.0, time.monotonic()
        self.ended: dict[str, Any] | None = None
        log_lengths = self._restore() if resume else {}
        keep_thresholds(self.model, self.record["from"])
        if self.state == TrainState():
            rows, names, seed = (self.train_data, self.dev_data, prepared.train), start.new_decoders, config.train.seed
            self.record["cross_validated"] = start_decoders(self.model, *rows, names, device=self.device, seed=seed)
        refuse_different_starts(out, self.model, (self.state.epoch, self.state.round))
        if teaching is not None:
            teaching.enter(self.record)
            where, cached = (self.device, self.dtype), self.state != TrainState()
            self.train_data = teaching.taught(self.train_data, self.tokenizer, where, cached, self.report.say)
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
        if state.get("tokenizer", self.digest) != self.digest:  # older checkpoints don't say
            raise RunError(f"{self.out}: to be resumed, it must have the tokenizer of its training so far, got another")
        restore_checkpoint(folder, self.model, self.stepper, state)
        self.state = TrainState(state["epoch"], state["round"])
        self.scored, self.best = state["scored"], -math.inf if state["best"] is None else state["best"]
        self.since_best, self.spent, self.ended = state["since_best"], state["seconds"], state["ended"]
        changed = changes(state["environment"], self.environment)
        self.record |= {"from": state.get("from"), "cross_validated": state["cross_validated"]}
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
        with closing(self.metrics), closing(self.timing):
            self.report.opening(self.record, self.sampler.rounds_per_epoch, self.config.train, self._estimate)
            self.began = time.monotonic()
            while True:
                if self.state.epoch > self.scored:
                    self._score_epoch(signals)
                    self._save(keep)
                    self._stop_if_told(signals)
                if self._is_over():
                    break
                self._train_epoch(signals, save_every, keep)

    def finish(self, keep_optimizer: bool) -> None:
        """Mark the run as finished."""
        if is_main():
            ends = {"skipped_steps": skipped_steps(self.out / "metrics.jsonl"), "ended_early": self.ended}
            write_json(self.out / "record.json", {**self.record, **ends, "finished": self.identity})
            if not keep_optimizer:
                remove_checkpoints(self.out / "checkpoints")
        wait_for_all()  # best/ is read only when it is whole

    def _estimate(self) -> float:
        return estimate_seconds(self.model, self.sampler, self.train_data, device=self.device, dtype=self.dtype)

    def _train_epoch(self, signals: Signals, save_every: int, keep: int) -> None:
        """Train to the end of the epoch, saving every so many rounds and when a signal comes."""
        per_epoch, start, epoch = self.sampler.rounds_per_epoch, self.state.round, self.state.epoch + 1
        rounds = train_rounds(
            self.model, self.stepper, self.sampler, self.train_data, self.config.train, self.state, device=self.device
        )
        for done in self.report.bar(rounds, start, per_epoch, epoch, self.config.train.epochs):
            self._log_round(done)
            self._ask("on_round", self.on_round, done, signals)
            if signals.agree() or done.number % save_every == 0:
                self._save(keep)
            self._stop_if_told(signals)
            if self.state.round and self._end_if_time_is_up():  # the epoch ends here
                self.state.epoch, self.state.round = epoch, 0
                break

    def _is_over(self) -> bool:
        """Return whether there is nothing left to train."""
        over = self.state.epoch == self.config.train.epochs or self.ended is not None
        return over or (self.state.epoch > 0 and self.state.round == 0 and self._end_if_time_is_up())

    def _end_if_time_is_up(self) -> bool:
        """End the training if its minutes are over; all processes get the same answer."""
        minutes = self.config.train.minutes
        if minutes is None or not any(totals_over_ranks([is_main() and self._seconds() >= 60 * minutes])):
            return False
        self._end("minutes", f"the {minutes:g} minutes are over")
        return True

    def _end(self, why: str, reason: str) -> None:
        rounds = self.state.step(self.sampler.rounds_per_epoch)
        self.ended = {"why": why, "rounds": rounds}
        self.report.ended(rounds, reason)

    def _seconds(self) -> float:
        """Return the seconds of training and scoring so far, those of earlier calls included."""
        return self.spent + time.monotonic() - self.began

    def _ask(self, name: str, callback: Callable[[Any], str | None] | None, what: Any, signals: Signals) -> None:
        """Call the user's callback, in the main process alone, and note its "stop" if there is more to train."""
        if callback is None or not is_main():
            return
        answer = callback(what)
        if answer not in (None, "stop"):
            raise ConfigError(f"{name} must return None or 'stop', got {shown(answer)}")
        if answer == "stop" and self.state.epoch < self.config.train.epochs and self.ended is None:
            signals.stop(name)

    def _log_round(self, done: RoundRecord) -> None:
        for line in done.lines():
            self.metrics.write(**line)
        self.timing.write(round=done.number, seconds=done.seconds)

    def _stop_if_told(self, signals: Signals) -> None:
        """Leave, after a save, if a signal came."""
        if signals.agree():
            wait_for_all()  # torchrun kills the others when one has left
            signals.check()

    def _score_epoch(self, signals: Signals) -> None:
        """Score the dev rows, and keep the epoch in ``best/`` if none before it scored higher."""
        began, selection, tasks = time.perf_counter(), self.selection, self.config.tasks
        scores = evaluate_tasks(
            self.model, self.dev_data, device=self.device, dtype=self.dtype, selection=selection, tune=tasks
        )
        epoch = self.scored = self.state.epoch
        for name, score in scores.items():
            for metric, value in score.defined().items():
                self.metrics.write(epoch=epoch, split="dev", task=name, metric=metric, value=value)
        self.timing.write(epoch=epoch, split="dev", seconds=time.perf_counter() - began)
        chosen: float = broadcast_from_main(selection.value(scores))  # a metric of a user's own may draw
        select = "mean" if self.identity["select"] == "auto" else self.identity["select"]
        kept = chosen >= self.best and not selection.last
        self.report.scores(epoch, scores, mean_score(list(scores.values())), select=select, kept=kept)
        self.since_best = 0 if chosen > self.best else self.since_best + 1
        if chosen >= self.best:  # of equal epochs the later: it has learned more
            self.best = chosen
            if is_main():
                replace_best(self.out, lambda folder: self._write_best(folder, scores))
        patience, last = self.config.train.patience, epoch == self.config.train.epochs
        if patience is not None and self.since_best >= patience and not last and self.ended is None:
            self._end("patience", f"no better dev score in {patience} epoch{'s' if patience > 1 else ''}")
        self._ask("on_epoch", self.on_epoch, scores, signals)

    def _write_best(self, folder: Path, scores: Mapping[str, Score]) -> None:
        self.model.save_pretrained(folder, self.tokenizer)
        dev = {name: score.defined() for name, score in scores.items()}
        write_json(folder / "scores.json", {"epoch": self.scored, "dev": dev})

    def _save(self, keep: int) -> None:
        """Save a checkpoint; _restore reads its state."""
        state = {
            **asdict(self.state),
            "scored": self.scored,
            "best": None if math.isinf(self.best) else self.best,
            "since_best": self.since_best,
            "seconds": self._seconds(),
            "ended": self.ended,
            "log_lengths": {"metrics": self.metrics.length(), "timing": self.timing.length()},
            "identity": self.identity,
            "environment": self.environment,
            "tokenizer": self.digest,
            **{key: self.record[key] for key in ("from", "resumed_with_changes", "cross_validated")},
        }
        save_checkpoint(
            self.out / "checkpoints",
            self.model,
            self.stepper,
            state,
            number=self.state.step(self.sampler.rounds_per_epoch),
            scored=self.state.round == 0 and self.scored == self.state.epoch,
            keep=keep,
        )
