"""Rows held out of training, and rows that both training and dev contain."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from multitask.data.examples import Dataset, Example
from multitask.errors import DataError
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task

__all__ = ["Split", "hold_out", "shared_rows", "split_off", "stratified_split", "units_of"]

# A tenth of fewer rows says little, and training needs them more.
HOLD_OUT_FROM = 200
PASSES = 20  # over all units; a handful is enough


class Split(NamedTuple):
    """A task's rows, about a tenth of them held out.

    :param groups: into how many groups the rows fall, of which each is on one side; as many as rows without groups.
    :param dev_groups: how many of them are in dev.
    """

    train: Dataset
    dev: Dataset
    groups: int
    dev_groups: int


def split_off(parts: Sequence[tuple[Task, Dataset]], settings: TrainConfig) -> list[Split]:
    """Return what ``hold_out`` makes of the rows, or empty dev sets: as ``hold_out`` of the settings says.

    Unless it is set, rows are held out where any of the tasks has HOLD_OUT_FROM.
    """
    wanted = settings.hold_out
    if any(len(rows) >= HOLD_OUT_FROM for _, rows in parts) if wanted is None else wanted:
        return hold_out(parts, settings.seed)
    return [Split(*_halves(rows, rows.examples, []), len(rows), 0) for _, rows in parts]


def hold_out(parts: Sequence[tuple[Task, Dataset]], seed: int) -> list[Split]:
    """Split off about a tenth of each task's rows as dev, in which each label has its share.

    Rows that tasks share and rows of one group are on the same side for all tasks; so are groups that
    any row joins, directly or through others. Such units are gone through in random order until none moves any more:
    one goes to dev, or back, if that brings the numbers of rows held out, by task and by label, nearer to a tenth. The
    last rows of a class, and of a task, stay in train. One task without groups, of one label a row, is split by
    ``stratified_split``.

    :param parts: the tasks that read one file, each with its rows of it.
    :return: by part its train and dev rows, each in the file's order.
    :raises DataError: for fewer than two rows, or units, of a task.
    """
    (task, dataset), *others = parts
    if not others and task.group is None and not task.rules.many:
        train, dev = stratified_split(dataset, task, seed)
        return [Split(train, dev, len(dataset), len(dev))]
    for _, each in parts:
        _check_rows(each)
    units = units_of(parts)  # by part and row the number of its unit
    strata = [_strata(number, *part) for number, part in enumerate(parts)]
    drawn = _Draw(units, strata)
    generator = np.random.default_rng(np.random.SeedSequence((seed, *(len(each) for _, each in parts))))
    order = generator.permutation(len(drawn.units)).tolist()
    for _ in range(PASSES):
        held = set(drawn.held)
        for unit in order:
            if drawn.cost(unit) < -1e-9 and drawn.may_move(unit):
                drawn.move(unit)
        if drawn.held == held:
            break
    for number, (task, dataset) in enumerate(parts):  # a few large groups may all be worse than none
        if any(unit in drawn.held for unit in units[number]):
            continue
        own = set(units[number])
        left = [unit for unit in order if unit in own and drawn.may_move(unit)]
        if not left:
            what = f"groups (tasks.{task.name}.group)" if task.group is not None else "rows"
            raise DataError(
                f"{dataset.path} must have at least 2 {what} with rows of one class to split off dev, got {len(own)}"
                f" in all, none of which task {task.name} can spare"
            )
        drawn.move(min(left, key=drawn.cost))
    return [_cut(dataset, own, drawn.held) for (_, dataset), own in zip(parts, units, strict=True)]


def _cut(dataset: Dataset, units: Sequence[int], held: set[int]) -> Split:
    """Put the rows whose unit is held into dev."""
    rows = list(zip(units, dataset.examples, strict=True))
    train = [example for unit, example in rows if unit not in held]
    dev = [example for unit, example in rows if unit in held]
    own = set(units)
    return Split(*_halves(dataset, train, dev), len(own), len(own & held))


def _halves(dataset: Dataset, train: list[Example], dev: list[Example]) -> tuple[Dataset, Dataset]:
    return replace(dataset, examples=train), replace(dataset, examples=dev, skipped=[], unlabelled=0)


class _Draw:
    """Units of rows, and those that are held out so far.

    :param units: by part and row its unit.
    :param strata: by part and row what the row counts for: (name, whether the last of it must stay in train).
    """

    def __init__(
        self, units: Sequence[Sequence[int]], strata: Sequence[Sequence[Sequence[tuple[Hashable, bool]]]]
    ) -> None:
        self.units: dict[int, Counter[tuple[Hashable, bool]]] = {}
        for own, rows in zip(units, strata, strict=True):
            for unit, counted in zip(own, rows, strict=True):
                self.units.setdefault(unit, Counter()).update(counted)
        self.rows: Counter[tuple[Hashable, bool]] = Counter()
        for counts in self.units.values():
            self.rows.update(counts)
        self.taken: Counter[tuple[Hashable, bool]] = Counter()
        self.held: set[int] = set()

    def cost(self, unit: int) -> float:
        """Return by how much the squared distances to a tenth, each as a share of it, grow if the unit moves."""
        cost, sign = 0.0, -1 if unit in self.held else 1
        for stratum, count in self.units[unit].items():
            tenth = self.rows[stratum] / 10
            cost += count * (2 * sign * (self.taken[stratum] - tenth) + count) / tenth
        return cost

    def may_move(self, unit: int) -> bool:
        """Return whether train keeps rows of each class and task without the unit."""
        return unit in self.held or all(
            self.taken[stratum] + count < self.rows[stratum]
            for stratum, count in self.units[unit].items()
            if stratum[1]
        )

    def move(self, unit: int) -> None:
        """Move a unit from train to dev, or back."""
        if unit in self.held:
            self.held.remove(unit)
            self.taken.subtract(self.units[unit])
        else:
            self.held.add(unit)
            self.taken.update(self.units[unit])


def units_of(parts: Sequence[tuple[Task, Dataset]]) -> list[list[int]]:
    """Give the rows that must stay together one number, by union-find over their places and groups."""
    parents: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]  # halves the path
            node = parent
        return node

    for task, dataset in parts:
        for example in dataset.examples:
            joined = root(example.where)
            for group in example.groups:
                parents[root((task.group, group))] = joined
    numbers: dict[Hashable, int] = {}
    return [[numbers.setdefault(root(row.where), len(numbers)) for row in dataset.examples] for _, dataset in parts]


def _strata(part: int, task: Task, dataset: Dataset) -> list[list[tuple[Hashable, bool]]]:
    """Return what each row counts for: the task, and its label, each of its labels, or the range its number is in."""
    labels = dataset.labels
    whole: tuple[Hashable, bool] = (part, True)
    if task.rules.many:  # a row without labels counts as one of them
        sets = [label if isinstance(label, tuple) and label else (-1,) for label in labels]
        return [[whole, *(((part, index), True) for index in indices)] for indices in sets]
    if task.rules.has_classes:
        return [[whole, ((part, label), True)] for label in labels]
    ranges = max(1, min(10, len(labels) // 10))
    ranks = np.argsort(np.argsort(np.asarray(labels), kind="stable"), kind="stable")
    return [[whole, ((part, place), False)] for place in (ranks * ranges // len(labels)).tolist()]


def _check_rows(dataset: Dataset) -> None:
    if len(dataset) < 2 or len(dataset.labels) != len(dataset):
        raise DataError(f"{dataset.path} must have at least 2 rows, all labelled, to split off dev, got {len(dataset)}")


def stratified_split(dataset: Dataset, task: Task, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a tenth of the rows as dev, in which each label has its share.

    The rows are sorted by label, at random among equals, and every tenth is taken, which suits classes and
    numbers alike. The only row of a class stays in train.

    :return: train and dev, each in the file's order.
    :raises DataError: for fewer than two labelled rows, or only one of each class.
    """
    labels = dataset.labels
    _check_rows(dataset)
    generator = np.random.default_rng(np.random.SeedSequence((seed, len(dataset))))
    order = np.lexsort((generator.random(len(labels)), np.asarray(labels)))
    if task.rules.has_classes:
        classes, counts = np.unique(labels, return_counts=True)
        order = order[~np.isin(np.asarray(labels)[order], classes[counts == 1])]
        if not len(order):
            raise DataError(f"{dataset.path} must have 2 rows of some class to split off dev, got 1 of each")
    held = set(order[int(generator.integers(min(10, len(order)))) :: 10].tolist())
    train = [example for row, example in enumerate(dataset.examples) if row not in held]
    dev = [example for row, example in enumerate(dataset.examples) if row in held]
    return _halves(dataset, train, dev)


def shared_rows(train: Iterable[Example], dev: Iterable[Example]) -> list[Example]:
    """Return the rows of dev whose texts are also a row of train, pairs in either order."""
    seen = {_normal(example) for example in train}
    return [example for example in dev if _normal(example) in seen]


def _normal(example: Example) -> tuple[str, ...]:
    return tuple(sorted(" ".join(text.split()) for text in example.texts))
