"""Which rows of which task come next.

Every order follows from (seed, epoch, task) alone: a sampler has no position of its own (training.loop has
it), and an epoch can be entered at any round without drawing those before it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from multitask.errors import ConfigError
from multitask.settings.checks import check_choice, check_integer, check_known, shown
from multitask.settings.task import Task

__all__ = ["DEFAULT_BATCH", "CheckedSampler", "Indices", "RoundSampler", "Sampler", "batch_size_of"]

Indices = npt.NDArray[np.int64]
# Keeps the stream of task orders apart from the streams of rows, whose third word is the task's index.
ORDER = 2**32 - 1
DEFAULT_BATCH = 32  # rows a process, where there are enough


def batch_size_of(task: Task, rows: int, processes: int = 1) -> int:
    """Return the rows of a task's batch over all processes, never more than there are, or are drawn each epoch.

    Unless it is set it is 32 a process; of fewer than 128 rows a quarter, but four at least.
    """
    wanted = (
        min(DEFAULT_BATCH * processes, max(4, rows // 4)) if task.batch_size is None else task.batch_size * processes
    )
    return min(wanted, max(rows, 1), task.sample_size or wanted)


class Sampler(Protocol):
    """What ``[train] sampler`` chooses from is built as RoundSampler is, and has no more than this."""

    rounds_per_epoch: int

    def round(self, epoch: int, index: int) -> dict[str, Indices]:
        """Return the row indices of each task of a round, which may leave out tasks, in the order of the tasks."""
        ...


class CheckedSampler:
    """A sampler of a user's own, with what it gives checked round by round.

    :param sizes: rows of each task.
    :raises ConfigError: for one whose rounds follow from more than their number, or can't be trained on.
    """

    def __init__(self, sampler: Any, sizes: Mapping[str, int]) -> None:
        self._sampler, self._sizes, self._name = sampler, dict(sizes), type(sampler).__qualname__
        count = getattr(sampler, "rounds_per_epoch", None)
        self.rounds_per_epoch = check_integer(f"rounds_per_epoch of the sampler {self._name}", count, low=1)
        if not callable(getattr(sampler, "round", None)):
            raise ConfigError(f"the sampler {self._name} must have a method round, got none")
        first, again = self.round(0, 0), self.round(0, 0)
        if list(first) != list(again) or any(not np.array_equal(first[name], again[name]) for name in first):
            raise ConfigError(
                f"a round of the sampler {self._name} must follow from seed, epoch and index alone, got two different"
                " ones for epoch 0, index 0"
            )

    def round(self, epoch: int, index: int) -> dict[str, Indices]:
        """Return the sampler's round; see Sampler."""
        drawn = self._sampler.round(epoch, index)
        what = f"round {index} of epoch {epoch} of the sampler {self._name}"
        if not isinstance(drawn, Mapping) or not drawn:
            raise ConfigError(f"{what} must be a dict of at least one task's row indices, got {shown(drawn)}")
        check_known(f"a task in {what}", drawn, tuple(self._sizes))
        result = {}
        for name, given in drawn.items():
            rows = np.asarray(given)
            if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
                raise ConfigError(f"{name} in {what} must be at least one whole number in a row, got {shown(given)}")
            wrong = rows[(rows < 0) | (rows >= self._sizes[name])]
            if len(wrong):
                raise ConfigError(f"{name} in {what} must be from 0 to {self._sizes[name] - 1}, got {wrong[0]}")
            result[str(name)] = rows.astype(np.int64)
        return result


class RoundSampler:
    """Draw rounds of one batch per task (the report's Algorithm 1), without replacement, afresh each epoch.

    :param sizes: rows of each task, in the order of the tasks.
    :param batch_sizes: rows of each task in a round.
    :param sample_sizes: rows to draw each epoch, for tasks that set it; the last batch may then be smaller.
    :param rounds: per epoch; without this and sample_sizes, the smallest rows // batch_size over the tasks.
    :param min_rounds: per epoch, of what was not set: tasks with too few rows for them are passed over again, in
        another order and by whole batches.
    :param seed: any whole number from 0.
    :param task_order: "fixed", or "shuffled" anew each round.
    :raises ConfigError: where a task has too few rows, or tasks differ in their number of rounds.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_sizes: Mapping[str, int],
        *,
        sample_sizes: Mapping[str, int | None] | None = None,
        rounds: int | None = None,
        min_rounds: int = 1,
        seed: int,
        task_order: str = "fixed",
    ) -> None:
        self.sizes = dict(sizes)
        self.batch_sizes = {name: check_integer(f"batch size of {name}", batch_sizes[name], low=1) for name in sizes}
        self.seed = check_integer("seed", seed)
        self.task_order = check_choice("task_order", task_order, ("fixed", "shuffled"))
        samples = {name: size for name, size in (sample_sizes or {}).items() if size is not None}
        self.rounds_per_epoch = self._count_rounds(samples, rounds)
        if not samples and rounds is None:
            self.rounds_per_epoch = max(self.rounds_per_epoch, check_integer("min_rounds", min_rounds, low=1))
        self.rows_per_epoch = {
            name: min(samples.get(name, self.rounds_per_epoch * batch), self.rounds_per_epoch * batch)
            for name, batch in self.batch_sizes.items()
        }
        self._orders: tuple[int, dict[str, Indices]] | None = None

    def _count_rounds(self, samples: Mapping[str, int], rounds: int | None) -> int:
        if not self.sizes:
            raise ConfigError("sizes must name at least one task, got none")
        for name, sample in samples.items():
            check_integer(f"sample_size of {name}", sample, low=1)
            if sample > self.sizes[name]:
                raise ConfigError(
                    f"tasks.{name}.sample_size must be at most the task's {self.sizes[name]} rows, got {sample}"
                )
        counts = {name: -(-sample // self.batch_sizes[name]) for name, sample in samples.items()}
        if rounds is not None:
            check_integer("train.rounds", rounds, low=1)
        if len({*counts.values()}) > 1 or (rounds is not None and any(n != rounds for n in counts.values())):
            each = ", ".join(f"{name} {samples[name]} / {self.batch_sizes[name]} = {n}" for name, n in counts.items())
            asked = f", and train.rounds {rounds}" if rounds is not None else ""
            raise ConfigError(f"rounds (sample_size / batch_size) must be equal for all tasks, got {each}{asked}")
        fitting = {name: size // self.batch_sizes[name] for name, size in self.sizes.items()}
        count = rounds or next(iter(counts.values()), min(fitting.values()))
        short = [name for name in self.sizes if name not in samples and fitting[name] < max(count, 1)]
        if short:
            raise ConfigError(self._too_few(short[0], count, by_samples=bool(samples)))
        return count

    def _too_few(self, name: str, count: int, *, by_samples: bool) -> str:
        rows, batch = self.sizes[name], self.batch_sizes[name]
        if rows < batch:
            return (
                f"task {name} must have at least the {batch} rows of its batch_size, got {rows}: "
                f"set tasks.{name}.batch_size to at most {rows}, "
                "or give it more rows (a higher --limit, if one is set)"
            )
        needed = f"task {name} must have at least {count * batch} rows for {count} rounds of {batch}, got {rows}"
        mend = ["the other tasks' sample_size lower" if by_samples else f"train.rounds to at most {rows // batch}"]
        if rows >= count:
            mend.append(f"tasks.{name}.batch_size to at most {rows // count}")
        return f"{needed}: set {', or '.join(mend)}"

    def round(self, epoch: int, index: int) -> dict[str, Indices]:
        """Return the row indices, int64 (batch_size,), of each task, in the task order of this round.

        :raises IndexError: for an index that is not below rounds_per_epoch.
        """
        if not 0 <= index < self.rounds_per_epoch:
            raise IndexError(f"index must be from 0 to {self.rounds_per_epoch - 1}, got {index}")
        orders = self._epoch_orders(epoch)
        names = list(self.sizes)
        if self.task_order == "shuffled":
            names = [names[i] for i in self._generator(epoch, ORDER, index).permutation(len(names))]
        starts = {name: index * self.batch_sizes[name] for name in names}
        return {name: orders[name][starts[name] : starts[name] + self.batch_sizes[name]] for name in names}

    def _epoch_orders(self, epoch: int) -> dict[str, Indices]:
        """Draw the rows of each task; kept for the current epoch, since a draw passes over all rows."""
        if self._orders is None or self._orders[0] != epoch:
            orders = {name: self._epoch_order(epoch, task, name) for task, name in enumerate(self.sizes)}
            self._orders = (epoch, orders)
        return self._orders[1]

    def _epoch_order(self, epoch: int, task: int, name: str) -> Indices:
        size, wanted = self.sizes[name], self.rows_per_epoch[name]
        whole = size // self.batch_sizes[name] * self.batch_sizes[name]  # a batch must not hold a row twice
        passes = [self._generator(epoch, task).permutation(size)]
        while wanted > size and len(passes) * whole < wanted:
            passes.append(self._generator(epoch, task, len(passes)).permutation(size))
        return np.concatenate([each[:whole] for each in passes] if len(passes) > 1 else passes)[:wanted]

    def _generator(self, *words: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence((self.seed, *words)))
