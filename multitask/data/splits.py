"""Rows held out of training, and rows that both training and dev contain."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from multitask.data.examples import Dataset, Example
from multitask.errors import DataError
from multitask.settings.task import Task

__all__ = ["shared_rows", "stratified_split"]


def stratified_split(dataset: Dataset, task: Task, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a tenth of the rows as dev, in which each label has its share.

    The rows are sorted by label, at random among equals, and every tenth is taken, which suits classes and
    numbers alike. The only row of a class stays in train.

    :return: train and dev, each in the file's order.
    :raises DataError: for fewer than two labelled rows, or only one of each class.
    """
    labels = dataset.labels
    if len(dataset) < 2 or len(labels) != len(dataset):
        raise DataError(f"{dataset.path} must have at least 2 rows, all labelled, to split off dev, got {len(dataset)}")
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
    return replace(dataset, examples=train), replace(dataset, examples=dev, skipped=[])


def shared_rows(train: Iterable[Example], dev: Iterable[Example]) -> list[Example]:
    """Return the rows of dev whose texts are also a row of train, pairs in either order."""
    seen = {_normal(example) for example in train}
    return [example for example in dev if _normal(example) in seen]


def _normal(example: Example) -> tuple[str, ...]:
    return tuple(sorted(" ".join(text.split()) for text in example.texts))
