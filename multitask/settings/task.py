"""A task: which columns of which files, what kind of label, which decoder, how it is trained.

Tasks are data. A new one is a table in a TOML file (see config.py) or a ``Task(...)`` in Python, and no line
of code elsewhere. Choices that the published report leaves open are marked *our choice*.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, Self

from multitask.errors import ConfigError
from multitask.settings.checks import (
    check_choice,
    check_integer,
    check_known,
    check_number,
    check_string,
    shown,
)

__all__ = ["HEADS", "INPUTS", "KINDS", "POOLINGS", "REDUCTIONS", "Task", "label_key", "parse_number"]

KINDS = ("classification", "binary", "regression")
INPUTS = ("joint", "separate")
POOLINGS = ("attention", "pooler", "cls", "mean", "max")
HEADS = ("linear", "cosine")
REDUCTIONS = ("mean", "sum")

# Names become keys of state dictionaries, of TOML and of --set: a dot would cut them in two.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# Not float(): that takes "1_000", "nan", "infinity" and the digits of every script.
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def parse_number(text: str) -> float | None:
    """The number that a cell spells in plain ASCII decimals, or None; it may overflow to infinity."""
    return float(text) if NUMBER.fullmatch(text) else None


def label_key(text: str) -> str | Decimal:
    """The same for each spelling of a class: "1", "1.0" and "1e0" are one number, other text is itself."""
    return Decimal(text) if NUMBER.fullmatch(text) else text


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a run, checked on construction; ConfigError names the key, the value and what is allowed.

    name: letters, digits, "_" and "-". text: the column of the text, or the two columns of a pair.
    label: the column of the label. id: the column of the row's id; rows of a file without "id" are numbered.
    kind: "classification" (cross-entropy), "binary" (binary cross-entropy on one output) or "regression"
        (squared error).
    labels: the classes in the order of their indices, each as predictions are to spell it (None: taken from
        the training file, sorted); binary has two, the second being the positive one. For regression the
        allowed (low, high), or None.
    input: "joint" ([CLS] a [SEP] b [SEP]) or "separate" (two encodings); says nothing for a single text.
    pooling: what of the encoder's output reaches the head.
    head: "linear", or "cosine" for pairs with separate input and a regression, whose prediction is
        low + (high - low) / 2 * (1 + cos), which is 2.5 (1 + cos) for STS.
    dropout: of the decoder, in [0, 1); the encoder has its own.
    reduction: "mean" over the rows of the batch (our choice: one learning rate then fits any batch size) or
        "sum" as equation 3 of the report has it.
    loss_weight: multiplies that. class_weights: one factor per class.
    lr, weight_decay: of this task's optimizer. decoder_lr: another rate for the decoder (None: lr).
    batch_size: rows of this task in each round. sample_size: rows drawn each epoch (None: as many as the
        rounds take).
    encoder: the encoder's name; tasks that name the same one share it.
    train, dev, test: files. Without dev a seeded, stratified tenth of train is held out.
    """

    name: str
    text: tuple[str, ...]
    label: str
    id: str | None = "id"
    kind: str = "classification"
    labels: tuple[str, ...] | tuple[float, float] | None = None
    input: str = "joint"
    pooling: str = "attention"
    head: str = "linear"
    dropout: float = 0.3
    reduction: str = "mean"
    loss_weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    lr: float = 5e-5
    decoder_lr: float | None = None
    weight_decay: float = 0.0
    batch_size: int = 32
    sample_size: int | None = None
    encoder: str = "shared"
    train: str | None = None
    dev: str | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ConfigError(
                f"a task's name must be letters, digits, '_' and '-', a letter first, not {shown(self.name)}"
            )
        self._check_columns()
        for key, choices in (
            ("kind", KINDS),
            ("input", INPUTS),
            ("pooling", POOLINGS),
            ("head", HEADS),
            ("reduction", REDUCTIONS),
        ):
            check_choice(self._key(key), getattr(self, key), choices)
        self._check_labels()
        self._check_numbers()
        if not isinstance(self.encoder, str) or not NAME.fullmatch(self.encoder):
            raise ConfigError(f"{self._key('encoder')} must be letters, digits, '_' and '-', not {shown(self.encoder)}")
        for key in ("train", "dev", "test"):
            if getattr(self, key) is not None:
                # A Path is welcome from Python; config.json holds texts.
                path = getattr(self, key)
                self._set(key, check_string(self._key(key), str(path) if hasattr(path, "__fspath__") else path))
        self._check_cosine()

    def _key(self, field: str) -> str:
        return f"tasks.{self.name}.{field}"

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)  # Frozen for users; construction itself may still tidy up.

    def _check_columns(self) -> None:
        # Typed as a tuple, but TOML and users also give a single name or a list.
        given: Any = self.text
        text = (given,) if isinstance(given, str) else given
        if (
            not isinstance(text, tuple | list)
            or len(text) not in (1, 2)
            or not all(isinstance(column, str) and column for column in text)
        ):
            raise ConfigError(f"{self._key('text')} must name one column or two, not {shown(self.text)}")
        self._set("text", tuple(text))
        check_string(self._key("label"), self.label)
        if self.id is not None:
            check_string(self._key("id"), self.id)
        columns = [*self.text, self.label, *([self.id] if self.id is not None else [])]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise ConfigError(
                f"tasks.{self.name} uses the column {shown(twice[0])} twice: text, label and id are apart"
            )

    def _check_labels(self) -> None:
        key, labels = self._key("labels"), self.labels
        if labels is None:
            return
        if not isinstance(labels, tuple | list):
            raise ConfigError(f"{key} must be a list, not {shown(labels)}")
        if self.kind == "regression":
            if len(labels) != 2:
                raise ConfigError(f"{key} of a regression must be the two numbers low and high, not {shown(labels)}")
            low, high = (check_number(key, bound, low=-float("inf")) for bound in labels)
            if low >= high:
                raise ConfigError(f"{key} must have its low below its high, not {shown(labels)}")
            self._set("labels", (low, high))
            return
        names: list[str] = []
        for label in labels:
            if isinstance(label, bool) or not isinstance(label, str | int | float) or not str(label).strip():
                raise ConfigError(f"{key} must hold texts or numbers, not {shown(label)}")
            names.append(str(label).strip())
        keys = [label_key(name) for name in names]
        for index, name in enumerate(names):
            if keys[index] in keys[:index]:
                first = names[keys.index(keys[index])]
                raise ConfigError(f"{key} holds one class twice: {shown(first)} and {shown(name)}")
        if self.kind == "binary" and len(names) != 2:
            raise ConfigError(f"{key} of a binary task must be two classes, not {len(names)}: {shown(names)}")
        if len(names) < 2:
            raise ConfigError(f"{key} must be at least two classes, not {shown(names)}")
        self._set("labels", tuple(names))

    def _check_numbers(self) -> None:
        self._set("dropout", check_number(self._key("dropout"), self.dropout, high=1.0, open_high=True))
        for key in ("lr", "weight_decay", "loss_weight"):
            self._set(key, check_number(self._key(key), getattr(self, key)))
        if self.decoder_lr is not None:
            self._set("decoder_lr", check_number(self._key("decoder_lr"), self.decoder_lr))
        check_integer(self._key("batch_size"), self.batch_size, low=1)
        if self.sample_size is not None:
            check_integer(self._key("sample_size"), self.sample_size, low=1)
            if self.sample_size < self.batch_size:
                raise ConfigError(
                    f"{self._key('sample_size')} must be at least its batch_size {self.batch_size}, "
                    f"not {self.sample_size}"
                )
        if self.class_weights is None:
            return
        key = self._key("class_weights")
        if self.kind == "regression":
            raise ConfigError(f"{key} has no meaning for a regression: leave it out")
        if not isinstance(self.class_weights, tuple | list):
            raise ConfigError(f"{key} must be a list of numbers, not {shown(self.class_weights)}")
        weights = tuple(check_number(key, weight) for weight in self.class_weights)
        if self.labels is not None and len(weights) != len(self.labels):
            raise ConfigError(
                f"{key} must be one number for each of the {len(self.labels)} classes, not {len(weights)}"
            )
        if not any(weights):
            raise ConfigError(f"{key} must not all be zero")
        self._set("class_weights", weights)

    def _check_cosine(self) -> None:
        if self.head != "cosine":
            return
        key = self._key("head")
        if not self.is_pair or self.input != "separate":
            raise ConfigError(
                f"{key} = 'cosine' compares two encodings: it needs two text columns and input = 'separate'"
            )
        if self.kind != "regression" or self.labels is None:
            raise ConfigError(
                f"{key} = 'cosine' predicts a number between two bounds: it needs a regression with labels"
            )

    @property
    def is_pair(self) -> bool:
        """Whether a row has two texts."""
        return len(self.text) == 2

    @property
    def num_outputs(self) -> int:
        """Width of the head: the number of classes, or 1; ConfigError before the labels are known."""
        return len(self.classes) if self.kind == "classification" else 1

    @property
    def metric(self) -> Literal["accuracy", "pearson"]:
        """What the task is scored by."""
        return "pearson" if self.kind == "regression" else "accuracy"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes as predictions spell them, in the order of their indices; () for a regression."""
        if self.kind == "regression":
            return ()
        if self.labels is None:
            raise ConfigError(f"{self._key('labels')} is not known yet: set it, or take it from the training file")
        return tuple(str(label) for label in self.labels)

    @cached_property
    def class_indices(self) -> dict[str | Decimal, int]:
        """From ``label_key(spelling)`` to the class's index."""
        return {label_key(name): index for index, name in enumerate(self.classes)}

    def to_dict(self) -> dict[str, Any]:
        """All settings but the name, as JSON has them: the table ``tasks.NAME`` of config.json."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> Self:
        """The task of a table ``tasks.NAME``; what the table leaves out takes this class's default."""
        check_known(f"key in tasks.{name}", values, TASK_KEYS)
        missing = [key for key in ("text", "label") if key not in values]
        if missing:
            raise ConfigError(f"tasks.{name} lacks {' and '.join(missing)}")
        return cls(name=name, **values)


TASK_KEYS = tuple(field.name for field in fields(Task) if field.name != "name")
