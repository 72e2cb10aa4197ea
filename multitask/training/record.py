"""record.json: what a reader of a run has to know beside its configuration."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch

import minbert
from multitask.data.batches import TaskData
from multitask.data.load import Prepared
from multitask.data.splits import shared_rows
from multitask.model.model import MultitaskModel

__all__ = ["changes", "environment_of", "skipped_steps", "task_records", "weights_records"]


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


def weights_records(model: MultitaskModel) -> dict[str, str]:
    """Describe by encoder what was loaded into it."""
    return {name: str(encoder.load_report) for name, encoder in model.encoders.items()}


def task_records(
    prepared: Prepared, train_data: Mapping[str, TaskData], dev_data: Mapping[str, TaskData]
) -> dict[str, dict[str, Any]]:
    """Describe by task its classes and rows, and what was cut, left out or is in both splits."""
    train, dev = prepared.train, prepared.dev
    return {
        task.name: {
            "classes": list(task.classes),
            "from_memory": list(prepared.given.get(task.name, ())),
            "format": {
                split: str(rows[task.name].dialect)
                for split, rows in (("train", train), ("dev", dev))
                if rows[task.name].dialect is not None
            },
            "train_rows": len(train[task.name].examples),
            "dev_rows": len(dev[task.name].examples),
            "truncated_train_rows": int(train_data[task.name].texts.truncated.sum()),
            "truncated_dev_rows": int(dev_data[task.name].texts.truncated.sum()),
            "skipped": [str(row) for row in (*train[task.name].skipped, *dev[task.name].skipped)],
            "dev_rows_also_in_train": len(shared_rows(train[task.name].examples, dev[task.name].examples)),
        }
        for task in prepared.config.tasks
    }


def skipped_steps(log: Path) -> dict[str, int]:
    """Count by task the steps that were left out; in the log, since a resumed run continues it."""
    lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return dict(Counter(line["task"] for line in lines if "round" in line and line["loss"] is None))
