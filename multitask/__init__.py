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
    from multitask.settings.choices import OPTIMIZERS, UPDATES
    from multitask.settings.config import RunConfig, build_config, load_tasks
    from multitask.settings.task import Task
    from multitask.training.train import train
    from multitask.updates.base import Objective, Update, Weighting

__all__ = [
    "ConfigError",
    "DataError",
    "MultitaskModel",
    "OPTIMIZERS",
    "Objective",
    "Prediction",
    "Run",
    "RunConfig",
    "RunError",
    "Score",
    "Task",
    "UPDATES",
    "Update",
    "Weighting",
    "build_config",
    "load_tasks",
    "train",
]

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "MultitaskModel": "model.model",
    "OPTIMIZERS": "settings.choices",
    "Objective": "updates.base",
    "Prediction": "run",
    "Run": "run",
    "RunConfig": "settings.config",
    "RunError": "errors",
    "Score": "metrics",
    "Task": "settings.task",
    "UPDATES": "settings.choices",
    "Update": "updates.base",
    "Weighting": "updates.base",
    "build_config": "settings.config",
    "load_tasks": "settings.config",
    "train": "training.train",
}


__getattr__, __dir__ = lazy_names(globals(), _HOME)
