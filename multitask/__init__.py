"""Several tasks on one BERT: training, scoring and prediction.

The names below are loaded when they are first used: ``multitask --help`` and a mistyped option answer at once
instead of waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitask.config import RunConfig, build_config, load_tasks
    from multitask.errors import ConfigError, DataError, RunError
    from multitask.fit import train
    from multitask.metrics import Score
    from multitask.model import MultitaskModel
    from multitask.run import Prediction, Run
    from multitask.tasks import Task

__all__ = [
    "ConfigError",
    "DataError",
    "MultitaskModel",
    "Prediction",
    "Run",
    "RunConfig",
    "RunError",
    "Score",
    "Task",
    "build_config",
    "load_tasks",
    "train",
]

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "MultitaskModel": "model",
    "Prediction": "run",
    "Run": "run",
    "RunConfig": "config",
    "RunError": "errors",
    "Score": "metrics",
    "Task": "tasks",
    "build_config": "config",
    "load_tasks": "config",
    "train": "fit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
