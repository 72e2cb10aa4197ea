"""A task: which columns of which files, what kind of label, which decoder, how it is trained.

Tasks are data. A new one is a table in a TOML file (see config.py) or a ``Task(...)`` in Python, and no line
of code elsewhere. Choices that the published report leaves open are marked *our choice*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from multitask.errors import ConfigError
from multitask.settings.checks import OWN_PART, check_integer, check_known, check_number, check_string, listed, shown
from multitask.settings.choices import HEADS, METRICS, POOLINGS
from multitask.settings.fields import check_settings, setting, settings_of
from multitask.settings.format import Format, check_format
from multitask.settings.kinds import KINDS, Kind, kind_of, label_key
from multitask.settings.task_checks import (
    check_column,
    check_columns,
    check_count,
    check_list,
    check_name,
    check_path,
    check_rate,
    check_weights,
    check_words,
)

__all__ = ["FILES", "INPUTS", "TASK_KEYS", "Task"]

FILES = ("train", "dev", "test")
INPUTS = {"joint": 1, "separate": 2, "both": 3}  # the texts that a pair is encoded as


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task of a run, checked on construction; docs/settings.md says what each setting is.

    Sequences are kept as tuples, paths as absolute ones. What is left out is as in a TOML file with the default preset.

    :param name: letters, digits, "_" and "-".
    :raises ConfigError: for a value that is not allowed, with its key and what is.
    """

    name: str
    text: str | Sequence[str] = setting(
        "column of the text, or the two columns of a pair; numbers count columns from 1 in a file without a header",
        check_columns,
    )
    label: str = setting("column of the label", check_column)
    id: str | None = setting(
        "column of the row's id; rows of a file without it are numbered", check_column, default="id"
    )
    kind: str = setting(
        "cross-entropy, binary cross-entropy on one output, squared error, or for any number of labels a row binary"
        " cross-entropy on each",
        choices=KINDS,
        default="classification",
    )
    labels: Sequence[str | float] | None = setting(
        "the classes in the order of their indices, each as predictions spell it, of two the second being the positive"
        " one (unset: those of the training file, sorted); for a regression the allowed low and high",
        check_list,
        default=None,
    )
    label_separator: str | None = setting(
        "what stands between the labels of a cell of a multilabel task, such as `;`; unset: cells are JSON lists",
        check_string,
        default=None,
    )
    missing: Sequence[str] | None = setting(
        "words for a missing text; unset: `None`, `NA`, `null` ..., but none that is 5 % of the training rows, and 5",
        check_words,
        default=None,
    )
    threshold: float | None = setting(
        "probability from which a multilabel task predicts a label; unset: the best of the dev rows by micro F1, or .5",
        check_rate,
        default=None,
    )
    input: str | None = setting(
        "pairs as `[CLS] a [SEP] b [SEP]`, as two encodings, or as both, which the linear head compares;"
        " unset: both for the linear head, joint for any other",
        choices=INPUTS,
        default=None,
    )
    long: str = setting(
        "what is read of a text with more tokens than the encoder has positions: its beginning; a quarter from the"
        " beginning, the rest from the end; or all, in windows that overlap by half, whose outputs are averaged",
        choices=("head", "head-tail", "windows"),
        default="head",
    )
    windows: int = setting('most windows of a text with `long = "windows"`; the rest is cut', check_count, default=8)
    pooling: str | None = setting(
        "what the head sees of the encoder; unset: attention, or mean without a pooler", choices=POOLINGS, default=None
    )
    head: str = setting(
        "cosine is for pairs with separate input and a regression: `low + (high - low) / 2 * (1 + cos)`, which is"
        " `2.5 * (1 + cos)` for STS",
        choices=HEADS,
        default="linear",
    )
    start: str = setting(
        "of the decoder: from a linear probe on the encoder as it comes, if its head is linear; or from random weights",
        choices=("probe", "random"),
        default="probe",
    )
    metric: str | None = setting(
        "what the task is scored by, one that fits its kind; `f1` is of the positive class, `f1:LABEL` of another;"
        " unset: `accuracy`, for a regression `pearson`, for a multilabel task `micro_f1`",
        check_string,
        choices=METRICS,
        default=None,
    )
    dropout: float = setting("rate in the decoder, in [0, 1); the encoder has its own", check_rate, default=0.3)
    # Our choice: with the mean one learning rate fits any batch size.
    reduction: str = setting(
        "the loss over a batch's rows; sum is the report's equation 3", choices=("mean", "sum"), default="mean"
    )
    loss_weight: float = setting("factor of the loss", check_number, default=1.0)
    class_weights: Sequence[float] | None = setting("one factor per class", check_weights, default=None)
    lr: float = setting("learning rate", check_number, default=5e-5)
    decoder_lr: float | None = setting("another learning rate for the decoder; unset: `lr`", check_number, default=None)
    weight_decay: float = setting(
        "of weights, not of biases and norms; AdamW's is decoupled, sgd's is added to the gradient",
        check_number,
        default=0.0,
    )
    batch_size: int | None = setting(
        "rows in each round; unset: 32, or of few rows a quarter, but four at least", check_count, default=None
    )
    sample_size: int | None = setting(
        "rows drawn each epoch; unset: as many as the rounds take", check_count, default=None
    )
    encoder: str = setting("the encoder's name; tasks that name the same one share it", check_name, default="shared")
    train: str | Path | None = setting("file of the training rows", check_path, default=None)
    dev: str | Path | None = setting(
        "file of the dev rows; unset: a seeded, stratified tenth of `train`, see `hold_out`", check_path, default=None
    )
    test: str | Path | None = setting("file of the test rows", check_path, default=None)
    group: str | Sequence[str] | None = setting(
        "column whose equal cells keep rows on one side where dev is held out of `train`, such as a user's id; for"
        " pairs also two, such as the ids of both questions, which are compared with each other",
        check_columns,
        default=None,
    )
    format: Format = setting(
        "how all these files are written, where looking at them is not enough: a table, see below",
        check_format,
        default=Format(),
    )

    def __post_init__(self) -> None:
        check_name("a task's name", self.name)
        if self.name in ("auto", "last", "mean"):
            raise ConfigError(f"a task's name must not be {self.name!r}, a word of --select")
        check_settings(self, f"tasks.{self.name}")
        columns = [*self.text, self.label, *([self.id] if self.id is not None else [])]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise ConfigError(
                f"tasks.{self.name}: text, label and id must be different columns, got {shown(twice[0])} twice"
            )
        if self.long == "windows" and self.is_pair:
            raise ConfigError(
                f"{self._key('long')} must be 'head' or 'head-tail' for a pair, since any window of one text would have"
                " to be read with any of the other, got 'windows'"
            )
        if self.group is not None and (len(self.group) > len(self.text) or self.label in self.group):
            raise ConfigError(
                f"{self._key('group')} must be one column, or two for a pair, and not the label's,"
                f" got {shown(list(self.group))}"
            )
        if self.labels is not None:
            labels = self.rules.check_labels(self._key("labels"), self.labels)
            object.__setattr__(self, "labels", labels)
        sample, batch = self.sample_size, self.batch_size
        if sample is not None and batch is not None and sample < batch:
            raise ConfigError(f"{self._key('sample_size')} must be at least its batch_size {batch}, got {sample}")
        for field in ("label_separator", "threshold"):
            if getattr(self, field) is not None and not self.rules.many:
                raise ConfigError(
                    f"{self._key(field)} must be left out for a {self.kind}, got {shown(getattr(self, field))}"
                )
        self._check_class_weights()
        self._check_cosine()
        self.check_metric(self._key("metric"), self.scored_by)

    def _key(self, field: str) -> str:
        return f"tasks.{self.name}.{field}"

    def _check_class_weights(self) -> None:
        key = self._key("class_weights")
        if self.class_weights is None:
            return
        if not self.rules.has_classes or self.rules.many:
            raise ConfigError(f"{key} must be left out for a {self.kind}, got {shown(self.class_weights)}")
        if self.labels is not None and len(self.class_weights) != len(self.labels):
            raise ConfigError(
                f"{key} must be one number for each of the {len(self.labels)} classes, got {len(self.class_weights)}"
            )

    def _check_cosine(self) -> None:
        if self.head != "cosine":
            return
        key = self._key("head")
        if not self.is_pair or self.input != "separate":
            raise ConfigError(
                f"{key} = 'cosine' must have two text columns and input = 'separate',"
                f" got {len(self.text)} and {self.input!r}"
            )
        if self.rules.has_classes or self.labels is None:
            raise ConfigError(
                f"{key} = 'cosine' must have a regression with labels, its two bounds,"
                f" got a {self.kind} with labels {shown(self.labels)}"
            )

    def check_metric(self, key: str, metric: str) -> None:
        """Check that the task can be scored by a metric.

        :param key: what messages call it.
        :raises ConfigError: naming those that fit.
        """
        name, colon, label = metric.partition(":")
        labels = "sets" if self.rules.many else "classes" if self.rules.has_classes else "numbers"
        own = filter(METRICS.__contains__, self.rules.metrics)
        fitting = list(dict.fromkeys([*METRICS.fitting(labels), *own]))
        if name not in fitting or (colon and name != "f1"):
            names = listed("f1, f1:LABEL" if each == "f1" else each for each in fitting)
            hint = "" if name in METRICS else OWN_PART
            raise ConfigError(f"{key} of a {self.kind} must be one of {names}, got {shown(metric)}{hint}")
        if name != "f1" or self.labels is None:
            return
        if colon and label_key(label) not in self.class_indices:
            raise ConfigError(f"{key} must be f1: and one of the classes {listed(self.classes)}, got {shown(metric)}")
        if not colon and len(self.classes) != 2:
            raise ConfigError(f"{key} of more than two classes must be f1:LABEL, got {shown(metric)}")

    @cached_property
    def rules(self) -> Kind:
        """What the task's kind decides: loss, labels, metrics, width of the head, spelling of predictions."""
        return kind_of(self._key("kind"), self.kind)

    @property
    def is_pair(self) -> bool:
        """Whether a row has two texts."""
        return len(self.text) == 2

    @property
    def encodings(self) -> int:
        """How many texts a row is encoded as: 1, or of pairs INPUTS' number."""
        return INPUTS[self.input or ("both" if self.head == "linear" else "joint")] if self.is_pair else 1

    @property
    def num_outputs(self) -> int:
        """Width of the head; ConfigError where it follows from labels that are not known yet."""
        return check_integer(f"num_outputs of {self._key('kind')} {self.kind!r}", self.rules.num_outputs(self), low=1)

    @property
    def scored_by(self) -> str:
        """The metric in force: ``metric``, or the kind's first."""
        return self.metric or self.rules.metrics[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes as predictions spell them, in the order of their indices; () for a regression."""
        if not self.rules.has_classes:
            return ()
        if self.labels is None:
            raise ConfigError(f"{self._key('labels')} must be set, or taken from the training file, got None")
        return tuple(str(label) for label in self.labels)

    @cached_property
    def class_indices(self) -> dict[str | Decimal, int]:
        """From ``label_key(spelling)`` to the class's index."""
        return {label_key(name): index for index, name in enumerate(self.classes)}

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as JSON has them: the table ``tasks.NAME`` of config.json."""
        values = {key: getattr(self, key) for key in TASK_KEYS}
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        return {**lists, "format": self.format.to_dict()}

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> Self:
        """Build the task of a table ``tasks.NAME``; what the table leaves out takes this class's default.

        :raises ConfigError: for keys that are unknown or lacking, and as the class itself.
        """
        check_known(f"a key of tasks.{name}", values, TASK_KEYS)
        missing = [key for key in ("text", "label") if key not in values]
        if missing:
            raise ConfigError(f"tasks.{name} must have text and label, lacks {' and '.join(missing)}")
        return cls(name=name, **values)


TASK_KEYS = tuple(settings_of(Task))
