"""The names that settings choose from, each list in one place and known without importing torch.

A part of one's own is entered by a decorator, such as ``@POOLINGS.register("first-last")``, in a file that ``--plugin``
names or Python imports; the built-in ones are entered the same way, or by the module that defines them.
"""

import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from multitask.errors import ConfigError
from multitask.settings.checks import shown

__all__ = [
    "DEFAULT_POOLING",
    "HEADS",
    "METRICS",
    "OPTIMIZERS",
    "POOLINGS",
    "POOLING_WITHOUT_POOLER",
    "SAMPLERS",
    "SCHEDULES",
    "UPDATES",
    "MetricRegistry",
    "Origin",
    "Registry",
]

T = TypeVar("T")
Entry = TypeVar("Entry")
# As tasks are named: the names end up in TOML, --set and JSON.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
NOTEBOOK = "<notebook>"
# What metrics compare: a class of each row, a number, or any number of classes.
LABELS = ("classes", "numbers", "sets")


@dataclass(frozen=True)
class Origin:
    """Where an entry that is not built in was registered.

    :param file: the real path of the file, or "<notebook>" for what was typed in.
    :param sha256: of the file as it was then, or of the notebook's cell; None where Python does not know its text.
    :param qualname: what the entry is called in there.
    """

    file: str
    sha256: str | None
    qualname: str

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return Path(self.file).name


class Registry(Mapping[str, T], Generic[T]):
    """What a setting chooses from, by name; iterating gives the names and imports nothing.

    :param what: what an entry is called in messages.
    :param homes: built-in entries that need torch, as "module:attribute" by name; each is imported on first use.
    """

    def __init__(self, what: str, homes: Mapping[str, str] | None = None) -> None:
        self.what, self._homes = what, dict(homes or {})
        self._entries: dict[str, T] = {}
        self._origins: dict[str, Origin] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that enters what it decorates under ``name``.

        The same name from the same place (a file imported twice, a notebook's cell run again) replaces what it had.

        :param name: letters, digits, "_" and "-", a letter first.
        :raises ConfigError: for another name, or one that is built in or of another file.
        """
        return self._entering(name, sys._getframe(1))

    def _entering(self, name: str, caller: FrameType) -> Callable[[Any], Any]:
        def enter(entry: Any) -> Any:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise ConfigError(
                    f"the name of a new {self.what} must be letters, digits, '_' and '-', a letter first,"
                    f" got {shown(name)}"
                )
            if not callable(entry):
                raise ConfigError(f"a new {self.what} must be a class or a function, got {shown(entry)}")
            origin = _origin(entry, caller)
            if name in self and not _replaces(self._origins.get(name), origin):
                there = self._origins.get(name)
                whose = "which is built in" if there is None else f"which {there.name} has: {there.qualname}"
                raise ConfigError(f"the name of a new {self.what} must not be taken, got {shown(name)}, {whose}")
            self._entries[name] = entry
            if origin is not None:
                self._origins[name] = origin
            return entry

        return enter

    def origin(self, name: str) -> Origin | None:
        """Return where an entry was registered; None for a built-in one."""
        return self._origins.get(name)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            module, _, attribute = self._homes[name].partition(":")
            self._entries[name] = getattr(import_module(module), attribute)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._homes or name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter({**self._homes, **self._entries})

    def __len__(self) -> int:
        return len({**self._homes, **self._entries})


def _origin(entry: object, caller: FrameType) -> Origin | None:
    """Describe where an entry is registered: by a module of this package it is built in."""
    module = caller.f_globals
    if module.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]:
        return None
    qualname = getattr(entry, "__qualname__", type(entry).__qualname__)  # of a partial: its repr has an address
    file = module.get("__file__")
    if file is not None and Path(file).is_file():
        path = Path(file).resolve()
        return Origin(str(path), sha256(path.read_bytes()).hexdigest(), qualname)
    lines = linecache.getlines(caller.f_code.co_filename)
    return Origin(NOTEBOOK, sha256("".join(lines).encode()).hexdigest() if lines else None, qualname)


def _replaces(old: Origin | None, new: Origin | None) -> bool:
    """Return whether a name may be given anew: in its own file, but not to two things in one state of the file."""
    if old is None or new is None or old.file != new.file:
        return False
    return old.qualname == new.qualname or old.sha256 != new.sha256


class MetricRegistry(Registry[Any]):
    """The metrics; of each also which labels it is for, and whether more of it is better.

    ``f1:LABEL`` is ``f1`` of one class, and has no entry of its own.

    :param classes: homes of those that compare classes, ``numbers`` of those that compare numbers, ``sets`` of those
        that compare rows with any number of classes.
    :param lower: names of those of which less is better.
    """

    def __init__(
        self,
        what: str,
        *,
        classes: Mapping[str, str],
        numbers: Mapping[str, str],
        sets: Mapping[str, str],
        lower: set[str],
    ) -> None:
        super().__init__(what, {**classes, **numbers, **sets})
        self._lower = set(lower)
        self._labels = {
            name: labels for labels, homes in zip(LABELS, (classes, numbers, sets), strict=True) for name in homes
        }

    def register(
        self, name: str, *, greater_is_better: bool = True, labels: str | None = None
    ) -> Callable[[Entry], Entry]:
        """Return a decorator that enters a function (predictions, labels) -> float; see Registry.register.

        :param greater_is_better: False for an error.
        :param labels: "classes", "numbers" or "sets" (of classes) if it is for tasks with such labels alone.
        """
        if labels not in (None, *LABELS):
            raise ConfigError(f"labels of the metric {name} must be one of {', '.join(LABELS)}, got {shown(labels)}")
        entering = self._entering(name, sys._getframe(1))

        def enter(metric: Entry) -> Entry:
            entering(metric)
            (self._lower.discard if greater_is_better else self._lower.add)(name)
            self._labels.pop(name, None)
            if labels is not None:
                self._labels[name] = labels
            return metric

        return enter

    def greater_is_better(self, name: str) -> bool:
        """Return whether more of a metric is better; ``name`` may be ``f1:LABEL``."""
        return name.partition(":")[0] not in self._lower

    def fitting(self, labels: str) -> list[str]:
        """Return the names of the metrics for labels that are classes, numbers or sets."""
        return [name for name in self if self._labels.get(name, labels) == labels]


POOLINGS: Registry[Any] = Registry(
    "pooling",
    {
        "attention": "multitask.model.poolings:AttentionPooling",
        "pooler": "multitask.model.poolings:PoolerPooling",
        "cls": "multitask.model.poolings:ClsPooling",
        "mean": "multitask.model.poolings:MeanPooling",
        "max": "multitask.model.poolings:MaxPooling",
    },
)
# Where a task names none: of an encoder with a pooler, whose output asks the tokens, and of one without.
DEFAULT_POOLING, POOLING_WITHOUT_POOLER = "attention", "mean"
HEADS: Registry[Any] = Registry(
    "head", {"linear": "multitask.model.heads:LinearHead", "cosine": "multitask.model.heads:CosineHead"}
)
UPDATES: Registry[Any] = Registry(
    "update",
    {
        "separate": "multitask.updates.separate:SeparateUpdate",
        "combined": "multitask.updates.combined:CombinedUpdate",
        "pcgrad": "multitask.updates.pcgrad:pcgrad",
        "uncertainty": "multitask.updates.uncertainty:Uncertainty",
        "famo": "multitask.updates.famo:Famo",
        "upgrad": "multitask.updates.upgrad:upgrad",
    },
)
OPTIMIZERS: Registry[Any] = Registry(
    "optimizer",
    {
        "adamw": "multitask.updates.optimizers:adamw",
        "torch-adamw": "multitask.updates.optimizers:torch_adamw",
        "sgd": "multitask.updates.optimizers:sgd",
    },
)
SAMPLERS: Registry[Any] = Registry("sampler", {"rounds": "multitask.data.sampling:RoundSampler"})
SCHEDULES: Registry[Any] = Registry(
    "schedule",
    {
        "constant": "minbert.optim:constant_schedule",
        "linear": "minbert.optim:linear_schedule",
        "cosine": "minbert.optim:cosine_schedule",
    },
)
METRICS = MetricRegistry(
    "metric",
    classes={
        "accuracy": "multitask.metrics:accuracy",
        "macro_f1": "multitask.metrics:macro_f1",
        "mcc": "multitask.metrics:mcc",
        "f1": "multitask.metrics:f1",
    },
    numbers={
        "pearson": "multitask.metrics:pearson",
        "spearman": "multitask.metrics:spearman",
        "mae": "multitask.metrics:mae",
    },
    sets={"micro_f1": "multitask.metrics:micro_f1"},
    lower={"mae"},
)
