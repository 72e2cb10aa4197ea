"""One call of pretrain: everything that its steps need, and what is done between them."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from minbert.files.storage import write_json
from minbert.heads import BertForMaskedLM
from minbert.tokenizer import BertTokenizer
from multitask.errors import DataError, RunError
from multitask.precision import choose_device, choose_precision
from multitask.pretraining.masks import Masker
from multitask.pretraining.report import Report
from multitask.pretraining.rows import Rows, build_rows, hold_out
from multitask.pretraining.settings import PretrainConfig
from multitask.pretraining.start import load_model, load_tokenizer, start_head
from multitask.pretraining.steps import MaskedScore, Trainer, score, with_fixed_masks
from multitask.pretraining.texts import Texts
from multitask.settings.checks import shown
from multitask.training.checkpoints import (
    generator_states,
    latest_checkpoint,
    optimizer_states,
    read_state,
    remove_checkpoints,
    restore_parts,
    write_checkpoint,
)
from multitask.training.identity import refuse_changes
from multitask.training.record import changes, environment_of
from multitask.training.run_folder import JsonLines, Signals

__all__ = ["LOG", "RECORD", "Session"]

RECORD, LOG = "pretraining.json", "pretraining.jsonl"


class Session:
    """One call of pretrain.

    ``epoch`` and ``step`` say what comes next, ``scores`` what was scored so far, ``spent`` the seconds of earlier
    calls, and ``ended`` whether the minutes are over.
    """

    def __init__(
        self,
        texts: Texts,
        out: Path,
        settings: PretrainConfig,
        identity: Mapping[str, Any],
        *,
        device: str,
        resume: bool,
        report: Report,
    ) -> None:
        self.out, self.settings, self.identity, self.report = out, settings, identity, report
        self.device = choose_device(device)
        self.dtype, precision = choose_precision(settings.precision, self.device)
        self.tokenizer = load_tokenizer(settings.weights)
        masker = Masker(self.tokenizer, whole_words=settings.whole_words)
        train, held = hold_out(texts.texts, settings.seed)
        torch.manual_seed(settings.seed)
        model, own_head = load_model(settings.weights, settings.dropout)
        length = min(settings.max_length, model.config.max_tokens)
        rows = _rows("texts to train on", train, self.tokenizer, masker, length)
        held_rows = _rows("texts held out", held, self.tokenizer, masker, length)
        if not own_head:
            start_head(model, rows.tokens.input_ids)
        self.trainer = Trainer(model.to(self.device), rows, masker, settings, self.dtype)
        self.held = with_fixed_masks(held_rows, masker, settings.seed)
        self.environment = environment_of(self.dtype)
        self.epoch, self.step, self.ended = 0, 0, False
        self.scores: list[MaskedScore] = []
        self.spent, self.began = 0.0, time.monotonic()
        self.record: dict[str, Any] = {
            **self.environment,
            "precision_chosen": precision,
            "weights_loaded": str(model.load_report),
            "head": "of the weights" if own_head else "new",
            "texts": len(train),
            "held_out_texts": len(held),
            "empty": texts.empty,
            "repeated": texts.repeated,
            "rows": len(rows),
            "held_out_rows": len(held_rows),
            "cut_texts": rows.cut + held_rows.cut,
            "rows_without_known_tokens": rows.without + held_rows.without,
            "max_length": length,
            "identity": identity,
            "resumed_with_changes": [],
        }
        length_of_log = self._restore() if resume else 0
        write_json(out / RECORD, {**self.record, "finished": False})
        self.log = JsonLines(out / LOG, length_of_log)

    @property
    def model(self) -> BertForMaskedLM:
        """What is trained."""
        return self.trainer.model

    def _restore(self) -> int:
        """Put everything back to where the last checkpoint was saved, if there is one; return the log's length then."""
        folder = latest_checkpoint(self.out / "checkpoints")
        if folder is None:
            return 0
        state = read_state(folder)
        refuse_changes(self.out, state["identity"], self.identity)
        if state["tokens"] != self._tokens:
            raise RunError(
                f"{self.settings.weights}: its tokenizer must be the one that {self.out} was trained with so far,"
                " got another"
            )
        restore_parts(folder, self.model, {"all": self.trainer.optimizer}, state)
        self.epoch, self.step, self.ended = state["epoch"], state["step"], state["ended"]
        self.scores = [MaskedScore(**each) for each in state["scores"]]
        self.spent = state["seconds"]
        changed = changes(state["environment"], self.environment)
        self.record["resumed_with_changes"] = [*state["resumed_with_changes"], *([changed] if changed else [])]
        return int(state["log_length"])

    @cached_property
    def _tokens(self) -> str:
        """Return the SHA-256 of the tokens that are trained on, which tells another tokenizer, too."""
        return sha256(self.trainer.rows.tokens.input_ids.tobytes()).hexdigest()

    def train(self, signals: Signals, save_every: int) -> None:
        """Train and score epoch after epoch, from where the session starts to the last."""
        with closing(self.log):
            self.report.opening(self.record, self.trainer.order.steps, self.settings)
            self.began = time.monotonic()
            if not self.scores:
                self._score()
            while True:
                if len(self.scores) == self.epoch:
                    self._score()
                    self._save(scored=True)
                _leave_if_told(signals)
                if self.epoch == self.settings.epochs or self._time_is_up():
                    break
                self._train_epoch(signals, save_every)

    def _train_epoch(self, signals: Signals, save_every: int) -> None:
        """Train to the end of the epoch, saving every so many steps and when a signal comes."""
        per_epoch = self.trainer.order.steps
        with self.report.bar(self.epoch, self.step, per_epoch, self.settings.epochs) as bar:
            while self.step < per_epoch and not self._time_is_up():
                done = self.trainer.step(self.epoch, self.step)
                self.step += 1
                self.log.write(**asdict(done), epoch=self.epoch + 1)
                bar(done)
                if self.step < per_epoch and (signals.agree() or self.step % save_every == 0):
                    self._save()
                    _leave_if_told(signals)
        self.epoch, self.step = self.epoch + 1, 0  # of an epoch that time cut short, no more is trained

    def _time_is_up(self) -> bool:
        """Return whether the minutes are over, and say so once."""
        minutes = self.settings.minutes
        if not self.ended and minutes is not None and self._seconds() >= 60 * minutes:
            self.ended = True
            trained = self.epoch * self.trainer.order.steps + self.step
            self.report.say(f"stopped after {trained:,} steps: the {minutes:g} minutes are over")
        return self.ended

    def _seconds(self) -> float:
        """Return the seconds of training and scoring so far, those of earlier calls included."""
        return self.spent + time.monotonic() - self.began

    def _score(self) -> None:
        found = score(self.model, self.held, self.dtype)
        if not math.isfinite(found.loss):  # before a checkpoint or the folder has such weights
            raise RunError(
                f"epoch {self.epoch}: the loss on held-out text is {found.loss}; lower the learning rate"
                f" ({self.settings.lr:g})"
            )
        self.scores.append(found)
        self.log.write(epoch=self.epoch, held_out=asdict(found))
        self.report.score(self.epoch, found)

    def _save(self, scored: bool = False) -> None:
        """Save a checkpoint; _restore reads its state."""
        tensors, values = optimizer_states({"all": self.trainer.optimizer})
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "ended": self.ended,
            "scores": [asdict(each) for each in self.scores],
            "seconds": self._seconds(),
            "log_length": self.log.length(),
            "identity": self.identity,
            "tokens": self._tokens,
            "environment": self.environment,
            "resumed_with_changes": self.record["resumed_with_changes"],
            "optimizers": values,
        }
        parts = (self.model.state_dict(), tensors, generator_states())
        number = self.epoch * self.trainer.order.steps + self.step
        write_checkpoint(self.out / "checkpoints", parts, state, number=number, scored=scored)

    def finish(self) -> tuple[MaskedScore, ...]:
        """Write weights and tokenizer, then the record that says that they are whole; remove the checkpoints."""
        self.model.save_pretrained(self.out)
        self.tokenizer.save_pretrained(self.out)
        scores = [asdict(each) for each in self.scores]
        write_json(self.out / RECORD, {**self.record, "scores": scores, "ended_early": self.ended, "finished": True})
        remove_checkpoints(self.out / "checkpoints")
        return tuple(self.scores)


def _leave_if_told(signals: Signals) -> None:
    if signals.agree():
        signals.check()


def _rows(which: str, texts: Sequence[str], tokenizer: BertTokenizer, masker: Masker, length: int) -> Rows:
    """Return the rows of texts; DataError, with ``which`` they are, if no token of any is known."""
    rows = build_rows(texts, tokenizer, masker, length)
    if not len(rows):
        raise DataError(
            f"the {which} must have tokens that the vocabulary of the weights knows, got none in {len(texts):,},"
            f" such as {shown(texts[0])}"
        )
    return rows
