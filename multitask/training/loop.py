"""The training loop: a generator over an explicit state. Saving, evaluating and choosing live with its caller."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from multitask.data.batches import TaskData
from multitask.data.sampling import Indices, RoundSampler
from multitask.errors import NonFiniteError, RunError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.precision import autocast
from multitask.settings.choices import SCHEDULES
from multitask.settings.config import TrainConfig
from multitask.updates.base import StepRecord, Update

__all__ = ["RoundRecord", "TrainState", "estimate_seconds", "train_rounds"]


@dataclass
class TrainState:
    """Where a training is: the next round to train is ``round`` (from 0) of ``epoch`` (from 0)."""

    epoch: int = 0
    round: int = 0

    def step(self, rounds_per_epoch: int) -> int:
        """Rounds trained so far."""
        return self.epoch * rounds_per_epoch + self.round


@dataclass(frozen=True)
class RoundRecord:
    """A round that was trained, counted over the run from 1, and what each task did in it."""

    number: int
    epoch: int
    tasks: dict[str, StepRecord]
    seconds: float


def train_rounds(
    model: MultitaskModel,
    update: Update,
    sampler: RoundSampler,
    data: Mapping[str, TaskData],
    settings: TrainConfig,
    state: TrainState,
    *,
    device: torch.device,
) -> Iterator[RoundRecord]:
    """Train from ``state`` to the end of its epoch, one round a time (the report's Algorithm 1).

    ``state`` is moved on before a round is handed out, so what the caller saves then is whole. The learning rate
    follows the run's round, warm-up and decay being counted over all rounds of all epochs.
    """
    per_epoch = sampler.rounds_per_epoch
    total = per_epoch * settings.epochs
    schedule, warmup = SCHEDULES[settings.schedule], round(settings.warmup * total)
    model.train()
    epoch = state.epoch
    while state.epoch == epoch:
        began = time.perf_counter()
        number = state.step(per_epoch)
        chosen = sampler.round(epoch, state.round)
        batches = {name: data[name].batch(rows).to(device) for name, rows in chosen.items()}
        try:
            records = update.round(batches, schedule(number, total, warmup))
        except NonFiniteError as error:
            where = [f"{name}, {_lines(data[name], chosen[name], model.tasks[name].train)}" for name in error.tasks]
            raise RunError(f"round {number + 1}, task {' + '.join(where)}: {error.what}") from None
        state.round += 1
        if state.round == per_epoch:
            state.epoch, state.round = epoch + 1, 0
        yield RoundRecord(number + 1, epoch + 1, records, time.perf_counter() - began)


def _lines(rows: TaskData, chosen: Indices, file: str | None) -> str:
    lines = rows.lines[chosen].tolist()
    rest = f" and {len(lines) - 10} more" if len(lines) > 10 else ""
    return f"lines {', '.join(map(str, lines[:10]))}{rest} of {file}"


def estimate_seconds(
    model: MultitaskModel,
    sampler: RoundSampler,
    data: Mapping[str, TaskData],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Seconds a round is likely to take: the first round's passes, timed once, without a step.

    Nothing of it reaches the training: the generator's state is put back and the gradients are cleared.
    """
    model.train()
    seconds = 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for warm in (True, False):
            began = time.perf_counter()
            for name, rows in sampler.round(0, 0).items():
                # The first, untimed pass meets cold caches and first allocations; a few rows are enough of it.
                batch = data[name].batch(rows[:4] if warm else rows).to(device)
                with autocast(dtype, device):
                    outputs = model(name, batch.tokens)
                task_loss(model.tasks[name], outputs, batch.labels).backward()
                model.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - began
    return seconds
