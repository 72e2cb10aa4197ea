"""The kind of task whose rows have any number of the classes, none included."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from multitask.settings.kinds import Classification, binary_distances, label_key

if TYPE_CHECKING:
    from torch import Tensor

    from multitask.settings.task import Task

__all__ = ["Multilabel"]

# What may separate the labels of a cell, for the hint.
SEPARATORS = ";|,"


class Multilabel(Classification):
    """Any number of several classes, by one binary cross-entropy for each."""

    many: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1")

    def names(self, task: "Task", cell: Any) -> list[str]:
        """Return the labels of a cell: a list, in JSON or of Python, or with ``label_separator`` one string.

        Between separators blanks and empty labels do not count: the separator alone is a row without labels.
        """
        if isinstance(cell, str):
            if task.label_separator is not None:
                names = [name.strip() for name in cell.split(task.label_separator)]
                return _once([name for name in names if name])
            cell = _parsed(task, cell)
        if not isinstance(cell, list | tuple):
            raise ValueError("must be a list of labels")
        for label in cell:
            if isinstance(label, bool) or not isinstance(label, str | int | float) or not str(label).strip():
                raise ValueError("must be a list of strings or numbers")
        return _once([str(label).strip() for label in cell])

    def read_label(self, task: "Task", text: Any) -> Any:
        """Return the classes' indices, rising; see Kind.

        :param text: the cell: a string, or a list.
        """
        return tuple(sorted(super(Multilabel, self).read_label(task, name) for name in self.names(task, text)))

    def row_losses(self, outputs: "Tensor", labels: "Tensor") -> "Tensor":
        """Return the means (batch,) of the classes' binary cross-entropies, as HuggingFace's multi-label heads do."""
        import torch.nn.functional as F

        losses = F.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype), reduction="none")
        return losses.mean(1)

    def soft_losses(self, outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
        """Return the classes' means (batch,) of T^2 * KL(teacher || student); see Kind."""
        return binary_distances(outputs, targets, temperature).mean(1)

    def predict(self, outputs: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return which classes are likelier than not (batch, classes), 0 or 1, and probabilities (batch, classes).

        A task's ``threshold`` takes the place of one half: see ``losses.predicted_values``.
        """
        probabilities = outputs.sigmoid()
        return (probabilities >= 0.5).long(), probabilities

    def spell(self, task: "Task", value: Any) -> Any:
        """Return the tuple of the predicted classes' names, of a row of zeros and ones."""
        return tuple(name for name, has in zip(task.classes, value, strict=True) if has)


def _parsed(task: "Task", cell: str) -> Any:
    """Return the list that a string spells in JSON; ValueError says how else labels may stand in it."""
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list):
        return value
    found = next((separator for separator in SEPARATORS if separator in cell), ";")
    raise ValueError(f"must be a JSON list, unless tasks.{task.name}.label_separator is set, to {found!r} say")


def _once(names: Sequence[str]) -> list[str]:
    keys = [label_key(name) for name in names]
    if len(set(keys)) < len(keys):
        raise ValueError("must have each label once")
    return list(names)
