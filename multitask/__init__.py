"""Several tasks on one BERT: training, scoring and prediction.

The names below are loaded when they are first used: ``multitask --help`` and a mistyped option answer at once
instead of waiting for torch.
"""

from typing import TYPE_CHECKING

from minbert.lazy import lazy_names

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


__getattr__, __dir__ = lazy_names(globals(), _HOME)
