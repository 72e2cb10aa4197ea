"""Several tasks on one BERT: training, scoring and prediction.

The names below are imported on first use: ``multitask --help`` and a mistyped option answer at once, without waiting
for torch.
"""

from typing import TYPE_CHECKING

from minbert.lazy import lazy_names

if TYPE_CHECKING:
    from multitask.comparison import Difference, paired_difference
    from multitask.errors import ConfigError, DataError, RunError, StoppedError
    from multitask.metrics import Score, baseline_score
    from multitask.model.model import MultitaskModel
    from multitask.plugins import load_plugin
    from multitask.pretraining.pretrain import Pretrained, pretrain
    from multitask.pretraining.settings import PretrainConfig
    from multitask.run import Prediction, Run
    from multitask.settings.choices import HEADS, METRICS, OPTIMIZERS, POOLINGS, SAMPLERS, SCHEDULES, UPDATES
    from multitask.settings.config import RunConfig, build_config, load_tasks
    from multitask.settings.distillation import Distillation
    from multitask.settings.kinds import KINDS, Binary, Classification, Kind, Regression
    from multitask.settings.multilabel import Multilabel
    from multitask.settings.tables import EncoderConfig, TrainConfig
    from multitask.settings.task import Task
    from multitask.studies.compare_runs import Compared, Comparison, compare
    from multitask.training.loop import RoundRecord
    from multitask.training.train import train
    from multitask.updates.base import Objective, Update, Weighting

__all__ = [
    "HEADS",
    "KINDS",
    "METRICS",
    "OPTIMIZERS",
    "POOLINGS",
    "SAMPLERS",
    "SCHEDULES",
    "UPDATES",
    "Binary",
    "Classification",
    "Compared",
    "Comparison",
    "ConfigError",
    "DataError",
    "Difference",
    "Distillation",
    "Kind",
    "EncoderConfig",
    "Multilabel",
    "MultitaskModel",
    "Objective",
    "Prediction",
    "PretrainConfig",
    "Pretrained",
    "Regression",
    "RoundRecord",
    "Run",
    "RunConfig",
    "RunError",
    "Score",
    "StoppedError",
    "Task",
    "TrainConfig",
    "Update",
    "Weighting",
    "baseline_score",
    "build_config",
    "compare",
    "load_plugin",
    "load_tasks",
    "paired_difference",
    "pretrain",
    "train",
]

_HOME = {
    "HEADS": "settings.choices",
    "KINDS": "settings.kinds",
    "METRICS": "settings.choices",
    "OPTIMIZERS": "settings.choices",
    "POOLINGS": "settings.choices",
    "SAMPLERS": "settings.choices",
    "SCHEDULES": "settings.choices",
    "UPDATES": "settings.choices",
    "Binary": "settings.kinds",
    "Classification": "settings.kinds",
    "Compared": "studies.compare_runs",
    "Comparison": "studies.compare_runs",
    "ConfigError": "errors",
    "DataError": "errors",
    "Difference": "comparison",
    "Distillation": "settings.distillation",
    "Kind": "settings.kinds",
    "EncoderConfig": "settings.tables",
    "Multilabel": "settings.multilabel",
    "MultitaskModel": "model.model",
    "Objective": "updates.base",
    "Prediction": "run",
    "PretrainConfig": "pretraining.settings",
    "Pretrained": "pretraining.pretrain",
    "Regression": "settings.kinds",
    "RoundRecord": "training.loop",
    "Run": "run",
    "RunConfig": "settings.config",
    "RunError": "errors",
    "Score": "metrics",
    "StoppedError": "errors",
    "Task": "settings.task",
    "TrainConfig": "settings.tables",
    "Update": "updates.base",
    "Weighting": "updates.base",
    "baseline_score": "metrics",
    "build_config": "settings.config",
    "compare": "studies.compare_runs",
    "load_plugin": "plugins",
    "load_tasks": "settings.config",
    "paired_difference": "comparison",
    "pretrain": "pretraining.pretrain",
    "train": "training.train",
}


__getattr__, __dir__ = lazy_names(globals(), _HOME)
