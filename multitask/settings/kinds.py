"""The kinds of task. Whatever depends on a task's kind is asked of its Kind, and of nothing else.

A kind says what labels are, which loss they have, how wide the head is, what scores it and how predictions are
spelled. The built-in ones are entered here; another is a class with the decorator ``@KINDS.register(name)``, which
may derive from one of these.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from multitask.errors import ConfigError
from multitask.settings.checks import check_number, listed, shown
from multitask.settings.choices import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from multitask.settings.task import Task

__all__ = [
    "KINDS",
    "Binary",
    "Classification",
    "Kind",
    "Label",
    "Regression",
    "binary_distances",
    "kind_of",
    "label_key",
    "parse_number",
]

# Not float(): that takes "1_000", "nan", "infinity" and the digits of every script.
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
# A class's index, a number, or the indices of several classes.
Label = int | float | tuple[int, ...]
FLOAT32_MAX = (2 - 2**-23) * 2.0**127  # Labels become float32; numpy's finfo would cost its import.


def parse_number(text: str) -> float | None:
    """Return the number that a cell spells in plain ASCII decimals, or None; it may overflow to infinity."""
    return float(text) if NUMBER.fullmatch(text) else None


def label_key(text: str) -> str | Decimal:
    """Return the same key for each spelling of a class: "1", "1.0" and "1e0" are one number, other text is itself."""
    return Decimal(text) if NUMBER.fullmatch(text) else text


class Kind(ABC):
    """What a kind of task decides; it has no state.

    - has_classes: labels are classes, not numbers (float32): an index (int64), unless ``many``.
    - many: a row may have any number of the classes: labels are (batch, classes), 1 where a row has the class, else 0,
      in float32; there are no class weights.
    - metrics: names of ``multitask.METRICS`` that fit beside those for all such labels; the first is the task's score.
    """

    has_classes: ClassVar[bool]
    many: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def check_labels(self, key: str, labels: Sequence[Any]) -> tuple[Any, ...]:
        """Check ``Task.labels``, and return them as the task keeps them.

        :param key: what messages call them.
        :raises ConfigError: for labels that this kind can't have.
        """

    @abstractmethod
    def read_label(self, task: "Task", text: str) -> Label:
        """Return the label that a cell spells: a class's index, or a number.

        :raises ValueError: says what the cell must be, as the middle of a sentence, "must be a number": the message
            puts the column before it and the value after it.
        """

    def names(self, task: "Task", cell: Any) -> list[str]:
        """Return the classes that a cell of training rows names, where ``labels`` does not list them.

        :raises ValueError: as read_label does.
        """
        return [cell]

    @abstractmethod
    def num_outputs(self, task: "Task") -> int:
        """Return the width of the task's head."""

    @abstractmethod
    def row_losses(self, outputs: "Tensor", labels: "Tensor") -> "Tensor":
        """Return each row's loss, (batch,).

        :param outputs: (batch, num_outputs), float32 or float64.
        :param labels: (batch,) int64 class indices, or float32 numbers.
        """

    def soft_losses(self, outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
        """Return how far each row's outputs are from a teacher's, (batch,): 0 where they are equal, never negative.

        A kind that has its own ``row_losses`` needs its own of this, too, to learn from a teacher.

        :param targets: the teacher's outputs, as ``outputs``: (batch, num_outputs), float32 or float64.
        :param temperature: divides logits, and its square multiplies their losses, so that gradients keep their size.
        """
        raise NotImplementedError

    @property
    def can_learn_outputs(self) -> bool:
        """Whether soft_losses belongs to the same class as row_losses, or a more special one."""
        order = type(self).__mro__
        owner = {name: next(c for c in order if name in vars(c)) for name in ("row_losses", "soft_losses")}
        return owner["soft_losses"] is not Kind and issubclass(owner["soft_losses"], owner["row_losses"])

    @abstractmethod
    def predict(self, outputs: "Tensor") -> "tuple[Tensor, Tensor | None]":
        """Return predicted classes or numbers (batch,), and probabilities (batch, classes) or None.

        :param outputs: (batch, num_outputs), float32.
        """

    @abstractmethod
    def spell(self, task: "Task", value: Any) -> str | float | tuple[str, ...]:
        """Return a predicted class or number as the user is told it."""


KINDS: Registry[type[Kind]] = Registry(
    "kind",
    {
        "classification": "multitask.settings.kinds:Classification",
        "binary": "multitask.settings.kinds:Binary",
        "regression": "multitask.settings.kinds:Regression",
        "multilabel": "multitask.settings.multilabel:Multilabel",
    },
)


def kind_of(key: str, name: str) -> Kind:
    """Build the kind of that name.

    :param key: what messages call it.
    :raises ConfigError: for an entry that is no kind, or lacks something of one.
    """
    entry: Any = KINDS[name]
    if not isinstance(entry, type) or not issubclass(entry, Kind):
        raise ConfigError(f"{key} {name!r} must be derived from multitask.Kind, got {shown(entry)}")
    missing = [*sorted(entry.__abstractmethods__), *(each for each in Kind.__annotations__ if not hasattr(entry, each))]
    if missing:
        raise ConfigError(f"{key} {name!r} must have {listed(missing)}, which {entry.__qualname__} lacks")
    if not isinstance(entry.metrics, tuple | list) or not entry.metrics:
        raise ConfigError(f"metrics of {key} {name!r} must name at least one metric, got {shown(entry.metrics)}")
    return entry()


def binary_distances(outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
    """Return T^2 * KL(teacher || student) of each logit's two softened probabilities, (batch, outputs), 0 at least."""
    import torch.nn.functional as F

    student, teacher = outputs / temperature, targets / temperature
    yes, no = (F.logsigmoid(sign * teacher) - F.logsigmoid(sign * student) for sign in (1, -1))
    return temperature**2 * (teacher.sigmoid() * yes + (-teacher).sigmoid() * no).clamp_min(0)  # rounding


class Classification(Kind):
    """One of several classes, by cross-entropy."""

    has_classes = True
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    def check_labels(self, key: str, labels: Sequence[Any]) -> tuple[str, ...]:
        """Check at least two classes, strings or numbers, none of them twice; see Kind."""
        names: list[str] = []
        for label in labels:
            if isinstance(label, bool) or not isinstance(label, str | int | float) or not str(label).strip():
                raise ConfigError(f"{key} must be strings or numbers, got {shown(label)}")
            names.append(str(label).strip())
        keys = [label_key(name) for name in names]
        for index, name in enumerate(names):
            if keys[index] in keys[:index]:
                first = names[keys.index(keys[index])]
                raise ConfigError(f"{key} must have each class once, got {shown(first)} and {shown(name)}")
        if len(names) < 2:
            raise ConfigError(f"{key} must be at least two classes, got {shown(names)}")
        return tuple(names)

    def read_label(self, task: "Task", text: str) -> int:
        """Return the class's index, whichever way its number is spelled; see Kind."""
        index = task.class_indices.get(label_key(text))
        if index is None:
            raise ValueError(f"must be one of the classes {listed(task.classes)}")
        return index

    def num_outputs(self, task: "Task") -> int:
        """Return the number of classes."""
        return len(task.classes)

    def row_losses(self, outputs: "Tensor", labels: "Tensor") -> "Tensor":
        """Return cross-entropies (batch,)."""
        import torch.nn.functional as F

        return F.cross_entropy(outputs, labels, reduction="none")

    def soft_losses(self, outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
        """Return T^2 * KL(teacher || student) of the softened probabilities (batch,); see Kind."""
        import torch.nn.functional as F

        student, teacher = ((logits / temperature).log_softmax(1) for logits in (outputs, targets))
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return temperature**2 * divergence.clamp_min(0)  # near 0 rounding errors can make it negative

    def predict(self, outputs: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the likeliest classes (batch,), and probabilities (batch, classes)."""
        probabilities = outputs.softmax(1)
        return probabilities.argmax(1), probabilities

    def spell(self, task: "Task", value: Any) -> str:
        """Return the class as ``task.classes`` spells it."""
        spelling: str = task.classes[value]
        return spelling


class Binary(Classification):
    """Two classes, by binary cross-entropy on one output, the logit of the second."""

    def check_labels(self, key: str, labels: Sequence[Any]) -> tuple[str, ...]:
        """Check exactly two classes; see Classification."""
        if len(labels) != 2:
            raise ConfigError(f"{key} of a binary task must be two classes, got {len(labels)}: {shown(labels)}")
        return super().check_labels(key, labels)

    def num_outputs(self, task: "Task") -> int:
        """Return 1."""
        return 1

    def row_losses(self, outputs: "Tensor", labels: "Tensor") -> "Tensor":
        """Return binary cross-entropies (batch,)."""
        import torch.nn.functional as F

        return F.binary_cross_entropy_with_logits(outputs.squeeze(1), labels.to(outputs.dtype), reduction="none")

    def soft_losses(self, outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
        """Return T^2 * KL(teacher || student) of the softened probabilities of both classes (batch,); see Kind."""
        return binary_distances(outputs, targets, temperature).squeeze(1)

    def predict(self, outputs: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the likelier classes (batch,), and probabilities (batch, 2)."""
        import torch

        positive = outputs.squeeze(1).sigmoid()
        probabilities = torch.stack([1 - positive, positive], dim=1)
        return probabilities.argmax(1), probabilities


class Regression(Kind):
    """A number, by squared error; labels are its bounds (low, high)."""

    has_classes = False
    metrics: ClassVar[tuple[str, ...]] = ("pearson",)

    def check_labels(self, key: str, labels: Sequence[Any]) -> tuple[float, float]:
        """Check two finite numbers, the first below the second; see Kind."""
        if len(labels) != 2:
            raise ConfigError(f"{key} of a regression must be the two numbers low and high, got {shown(labels)}")
        low, high = (check_number(key, bound, low=-float("inf")) for bound in labels)
        if low >= high:
            raise ConfigError(f"{key} must have low below high, got {shown(labels)}")
        return low, high

    def read_label(self, task: "Task", text: str) -> float:
        """Return the number, which must be within the task's bounds, or float32's; see Kind."""
        number = parse_number(text)
        if number is None:
            raise ValueError("must be a number")
        low, high = (float(bound) for bound in task.labels or (-FLOAT32_MAX, FLOAT32_MAX))
        if not low <= number <= high:
            raise ValueError(f"must be from {low:g} to {high:g}")
        return number

    def num_outputs(self, task: "Task") -> int:
        """Return 1."""
        return 1

    def row_losses(self, outputs: "Tensor", labels: "Tensor") -> "Tensor":
        """Return squared errors (batch,)."""
        return (outputs.squeeze(1) - labels.to(outputs.dtype)).square()

    def soft_losses(self, outputs: "Tensor", targets: "Tensor", temperature: float) -> "Tensor":
        """Return squared differences (batch,), in which the temperature has no part; see Kind."""
        return (outputs - targets).square().squeeze(1)

    def predict(self, outputs: "Tensor") -> "tuple[Tensor, None]":
        """Return the numbers (batch,) as they are, without probabilities."""
        return outputs.squeeze(1), None

    def spell(self, task: "Task", value: Any) -> float:
        """Return the number."""
        return float(value)
