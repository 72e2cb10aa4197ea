"""record.json: what a reader of a run has to know beside its configuration."""

import json
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch

import minbert
from multitask.data.batches import TaskData
from multitask.data.examples import Dataset
from multitask.data.load import Prepared
from multitask.data.long_texts import cut_note
from multitask.data.repeats import find_repeats
from multitask.data.splits import shared_rows
from multitask.distributed import size
from multitask.metrics import Score
from multitask.model.model import MultitaskModel

__all__ = ["changes", "environment_of", "opening_record", "score_record", "skipped_steps"]


def environment_of(dtype: torch.dtype) -> dict[str, Any]:
    """Describe what decides a run's bytes beside its identity: with another environment they differ.

    :param dtype: of the matrix products.
    """
    return {
        "versions": {
            "minbert": minbert.__version__,
            "torch": torch.__version__,
            "tokenizers": tokenizers.__version__,
            "python": platform.python_version(),
        },
        "threads": torch.get_num_threads(),
        "precision": str(dtype).removeprefix("torch."),
        "kernels": minbert.get_kernels(),
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two environments: by name what differs, as [before, now]."""
    return {key: [before.get(key), value] for key, value in now.items() if before.get(key) != value}


def opening_record(
    prepared: Prepared,
    model: MultitaskModel,
    train_data: Mapping[str, TaskData],
    dev_data: Mapping[str, TaskData],
    *,
    environment: Mapping[str, Any],
    precision: str,
    plugins: Mapping[str, Any],
    origin: Mapping[str, Any] | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return what is known before the first round; the parameters are those of the session."""
    return {
        **environment,
        "precision_chosen": precision,
        "ranks": size(),
        "plugins": plugins,
        "weights": weights_records(model),
        "tasks": (tasks := task_records(prepared, train_data, dev_data)),
        "notes": list(dict.fromkeys([*notes, *prepared.notes, *row_notes(tasks)])),
        "from": origin,
        "cross_validated": {},
        "resumed_with_changes": [],
    }


def weights_records(model: MultitaskModel) -> dict[str, str]:
    """Describe by encoder what was loaded into it."""
    return {name: str(encoder.load_report) for name, encoder in model.encoders.items()}


def task_records(
    prepared: Prepared, train_data: Mapping[str, TaskData], dev_data: Mapping[str, TaskData]
) -> dict[str, dict[str, Any]]:
    """Describe by task its classes and rows, and what was cut, left out, repeats or is in both splits."""
    return {
        task.name: {
            "classes": list(task.classes),
            "from_memory": list(prepared.given.get(task.name, ())),
            "format": {split: str(dialect) for split, dialect in prepared.dialects(task.name).items()},
            "held_with": list(prepared.held_with.get(task.name, ())),
            **_rows_record(
                prepared.train[task.name],
                prepared.dev[task.name],
                "rows" if "train" in prepared.given.get(task.name, ()) else "lines",
            ),
            **_length_record(train_data[task.name], dev_data[task.name]),
            "long": task.long,
        }
        for task in prepared.config.tasks
    }


def score_record(score: Score) -> dict[str, Any]:
    """Return a score as JSON has it: None for what is not finite."""
    values = {key: getattr(score, key) for key in ("metric", "value", "low", "high", "n")}
    return {key: None if isinstance(each, float) and not math.isfinite(each) else each for key, each in values.items()}


def _rows_record(train: Dataset, dev: Dataset, what: str) -> dict[str, Any]:
    repeats, name = find_repeats(train.examples), Path(train.path).name
    return {
        "train_rows": len(train),
        "dev_rows": len(dev),
        "unlabelled_train_rows": train.unlabelled,
        "unlabelled_dev_rows": dev.unlabelled,
        "skipped": [str(row) for row in (*train.skipped, *dev.skipped)],
        "dev_rows_also_in_train": len(shared_rows(train.examples, dev.examples)),
        "duplicate_train_rows": repeats.duplicates,
        "conflicting_train_rows": repeats.conflicts,
        "conflicts": [f"{what} {one} and {other} of {name}" for one, other in repeats.lines],
    }


def _length_record(train: TaskData, dev: TaskData) -> dict[str, int]:
    return {
        "max_length": train.texts.max_length,
        "truncated_train_rows": int(train.texts.truncated.sum()),
        "truncated_dev_rows": int(dev.texts.truncated.sum()),
        "windowed_train_rows": int((train.texts.windows > 1).sum()),
        "train_windows": int(train.texts.windows.sum()),
    }


def row_notes(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what of the tasks' records a user should know before the training begins, a sentence each.

    :param tasks: from task_records.
    """
    notes = []
    for name, task in tasks.items():
        if task["duplicate_train_rows"]:
            notes.append(f"{name}: {task['duplicate_train_rows']:,} training rows have texts and label of another one")
        if task["conflicting_train_rows"]:
            notes.append(
                f"{name}: {task['conflicting_train_rows']:,} training rows have the texts of another one but a"
                f" different label, such as {task['conflicts'][0]}"
            )
        if task["dev_rows_also_in_train"]:
            notes.append(f"{name}: {task['dev_rows_also_in_train']:,} dev rows are also in train")
        length = task["max_length"]
        if task["windowed_train_rows"]:
            notes.append(
                f"{name}: {task['windowed_train_rows']:,} of {task['train_rows']:,} training rows are longer than"
                f" {length} tokens and read in windows, which are {task['train_windows']:,} texts in all"
            )
        for split, what in (("train", "training rows"), ("dev", "dev rows")):
            cut = task[f"truncated_{split}_rows"]
            if cut:
                notes.append(cut_note(name, task["long"], cut, task[f"{split}_rows"], length, what=what))
    return notes


def skipped_steps(log: Path) -> dict[str, int]:
    """Count by task the steps that were left out; in the log, since a resumed run continues it."""
    lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return dict(Counter(line["task"] for line in lines if "round" in line and line["loss"] is None))
