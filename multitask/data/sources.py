"""Where a task's rows are, and which tasks of a run read the same ones."""

import os
from collections.abc import Hashable
from pathlib import Path

from multitask.data.formats import is_pipe
from multitask.data.memory import Given, MemoryRows
from multitask.errors import DataError
from multitask.settings.config import RunConfig
from multitask.settings.task import FILES, Task

__all__ = ["find_source", "held_together", "same_rows", "serves_others"]


def find_source(task: Task, split: str, given: Given | None) -> str | Path | MemoryRows | None:
    """Return the rows in memory of a split, or else its file, if there is one; DataError for a pipe."""
    rows = (given or {}).get(task.name, {}).get(split)
    file: str | None = getattr(task, split)
    if rows is None and file is not None and is_pipe(file):
        raise DataError(f"tasks.{task.name}.{split} must be a file, which is read several times, got the pipe {file}")
    return file if rows is None else rows


def serves_others(config: RunConfig, task: Task, source: str | Path | MemoryRows, given: Given | None) -> bool:
    """Return whether another task of the run, with a label column of its own, reads the same file or rows."""
    return any(
        same_rows(found, source)
        for other in config.tasks
        if other.label != task.label
        for split in FILES
        if (found := find_source(other, split, given)) is not None
    )


def held_together(config: RunConfig, given: Given | None) -> dict[str, tuple[str, ...]]:
    """Return the tasks whose dev rows are held out of their training rows, each with all those that read the same."""
    places: dict[Hashable, list[str]] = {}
    for task in config.tasks:
        source = find_source(task, "train", given)
        if source is not None and find_source(task, "dev", given) is None:
            places.setdefault(_place(source), []).append(task.name)
    return {name: tuple(names) for names in places.values() for name in names}


def same_rows(one: str | Path | MemoryRows, other: str | Path | MemoryRows) -> bool:
    """Return whether two sources are one file, or were one object in memory."""
    return _place(one) == _place(other)


def _place(source: str | Path | MemoryRows) -> Hashable:
    """Return what tells files, or rows in memory, from others."""
    return source.origin if isinstance(source, MemoryRows) else os.path.realpath(source)
