"""What a run learns from teachers: the settings of ``multitask distill``, which are kept in record.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from multitask.errors import ConfigError
from multitask.settings.checks import check_number, shown
from multitask.settings.fields import check_settings, setting
from multitask.settings.task_checks import check_path

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Distillation", "SoftTargets"]


class SoftTargets(NamedTuple):
    """What rows learn of their teachers beside their labels.

    :param outputs: the teachers' mean outputs, (rows, num_outputs) float32.
    :param temperature: divides logits on both sides.
    :param weight: of the distance to the outputs in a row's loss; the label's loss has the rest.
    """

    outputs: "Tensor"
    temperature: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Which runs a run learns the outputs of, on which rows, and how much.

    Source: Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), section 2, where a high weight did best.

    :param teachers: run folders; a task learns the mean outputs of those that have it.
    :param unlabelled: by task a file of further rows, whose labels, if there are any, are not read.
    :param temperature: divides the logits of teachers and student, 0.01 to 100.
    :param teacher_weight: share of a row's loss that is the distance to the teachers' outputs, 0 to 1.
    :raises ConfigError: for a value that is not allowed.
    """

    teachers: Sequence[str | Path]
    unlabelled: Mapping[str, str | Path] = field(default_factory=dict)
    temperature: float = setting(
        "divides the logits of teachers and student before they are compared, from 0.01 to 100; the higher, the more of"
        " the classes that are unlikely is learned (2)",
        partial(check_number, low=0.01, high=100.0),
        default=2.0,
        option=True,
    )
    teacher_weight: float = setting(
        "share of a row's loss that is the distance to the teachers' outputs, from 0 to 1; the label's loss has the"
        " rest (0.9)",
        partial(check_number, high=1.0),
        default=0.9,
        option=True,
    )

    def __post_init__(self) -> None:
        if not isinstance(self.teachers, list | tuple) or not self.teachers:
            raise ConfigError(f"distillation.teachers must be a list of run folders, got {shown(self.teachers)}")
        if not isinstance(self.unlabelled, Mapping):
            raise ConfigError(f"distillation.unlabelled must be files by task, got {shown(self.unlabelled)}")
        folders = tuple(check_path("distillation.teachers", folder) for folder in self.teachers)
        twice = next((folder for folder in folders if folders.count(folder) > 1), None)
        if twice is not None:
            raise ConfigError(f"distillation.teachers must be different runs, got {twice} twice")
        object.__setattr__(self, "teachers", folders)
        files = {name: check_path(f"distillation.unlabelled {name}", file) for name, file in self.unlabelled.items()}
        object.__setattr__(self, "unlabelled", files)
        check_settings(self, "distillation")
