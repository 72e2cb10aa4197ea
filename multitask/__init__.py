"""Several tasks on one BERT: training, scoring and prediction.

The names below are imported on first use: ``multitask --help`` and a mistyped option answer at once, without waiting
for torch.
"""

from typing import TYPE_CHECKING

from minbert.lazy import lazy_names

if TYPE_CHECKING:
    from multitask.errors import ConfigError, DataError, RunError
    from multitask.metrics import Score
    from multitask.model.model import MultitaskModel
    from multitask.run import Prediction, Run
    from multitask.settings.config import RunConfig, build_config, load_tasks
    from multitask.settings.tables import EncoderConfig, TrainConfig
    from multitask.settings.task import Task
    from multitask.training.train import train

__all__ = [
    "ConfigError",
    "DataError",
    "EncoderConfig",
    "MultitaskModel",
    "Prediction",
    "Run",
    "RunConfig",
    "RunError",
    "Score",
    "Task",
    "TrainConfig",
    "build_config",
    "load_tasks",
    "train",
]

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "EncoderConfig": "settings.tables",
    "MultitaskModel": "model.model",
    "Prediction": "run",
    "Run": "run",
    "RunConfig": "settings.config",
    "RunError": "errors",
    "Score": "metrics",
    "Task": "settings.task",
    "TrainConfig": "settings.tables",
    "build_config": "settings.config",
    "load_tasks": "settings.config",
    "train": "training.train",
}


__getattr__, __dir__ = lazy_names(globals(), _HOME)
