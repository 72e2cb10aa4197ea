"""Where a task's rows are, and which tasks of a run read the same ones."""

import os
from collections.abc import Hashable
from pathlib import Path

from multitask.data.files.first_bytes import opened
from multitask.data.files.formats import is_pipe
from multitask.data.files.tables import sheet_of
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
        same_rows(config, (other, found), (task, source))
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
            places.setdefault(_place(config, task, source), []).append(task.name)
    return {name: tuple(names) for names in places.values() for name in names}


def same_rows(
    config: RunConfig, one: tuple[Task, str | Path | MemoryRows], other: tuple[Task, str | Path | MemoryRows]
) -> bool:
    """Return whether two tasks' sources are one file, of Excel one sheet of it, or were one object in memory."""
    return _place(config, *one) == _place(config, *other)


def _place(config: RunConfig, task: Task, source: str | Path | MemoryRows) -> Hashable:
    """Return what tells files, sheets or rows in memory from others."""
    if isinstance(source, MemoryRows):
        return source.origin
    path = os.path.realpath(source)
    # Without any name of a sheet it is everywhere the first.
    sheets = any(each.format.sheet is not None for each in config.tasks)
    return path, _sheet(source, task) if sheets else None


def _sheet(path: str | Path, task: Task) -> str | None:
    """Return which sheet of a file the task reads; None for other files than Excel's, and pipes, read only once."""
    if is_pipe(path):
        return None
    with opened(path) as file:
        return sheet_of(str(path), file.stream, task.format) if file.what == "excel" else None
