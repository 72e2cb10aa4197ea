"""Read what a configuration names, or rows in memory: checked rows, and their token ids."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import TaskData
from multitask.data.examples import BadRow, Dataset, OnBad, infer_labels, iter_examples, read_examples
from multitask.data.files.dialect import Dialect, formats_note
from multitask.data.files.formats import is_pipe
from multitask.data.memory import Given, MemoryRows
from multitask.data.sources import find_source, held_together, same_rows, serves_others
from multitask.data.splits import split_off
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import check_choice
from multitask.settings.config import RunConfig
from multitask.settings.task import FILES, Task

__all__ = ["Prepared", "prepare", "read_split", "read_unlabelled", "to_task_data"]


@dataclass
class Prepared:
    """Checked rows by task, and the configuration with labels filled in from the training rows.

    :param given: the rows that came from memory.
    :param held_with: by task whose dev rows were held out of its training rows, all tasks that read the same ones, for
        which each row is on the same side.
    :param notes: what was decided or noticed on the way, a sentence each: said at the start and recorded.
    """

    config: RunConfig
    train: dict[str, Dataset] = field(default_factory=dict)
    dev: dict[str, Dataset] = field(default_factory=dict)
    given: Given = field(default_factory=dict)
    held_with: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def dialects(self, task: str) -> dict[str, Dialect]:
        """Return by split how the file of a task's rows is written; those in memory, and no rows, have none."""
        splits = {"train": self.train[task], "dev": self.dev[task]}
        return {split: rows.dialect for split, rows in splits.items() if rows.dialect is not None and len(rows)}


def prepare(
    config: RunConfig, *, limit: int | None = None, bad_rows: OnBad = "missing", given: Given | None = None
) -> Prepared:
    """Read every task's training and dev rows.

    :param limit: the most rows to use of each split, drawn by the run's seed, to try a run out.
    :param bad_rows: as in data.examples.read_examples.
    :param given: rows in memory, for splits of which no file is named.
    :raises ConfigError: for a split with both a file and rows in memory.
    :raises DataError: for files and rows that can't be used, naming file and line.
    """
    given = given or {}
    result, seed = Prepared(config, given=given, held_with=held_together(config, given)), config.train.seed
    tasks: dict[str, Task] = {}
    for task in config.tasks:
        for split, memory in given.get(task.name, {}).items():
            if getattr(task, split) is not None:
                file = getattr(task, split)
                raise ConfigError(
                    f"tasks.{task.name}.{split} must be unset where {memory.name} has the rows, got {file}"
                )
        source, dev_source = _source(task, "train", given), find_source(task, "dev", given)
        tasks[task.name] = task = infer_labels(task, source, notes=result.notes)
        reading = _Reading(config, given, bad_rows)
        result.train[task.name] = reading.rows(task, source, grouped=dev_source is None)
        if dev_source is not None:
            result.dev[task.name] = reading.rows(task, dev_source)
            if task.group is not None:
                result.notes.append(f"{task.name}: group is not used, since dev has rows of its own")
    result.config = replace(config, tasks=tuple(tasks.values()))
    result.notes += [
        _unlabelled(name, dataset)
        for datasets in (result.train, result.dev)
        for name, dataset in datasets.items()
        if dataset.unlabelled
    ]
    if config.train.hold_out and not result.held_with:
        result.notes.append(
            "train.hold_out holds nothing out, as all tasks have dev rows of their own (tasks.NAME.dev)"
        )
    for together in dict.fromkeys(result.held_with.values()):
        _hold_out(result, together)
    for split in ("train", "dev"):
        datasets = {name: getattr(result, split)[name] for name in tasks}  # in the tasks' order
        for name, dataset in datasets.items():
            if split == "train" and not dataset.examples:
                raise DataError(f"{dataset.path} must have usable train rows for task {name}, got none")
            datasets[name] = _sample(dataset, limit, seed)
        setattr(result, split, datasets)
    result.notes[:0] = filter(None, (formats_note(name, result.dialects(name)) for name in tasks))
    return result


def _hold_out(prepared: Prepared, together: Sequence[str]) -> None:
    """Hold the dev rows of tasks that read one file out of their training rows, and note how."""
    tasks = {task.name: task for task in prepared.config.tasks}
    parts = [(tasks[name], prepared.train[name]) for name in together]
    for (task, rows), split in zip(parts, split_off(parts, prepared.config.train), strict=True):
        prepared.train[task.name], prepared.dev[task.name] = split.train, split.dev
        if not len(split.dev):
            few = ", as too few to hold any out" if prepared.config.train.hold_out is None else ""
            prepared.notes.append(f"{task.name}: all {len(rows)} rows are trained on{few} (train.hold_out)")
            continue
        if task.group is not None:
            prepared.notes.append(
                f"{task.name}: dev is {split.dev_groups:,} of {split.groups:,} groups by {' and '.join(task.group)},"
                f" with {len(split.dev):,} of {len(rows):,} rows"
            )
    if not any(len(prepared.dev[name]) for name in together):
        return
    if len(together) > 1:
        path = Path(parts[0][1].path).name
        prepared.notes.append(f"{', '.join(together)}: a row of {path} is in train or in dev for all of them alike")
    first = parts[0][0]
    source = _source(first, "train", prepared.given)
    for name, task in tasks.items():
        if name in together:
            continue
        if same_rows(prepared.config, (task, _source(task, "train", prepared.given)), (first, source)):
            held = {example.where for other in together for example in prepared.dev[other].examples}
            count = sum(example.where in held for example in prepared.train[name].examples)
            prepared.notes.append(
                f"{name}: trains on {count:,} rows that are dev rows of {', '.join(together)}, since it has a dev file"
                f" and tasks.{together[0]}.dev is unset"
            )


def _unlabelled(name: str, rows: Dataset) -> str:
    count = rows.unlabelled + len(rows) + len(rows.skipped)
    return f"{name}: {rows.unlabelled:,} of {count:,} rows of {Path(rows.path).name} have no label of this task"


@dataclass(frozen=True)
class _Reading:
    """How the tasks of a run read their rows."""

    config: RunConfig
    given: Given
    bad_rows: OnBad

    def rows(
        self,
        task: Task,
        source: str | Path | MemoryRows,
        *,
        shared: bool = False,
        grouped: bool = False,
        labelled: bool = True,
    ) -> Dataset:
        shared = shared or serves_others(self.config, task, source, self.given)
        return read_examples(source, task, labelled=labelled, bad_rows=self.bad_rows, shared=shared, grouped=grouped)


def read_split(
    config: RunConfig,
    split: str,
    *,
    bad_rows: OnBad = "missing",
    given: Given | None = None,
    from_memory: Mapping[str, Collection[str]] | None = None,
    held_with: Mapping[str, Sequence[str]] | None = None,
    labelled: bool = True,
) -> dict[str, Dataset]:
    """Read the labelled rows of one split for each task of a configuration whose labels are known.

    :param split: train, dev or test.
    :param bad_rows: as in prepare.
    :param given: rows in memory, which are taken instead of a file.
    :param from_memory: by task the splits of which the run was trained with rows in memory.
    :param held_with: as in Prepared, of the run; else by what the tasks read now.
    :param labelled: False reads texts alone, but for rows that are held out, which takes their labels.
    :return: by task; a task of whose rows none were held out has no dev rows, and is left out of them.
    :raises ConfigError: for another split, or a task without rows of it.
    :raises DataError: for files and rows that can't be used, naming file and line; and if no task has dev rows.
    """
    check_choice("split", split, FILES)
    held_with = held_together(config, given) if held_with is None else held_with
    reading, tasks = _Reading(config, given or {}, bad_rows), {task.name: task for task in config.tasks}
    result: dict[str, Dataset] = {}
    for task in config.tasks:
        before = (from_memory or {}).get(task.name, ())
        if split == "test" or "dev" in before or find_source(task, "dev", given) is not None:
            result[task.name] = reading.rows(task, _source(task, split, given, before), labelled=labelled)
        elif task.name not in result:
            parts = []
            for name in held_with.get(task.name) or [task.name]:
                before = (from_memory or {}).get(name, ())
                source = _source(tasks[name], split, given, before, held_out=True)
                shared = len(held_with.get(name, ())) > 1
                parts.append((tasks[name], reading.rows(tasks[name], source, shared=shared, grouped=True)))
            for (each, _), made in zip(parts, split_off(parts, config.train), strict=True):
                result.setdefault(each.name, made.train if split == "train" else made.dev)
    if not any(map(len, result.values())):
        name = config.tasks[0].name
        raise DataError(
            f"tasks.{name}.dev must be a file of dev rows, or data[{name!r}]['dev'] the rows, for the run to be scored:"
            " all its rows were trained on, got none"
        )
    return {name: result[name] for name in tasks if len(result[name])}


def read_unlabelled(task: Task, path: Path, *, limit: int | None, seed: int, bad_rows: OnBad) -> Dataset:
    """Read the texts of a file whose labels, if there are any, do not count; plain text is welcome, too.

    :param limit: as in prepare, drawn by ``seed``.
    :raises DataError: for a pipe, rows that can't be used, as ``bad_rows`` says, and if none is usable.
    """
    if is_pipe(path):
        raise DataError(f"{path} must be a file, which is read several times, got a pipe")
    skipped: list[BadRow] = []
    examples = list(iter_examples(path, task, bad_rows=bad_rows, skipped=skipped))
    if not examples:
        raise DataError(f"{path} must have a usable row for task {task.name}, got none")
    return _sample(Dataset(str(path), examples, skipped), limit, seed)


def to_task_data(
    datasets: Mapping[str, Dataset],
    tasks: Mapping[str, Task],
    tokenizer: BertTokenizer,
    max_length: int,
    *,
    ahead: bool = True,
) -> dict[str, TaskData]:
    """Tokenize each task's rows, cut to ``max_length`` tokens.

    :param ahead: as in EncodedTexts.
    """
    return {
        name: TaskData.build(tasks[name], dataset.examples, tokenizer, max_length, ahead=ahead)
        for name, dataset in datasets.items()
    }


def _sample(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """Draw at most ``limit`` rows by ``seed``, in the file's order; its first rows may all have one label."""
    if limit is None or limit >= len(dataset):
        return dataset
    rows = np.sort(np.random.default_rng((seed, len(dataset))).permutation(len(dataset))[:limit])
    return replace(dataset, examples=[dataset.examples[row] for row in rows])


def _source(
    task: Task, split: str, given: Given | None, before: Collection[str] = (), *, held_out: bool = False
) -> str | Path | MemoryRows:
    """Return where a split's rows are, or those that it is held out of; ConfigError if they are nowhere.

    :param before: the splits whose rows were in memory when the run was trained.
    """
    name = "train" if held_out else split
    source = find_source(task, name, given)
    if source is None and name in before:
        raise ConfigError(
            f"tasks.{task.name}: the {name} rows came from memory when the run was trained; from Python, give them"
            f" again: run.evaluate({split!r}, data={{{task.name!r}: {{{name!r}: rows}}}})"
        )
    if source is None:
        raise ConfigError(
            f"tasks.{task.name}.{name} must be the path of the {name} rows, or data[{task.name!r}][{name!r}] the rows"
            " themselves, got neither"
        )
    return source
