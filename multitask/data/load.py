"""Read what a configuration names, or rows in memory: checked rows, and their token ids."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import TaskData
from multitask.data.dialect import formats_note
from multitask.data.examples import Dataset, OnBad, infer_labels, read_examples
from multitask.data.memory import Given, MemoryRows
from multitask.data.splits import stratified_split
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import check_choice
from multitask.settings.config import RunConfig
from multitask.settings.task import FILES, Task

__all__ = ["Prepared", "prepare", "read_split", "to_task_data"]


@dataclass
class Prepared:
    """Checked rows by task, and the configuration with labels filled in from the training rows.

    :param given: the rows that came from memory.
    :param notes: what was decided or noticed on the way, a sentence each: said at the start and recorded.
    """

    config: RunConfig
    train: dict[str, Dataset] = field(default_factory=dict)
    dev: dict[str, Dataset] = field(default_factory=dict)
    given: Given = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prepare(
    config: RunConfig, *, limit: int | None = None, bad_rows: OnBad = "missing", given: Given | None = None
) -> Prepared:
    """Read every task's training and dev rows.

    :param limit: the most rows to use of each split, drawn by the run's seed, to try a run out.
    :param bad_rows: how to treat rows that can't be used: ``on_bad`` of data.examples.read_examples.
    :param given: rows in memory, for splits of which no file is named.
    :raises ConfigError: for a split with both a file and rows in memory.
    :raises DataError: for files and rows that can't be used, naming file and line.
    """
    given = given or {}
    tasks, result, seed = [], Prepared(config, given=given), config.train.seed
    for task in config.tasks:
        for split, memory in given.get(task.name, {}).items():
            if getattr(task, split) is not None:
                file = getattr(task, split)
                raise ConfigError(
                    f"tasks.{task.name}.{split} must be unset where {memory.name} has the rows, got {file}"
                )
        source, dev_source = _source(task, "train", given), _find(task, "dev", given)
        task = infer_labels(task, source)
        tasks.append(task)
        rows = read_examples(source, task, on_bad=bad_rows)
        if dev_source is not None:
            dev = read_examples(dev_source, task, on_bad=bad_rows)
        else:
            rows, dev = stratified_split(rows, task, config.train.seed)
        for name, dataset in (("train", rows), ("dev", dev)):
            if not dataset.examples:
                raise DataError(f"{dataset.path} must have usable {name} rows for task {task.name}, got none")
        result.train[task.name], result.dev[task.name] = _sample(rows, limit, seed), _sample(dev, limit, seed)
    result.config = replace(config, tasks=tuple(tasks))
    dialects = {name: {"train": rows.dialect, "dev": result.dev[name].dialect} for name, rows in result.train.items()}
    result.notes += filter(None, (formats_note(name, by_split) for name, by_split in dialects.items()))
    return result


def read_split(
    config: RunConfig,
    split: str,
    *,
    bad_rows: OnBad = "missing",
    given: Given | None = None,
    from_memory: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Dataset]:
    """Read the labelled rows of one split for each task of a configuration whose labels are known.

    :param split: train, dev or test.
    :param bad_rows: as in prepare.
    :param given: rows in memory, which are taken instead of a file.
    :param from_memory: by task the splits of which the run was trained with rows in memory.
    :raises ConfigError: for another split, or a task without rows of it.
    :raises DataError: for files and rows that can't be used, naming file and line.
    """
    check_choice("split", split, FILES)
    result = {}
    for task in config.tasks:
        before = (from_memory or {}).get(task.name, ())
        whole = split == "test" or "dev" in before or _find(task, "dev", given) is not None
        rows = read_examples(_source(task, split, given, before, held_out=not whole), task, on_bad=bad_rows)
        if not whole:
            train, dev = stratified_split(rows, task, config.train.seed)
            rows = train if split == "train" else dev
        result[task.name] = rows
    return result


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


def _find(task: Task, split: str, given: Given | None) -> str | Path | MemoryRows | None:
    """Return the rows in memory of a split, or else its file, if there is one."""
    rows = (given or {}).get(task.name, {}).get(split)
    file: str | None = getattr(task, split)
    return file if rows is None else rows


def _source(
    task: Task, split: str, given: Given | None, before: Collection[str] = (), *, held_out: bool = False
) -> str | Path | MemoryRows:
    """Return where a split's rows are, or those that it is held out of; ConfigError if they are nowhere.

    :param before: the splits whose rows were in memory when the run was trained.
    """
    name = "train" if held_out else split
    source = _find(task, name, given)
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
