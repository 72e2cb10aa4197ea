"""Sweeps: the table ``[sweep]`` of a TOML file, which trains the file's settings with changes, for several seeds.

::

    [sweep]
    seeds = [1, 2, 3]
    preset = "minilm"                # may be left out, as for train

    [sweep.settings.baseline]        # the first is what the others are compared with

    [sweep.settings.low]
    "train.epochs" = 2               # keys as --set takes them, values as TOML has them
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from multitask.errors import ConfigError
from multitask.settings.checks import check_integer, check_known, shown
from multitask.settings.config import RunConfig, build_config
from multitask.settings.presets import preset_names
from multitask.settings.tables import weights_beside
from multitask.settings.task import FILES
from multitask.settings.task_checks import check_name
from multitask.settings.toml import as_table, read_toml

__all__ = ["Sweep", "read_sweep"]

KEYS = ("seeds", "preset", "settings")


@dataclass(frozen=True)
class Sweep:
    """What a sweep trains.

    :param settings: by name.
    :param own_tasks: whether the file has tasks; else they are the preset's.
    """

    path: Path
    seeds: tuple[int, ...]
    settings: Mapping[str, RunConfig]
    own_tasks: bool

    def runs(self) -> Iterator[tuple[str, RunConfig]]:
        """Yield each run's folder, NAME-SEED, and its settings: those of a first seed before those of the next."""
        for seed in self.seeds:
            for name, config in self.settings.items():
                yield f"{name}-{seed}", replace(config, train=replace(config.train, seed=seed))


def read_sweep(path: str | Path, *, data: str | Path | None = None) -> Sweep:
    """Read a sweep, and build the configuration of each of its settings.

    :param data: folder of the preset's files.
    :raises ConfigError: naming file and key, for what is unknown or not allowed.
    """
    path = Path(path)
    tables = read_toml(path)
    if "sweep" not in tables:
        raise ConfigError(f"{path} must have a table [sweep], got none")
    table = as_table(f"{path}: sweep", tables["sweep"])
    check_known(f"{path}: a key of sweep", table, KEYS)
    settings = as_table(f"{path}: sweep.settings", table.get("settings", {}))
    if not settings:
        raise ConfigError(f"{path}: sweep.settings must have a table, such as [sweep.settings.baseline], got none")
    if (preset := table.get("preset")) is not None:
        check_known(f"{path}: sweep.preset", [preset], preset_names())
    seeds, built = _seeds(f"{path}: sweep.seeds", table.get("seeds")), {}
    for name, given in settings.items():
        key = f"{path}: sweep.settings.{check_name(f'{path}: a name in sweep.settings', name)}"
        changes = _changes(key, as_table(key, given), path.parent)
        try:
            built[name] = build_config(preset=preset, tasks_file=path, sets=changes, data=data)
        except ConfigError as error:
            said = str(error).removeprefix("--set: ")
            raise ConfigError(said if said.startswith(f"{path}: ") else f"{key}: {said}") from None
    return Sweep(path, seeds, built, own_tasks="tasks" in tables)


def _seeds(key: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{key} must be a list of seeds, such as [1, 2, 3], got {shown(value)}")
    seeds = tuple(check_integer(key, seed, high=2**63 - 1) for seed in value)
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise ConfigError(f"{key} must have each seed once, got {twice} twice")
    return seeds


def _changes(key: str, given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a setting changes, by the keys of ``--set``; paths are relative to ``folder``, as in the file."""
    changes: dict[str, Any] = {}
    for name, value in _flat(given):
        if name == "train.seed":
            raise ConfigError(f"{key}: train.seed must be left to sweep.seeds, got {shown(value)}")
        if name in changes:
            raise ConfigError(f"{key}: {name} must be set once, got two values")
        parts = name.split(".")
        if isinstance(value, str) and parts[0] == "tasks" and parts[-1] in FILES and value != "none":
            value = os.path.join(folder, value)
        elif isinstance(value, str) and name == "encoder.weights":
            value = weights_beside(folder, value)
        changes[name] = value
    return changes


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys with dots and values: ``"train.epochs" = 2`` and ``train.epochs = 2`` are the same."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
