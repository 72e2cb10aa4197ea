"""Read what a configuration names: checked rows, and their token ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import TaskData
from multitask.data.examples import Dataset, OnBad, infer_labels, read_examples
from multitask.data.splits import stratified_split
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import check_choice
from multitask.settings.config import RunConfig
from multitask.settings.task import Task

__all__ = ["Prepared", "prepare", "read_split", "to_task_data"]


@dataclass
class Prepared:
    """Checked rows by task, and the configuration with labels filled in from the training files."""

    config: RunConfig
    train: dict[str, Dataset] = field(default_factory=dict)
    dev: dict[str, Dataset] = field(default_factory=dict)


def prepare(config: RunConfig, *, limit: int | None = None, bad_rows: OnBad = "missing") -> Prepared:
    """Read every task's training and dev rows.

    :param limit: the most rows to use of each file, drawn by the run's seed, to try a run out.
    :param bad_rows: how to treat rows that can't be used: ``on_bad`` of data.examples.read_examples.
    :raises DataError: for files and rows that can't be used, naming file and line.
    """
    tasks, result, seed = [], Prepared(config), config.train.seed
    for task in config.tasks:
        task = infer_labels(task)
        tasks.append(task)
        rows = read_examples(_path(task, "train"), task, on_bad=bad_rows)
        if task.dev is not None:
            dev = read_examples(task.dev, task, on_bad=bad_rows)
        else:
            rows, dev = stratified_split(rows, task, config.train.seed)
        for name, dataset in (("train", rows), ("dev", dev)):
            if not dataset.examples:
                file = getattr(task, name) or task.train
                raise DataError(f"{file} must have usable {name} rows for task {task.name}, got none")
        result.train[task.name], result.dev[task.name] = _sample(rows, limit, seed), _sample(dev, limit, seed)
    result.config = replace(config, tasks=tuple(tasks))
    return result


def read_split(config: RunConfig, split: str, *, bad_rows: OnBad = "missing") -> dict[str, Dataset]:
    """Read the labelled rows of one split for each task of a configuration whose labels are known.

    :param split: train, dev or test.
    :param bad_rows: as in prepare.
    :raises ConfigError: for another split, or a task without a file of it.
    :raises DataError: for files and rows that can't be used, naming file and line.
    """
    check_choice("split", split, ("train", "dev", "test"))
    result = {}
    for task in config.tasks:
        if task.dev is None and split in ("train", "dev"):
            rows = read_examples(_path(task, "train"), task, on_bad=bad_rows)
            train, dev = stratified_split(rows, task, config.train.seed)
            result[task.name] = train if split == "train" else dev
        else:
            result[task.name] = read_examples(_path(task, split), task, on_bad=bad_rows)
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


def _path(task: Task, split: str) -> str:
    path = getattr(task, split)
    if path is None:
        raise ConfigError(f"tasks.{task.name}.{split} must be the path of the {split} rows, got None")
    return str(path)
