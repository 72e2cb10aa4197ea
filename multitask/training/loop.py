"""The training loop: a generator over an explicit state. Saving, scoring and choosing are its caller's."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch

from multitask.data.batches import TaskData
from multitask.data.sampling import CheckedSampler, Indices, Sampler, batch_size_of
from multitask.distributed import broadcast_buffers, size
from multitask.errors import NonFiniteError, RunError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.precision import autocast
from multitask.settings.checks import check_number, listed
from multitask.settings.choices import SAMPLERS, SCHEDULES
from multitask.settings.config import RunConfig, TrainConfig
from multitask.settings.task import Task
from multitask.updates.conflicts import Cosines
from multitask.updates.stepper import Stepper, StepRecord

__all__ = ["RoundRecord", "TrainState", "build_sampler", "estimate_seconds", "train_rounds"]


@dataclass
class TrainState:
    """Where a training is: the next round to train is ``round`` (from 0) of ``epoch`` (from 0)."""

    epoch: int = 0
    round: int = 0

    def step(self, rounds_per_epoch: int) -> int:
        """Count the rounds trained so far."""
        return self.epoch * rounds_per_epoch + self.round


@dataclass(frozen=True)
class RoundRecord:
    """A round that was trained, counted over the run from 1, and what each task did in it.

    :param tasks: by task the rows, loss, learning rate of the encoder and norm of the gradient of its step.
    :param seconds: that the round took.
    :param cosines: between the tasks' gradients of the encoder, with ``train.log_conflict``.
    """

    number: int
    epoch: int
    tasks: dict[str, StepRecord]
    seconds: float
    cosines: Cosines = field(default_factory=dict)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what metrics.jsonl says of each task's step."""
        for name, step in self.tasks.items():
            cosines = {"cosines": self.cosines[name]} if name in self.cosines else {}
            yield {"round": self.number, "epoch": self.epoch, "task": name, **vars(step), **cosines}


def build_sampler(config: RunConfig, sizes: Mapping[str, int]) -> Sampler:
    """Build the sampler of a run; with several processes a batch is the shares of all.

    :param sizes: training rows by task.
    :raises ConfigError: for rows that can't be drawn as the settings say, or a sampler of one's own that is none.
    """
    samples = {task.name: task.sample_size for task in config.tasks if task.sample_size is not None}
    batches = {task.name: batch_size_of(task, sizes[task.name], size()) for task in config.tasks}
    settings, own = config.train, SAMPLERS.origin(config.train.sampler) is not None
    floor = {} if own or settings.min_rounds is None else {"min_rounds": -(-settings.min_rounds // settings.epochs)}
    sampler = SAMPLERS[settings.sampler](
        dict(sizes),
        batches,
        sample_sizes=samples or None,
        rounds=settings.rounds,
        seed=settings.seed,
        task_order=settings.task_order,
        **floor,
    )
    return CheckedSampler(sampler, sizes) if own else sampler


def train_rounds(
    model: MultitaskModel,
    stepper: Stepper,
    sampler: Sampler,
    data: Mapping[str, TaskData],
    settings: TrainConfig,
    state: TrainState,
    *,
    device: torch.device,
) -> Iterator[RoundRecord]:
    """Train from ``state`` to the end of its epoch, one round at a time (the report's Algorithm 1).

    The learning rate follows the run's round: warm-up and decay are counted over all rounds of all epochs.

    :param data: each task's training rows.
    :param state: where to start; moved on before a round is yielded, so what the caller saves then is whole.
    :return: each round's record, as soon as it is trained.
    :raises RunError: for a loss or norm that is not finite, naming the round, the task and the rows.
    :raises ConfigError: for a part of one's own that gives something else than it has to.
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
            factor = _factor(settings.schedule, schedule(number, total, warmup), number)
            records = stepper.round(batches, factor, epoch)
        except NonFiniteError as error:
            where = [f"{name}, {_lines(data[name], chosen[name], model.tasks[name])}" for name in error.tasks]
            raise RunError(f"round {number + 1}, task {' + '.join(where)}: {error.what}") from None
        broadcast_buffers(model)
        state.round += 1
        if state.round == per_epoch:
            state.epoch, state.round = epoch + 1, 0
        # A generator shares its caller's context: no choice of kernels, autocast or lent gradient may be open here.
        yield RoundRecord(number + 1, epoch + 1, records, time.perf_counter() - began, stepper.cosines)


def _factor(schedule: str, value: Any, step: int) -> float:
    """Check what a schedule gives, which may be one of a user's own."""
    number = float(value) if isinstance(value, Real) else value
    return check_number(f"what train.schedule {schedule!r} gives for step {step}", number)


def _lines(rows: TaskData, chosen: Indices, task: Task) -> str:
    """Name the lines of the file, or the rows in memory, that the chosen rows are, at most five."""
    lines = [line for line in rows.lines[chosen].tolist() if line]
    numbers = listed(lines)
    return (
        f"rows {numbers} of data[{task.name!r}]['train']" if task.train is None else f"lines {numbers} of {task.train}"
    )


def estimate_seconds(
    model: MultitaskModel,
    sampler: Sampler,
    data: Mapping[str, TaskData],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Estimate the seconds of a round: the first round's passes, timed once, without a step.

    Nothing of it reaches the training: the generator's state and buffers are put back, and the gradients cleared.
    """
    model.train()
    seconds = 0.0
    # Such as running means of a pooling of one's own, which may write to a buffer or put another in its place.
    places = [(part, name) for part in model.modules() for name in part._buffers]
    buffers = [part._buffers[name] for part, name in places]
    copies = [None if buffer is None else buffer.clone() for buffer in buffers]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for warm in (True, False):
            began = time.perf_counter()
            for name, rows in sampler.round(0, 0).items():
                # The first, untimed pass meets cold caches and first allocations; a few rows are enough of it.
                batch = data[name].batch(rows[:4] if warm else rows).to(device)
                with autocast(dtype, device):
                    outputs = model(name, batch.tokens, batch.windows)
                task_loss(model.tasks[name], outputs, batch.labels, soft=batch.soft).backward()
                model.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - began
    for (part, name), buffer, copy in zip(places, buffers, copies, strict=True):
        part._buffers[name] = buffer if buffer is None or copy is None else buffer.copy_(copy)
    return seconds
