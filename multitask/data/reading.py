"""The rows of a task, before any check, from wherever they are: a file, a stream or memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from multitask.data.files.dialects import Dialect, Wanted, look_at
from multitask.data.files.formats import is_pipe, read_rows
from multitask.data.files.rows import Row, Source
from multitask.data.memory import MemoryRows
from multitask.settings.task import Task

__all__ = ["columns_of", "dialect_for", "rows_of"]


def columns_of(task: Task, *, labelled: bool, grouped: bool = False) -> tuple[list[str], str | None]:
    """Return the columns that a task's rows must have, those of the groups last, and the one that they may have."""
    return [*task.text, *([task.label] if labelled else []), *(task.group or () if grouped else ())], task.id


def rows_of(
    source: Source | MemoryRows,
    task: Task,
    required: Sequence[str],
    optional: str | None,
    *,
    plain: int = 0,
    dialect: Dialect | None = None,
) -> Iterator[Row]:
    """Yield the rows of a task; parameters as in formats.read_rows."""
    if isinstance(source, MemoryRows):
        return source.read(required, optional)
    label = task.label if task.label in required else None
    return read_rows(
        source,
        required,
        optional,
        plain=plain,
        label=label,
        numbers=label is not None and not task.rules.has_classes,
        format=task.format,
        dialect=dialect,
    )


def dialect_for(source: Source | MemoryRows, task: Task, *, labelled: bool, grouped: bool = False) -> Dialect | None:
    """Return how a task's file is written; None for what is no file."""
    if not isinstance(source, str | Path) or is_pipe(source):
        return None
    required, optional = columns_of(task, labelled=labelled, grouped=grouped)
    label = task.label if labelled else None
    return look_at(
        source, task.format, Wanted(required, optional, 0, label, numbers=labelled and not task.rules.has_classes)
    )
