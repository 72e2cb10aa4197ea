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
from multitask.data.load import Prepared
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
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return what is known before the first round; the parameters are those of the session."""
    return {
        **environment,
        "precision_chosen": precision,
        "ranks": size(),
        "plugins": plugins,
        "weights": weights_records(model),
        "tasks": task_records(prepared, train_data, dev_data),
        "notes": list(dict.fromkeys([*prepared.notes, *notes])),
        "cross_validated": {},
        "resumed_with_changes": [],
    }


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
            "train_rows": len(train[task.name].examples),
            "dev_rows": len(dev[task.name].examples),
            "truncated_train_rows": int(train_data[task.name].texts.truncated.sum()),
            "truncated_dev_rows": int(dev_data[task.name].texts.truncated.sum()),
            "skipped": [str(row) for row in (*train[task.name].skipped, *dev[task.name].skipped)],
            "dev_rows_also_in_train": len(shared_rows(train[task.name].examples, dev[task.name].examples)),
        }
        for task in prepared.config.tasks
    }


def score_record(score: Score) -> dict[str, Any]:
    """Return a score as JSON has it: None for what is not finite."""
    values = {key: getattr(score, key) for key in ("metric", "value", "low", "high", "n")}
    return {key: None if isinstance(each, float) and not math.isfinite(each) else each for key, each in values.items()}


def skipped_steps(log: Path) -> dict[str, int]:
    """Count by task the steps that were left out; in the log, since a resumed run continues it."""
    lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    return dict(Counter(line["task"] for line in lines if "round" in line and line["loss"] is None))
