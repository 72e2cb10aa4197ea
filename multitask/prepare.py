"""From a configuration to what training needs: checked rows, their token ids, a model."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np

from minbert.files.checkpoint import has_pooler
from minbert.files.registry import resolve
from minbert.model import BertModel
from minbert.tokenizer import BertTokenizer
from multitask.batches import TaskData
from multitask.config import RunConfig
from multitask.data import Dataset, OnBad, infer_labels, read_examples, stratified_split
from multitask.errors import ConfigError, DataError
from multitask.model import MultitaskModel
from multitask.tasks import Task

__all__ = ["Prepared", "build_model", "encode", "prepare", "read_split"]


@dataclass
class Prepared:
    """Checked rows by task, and the configuration with labels filled in from the training files."""

    config: RunConfig
    train: dict[str, Dataset] = field(default_factory=dict)
    dev: dict[str, Dataset] = field(default_factory=dict)


def prepare(config: RunConfig, *, limit: int | None = None, bad_rows: OnBad = "missing") -> Prepared:
    """Read every task's training and dev rows.

    :param limit: at most so many rows of each file, drawn by the run's seed, to try a run out.
    :param bad_rows: what becomes of rows that can't be used: ``on_bad`` of data.read_examples.
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
                raise DataError(f"{getattr(task, name) or task.train}: holds no usable {name} rows of task {task.name}")
        result.train[task.name], result.dev[task.name] = _sample(rows, limit, seed), _sample(dev, limit, seed)
    result.config = replace(config, tasks=tuple(tasks))
    return result


def read_split(config: RunConfig, split: str, *, bad_rows: OnBad = "missing") -> dict[str, Dataset]:
    """Labelled rows of one split for each task of a configuration whose labels are known."""
    if split not in ("train", "dev", "test"):
        raise ConfigError(f"split is {split!r}; known: train, dev, test")
    result = {}
    for task in config.tasks:
        if task.dev is None and split in ("train", "dev"):
            rows = read_examples(_path(task, "train"), task, on_bad=bad_rows)
            train, dev = stratified_split(rows, task, config.train.seed)
            result[task.name] = train if split == "train" else dev
        else:
            result[task.name] = read_examples(_path(task, split), task, on_bad=bad_rows)
    return result


def build_model(config: RunConfig) -> tuple[MultitaskModel, BertTokenizer]:
    """Pretrained encoders, one for each name the tasks use, new decoders, and the tokenizer.

    Decoders draw their weights from torch's default generator.
    """
    folder = resolve(config.encoder.weights)
    encoders: dict[str, BertModel] = {}
    pretrained = BertModel.from_pretrained(folder, add_pooling_layer=has_pooler(folder), dropout=config.encoder.dropout)
    pretrained.requires_grad_(not config.encoder.freeze)
    for task in config.tasks:
        if task.encoder not in encoders:
            encoders[task.encoder] = deepcopy(pretrained) if encoders else pretrained
    return MultitaskModel(encoders, config.tasks), BertTokenizer.from_pretrained(folder)


def encode(
    datasets: Mapping[str, Dataset], model: MultitaskModel, tokenizer: BertTokenizer, *, ahead: bool = True
) -> dict[str, TaskData]:
    """Token ids and labels of each task's rows, cut to the encoder's positions. ``ahead`` as in EncodedTexts."""
    return {
        name: TaskData.build(model.tasks[name], dataset.examples, tokenizer, model.max_length, ahead=ahead)
        for name, dataset in datasets.items()
    }


def _sample(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """At most ``limit`` rows, drawn by ``seed`` and kept in the file's order: a file may be sorted by its labels."""
    if limit is None or limit >= len(dataset):
        return dataset
    rows = np.sort(np.random.default_rng((seed, len(dataset))).permutation(len(dataset))[:limit])
    return replace(dataset, examples=[dataset.examples[row] for row in rows])


def _path(task: Task, split: str) -> str:
    path = getattr(task, split)
    if path is None:
        raise ConfigError(f"tasks.{task.name}.{split} is not set; it names the file of the {split} rows")
    return str(path)
