"""The configuration of a run: a preset, overridden by a TOML file, overridden by single settings.

One schema everywhere (TOML, ``--set``, config.json)::

    [encoder]     the fields of tables.EncoderConfig
    [train]       the fields of tables.TrainConfig
    [tasks.NAME]  the fields of task.Task, with a table ``format`` in it: the fields of format.Format

A TOML file that has tasks names all tasks of the run. One called as a task of the preset starts from the preset's
values of it, any other from the preset's ``defaults``. With a training file of its own it leaves the preset's files and
what was tuned for them, with a kind of its own the preset's labels. TOML has no null: the word "none" unsets what may
be unset. Paths in a TOML file are relative to that file, those of ``--set`` to the working directory, and the file
names of a preset to the data folder; all are kept as absolute paths, as is a folder of weights.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from multitask.errors import ConfigError
from multitask.settings.checks import check_known, check_string, listed, shown
from multitask.settings.fields import Setting, settings_of
from multitask.settings.format import FORMAT_KEYS
from multitask.settings.presets import DEFAULT_PRESET, PRESETS, preset_for, preset_names
from multitask.settings.tables import EncoderConfig, TrainConfig, weights_beside
from multitask.settings.task import FILES, Task
from multitask.settings.toml import as_table, assignments, read_toml

__all__ = ["OPTIONS", "REQUIRED", "TABLES", "EncoderConfig", "RunConfig", "TrainConfig", "build_config", "load_tasks"]

FORMAT = "1"
TABLES: dict[str, dict[str, Setting]] = {
    "encoder": settings_of(EncoderConfig),
    "train": settings_of(TrainConfig),
    "tasks": settings_of(Task),
}
# What a task needs from its table or its preset.
REQUIRED = ("text", "label", "kind", "lr", "batch_size")
# The settings with an option of their own, by its name.
OPTIONS = {
    name: f"{section}.{name}"
    for section in ("encoder", "train")
    for name, known in TABLES[section].items()
    if known.option
}
Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides a run, as config.json in its folder keeps it.

    :param preset: the name of the settings, and of the run's folder below ``runs/`` unless another is told.
    :raises ConfigError: without a task, for two of one name, and for values of other classes.
    """

    preset: str = "own"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    tasks: Sequence[Task]
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(f"format of the configuration must be {FORMAT!r}, got {shown(self.format)}")
        if not isinstance(self.tasks, list | tuple) or not all(isinstance(task, Task) for task in self.tasks):
            raise ConfigError(f"tasks must be a list of Task, got {shown(self.tasks)}")
        for key, table in (("encoder", EncoderConfig), ("train", TrainConfig)):
            if not isinstance(getattr(self, key), table):
                raise ConfigError(f"{key} must be of class {table.__name__}, got {shown(getattr(self, key))}")
        object.__setattr__(self, "tasks", tuple(self.tasks))
        names = [task.name for task in self.tasks]
        if not names:
            raise ConfigError("tasks must hold at least one task, got none")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"tasks must have different names, got {twice[0]} twice")

    def task(self, name: str) -> Task:
        """Return the task of that name; ConfigError lists those there are."""
        check_known("task", [name], [task.name for task in self.tasks])
        return next(task for task in self.tasks if task.name == name)

    def with_data(self, folder: str | Path) -> Self:
        """Return the same run on the files of the same names in another folder.

        :raises ConfigError: where two different files have one name, since that folder can hold only one of them.
        """
        moved = []
        sources: dict[str, str] = {}
        for task in self.tasks:
            names = {key: getattr(task, key) for key in FILES}
            paths: dict[str, Any] = {
                key: os.path.join(os.path.abspath(folder), os.path.basename(path))
                for key, path in names.items()
                if path is not None
            }
            for key, path in paths.items():
                source = sources.setdefault(path, names[key])
                if os.path.abspath(source) != os.path.abspath(names[key]):
                    both = f"{source} and {names[key]}"
                    raise ConfigError(
                        f"{both} must have different names to be read from one folder, got {path} for both"
                    )
            moved.append(replace(task, **paths))
        return replace(self, tasks=tuple(moved))

    def to_dict(self) -> Table:
        """Return the nested dictionary of config.json."""
        return {
            "format": self.format,
            "preset": self.preset,
            "encoder": {key: getattr(self.encoder, key) for key in TABLES["encoder"]},
            "train": {key: getattr(self.train, key) for key in TABLES["train"]},
            "tasks": {task.name: task.to_dict() for task in self.tasks},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build what to_dict wrote.

        :raises ConfigError: for keys that are unknown or lacking, and values that are not allowed.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"a configuration must be an object, got {shown(values)}")
        keys = ("format", "preset", *TABLES)
        check_known("a key of the configuration", values, keys)
        missing = [key for key in keys if key not in values]
        if missing:
            raise ConfigError(f"the configuration must have {', '.join(keys)}, lacks {', '.join(missing)}")
        check_string("preset", values["preset"])
        tables = {section: dict(as_table(section, values[section])) for section in TABLES}
        for section in ("encoder", "train"):
            check_known(f"a key of {section}", tables[section], TABLES[section])
        check_string("encoder.weights", tables["encoder"].get("weights"))
        return cls(
            format=values["format"],
            preset=values["preset"],
            encoder=EncoderConfig(**tables["encoder"]),
            train=TrainConfig(**tables["train"]),
            tasks=tuple(
                Task.from_dict(name, as_table(f"tasks.{name}", table)) for name, table in tables["tasks"].items()
            ),
        )


def build_config(
    *,
    preset: str | None = None,
    tasks_file: str | Path | None = None,
    sets: Sequence[str] | Mapping[str, Any] = (),
    data: str | Path | None = None,
    base: RunConfig | None = None,
    **options: Any,
) -> RunConfig:
    """Build the configuration of a run from all that may be said about it.

    :param preset: None means the one that is tuned for the weights that are named, else the default.
    :param sets: ``KEY.KEY=VALUE`` each, the value written as in TOML, a bare word being a string; or values by key.
    :param data: folder of the preset's files.
    :param base: what is taken instead of a preset: the configuration of a run.
    :param options: ``weights``, ``epochs`` and whatever else OPTIONS has; shorthands of a set, None sets nothing.
    :raises ConfigError: for a setting that is unknown, not allowed, or set twice.
    """
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise TypeError(f"build_config() got an unexpected keyword argument {unknown[0]!r}")
    words, values = ((), sets) if isinstance(sets, Mapping) else (sets, {})
    told = [*values.items(), *assignments(words, {OPTIONS[name]: value for name, value in options.items()})]
    if preset is None:
        preset = preset_for(_named_weights(tasks_file, told))
    check_known("preset", [preset], preset_names())
    source = copy.deepcopy(PRESETS[preset])
    defaults, known = source["defaults"], source["tasks"]
    for task in known.values():
        if data is not None:
            task.update({key: os.path.join(data, task[key]) for key in FILES if key in task})
    result: Table = {section: source[section] for section in TABLES}
    if base is not None:
        moved = base if data is None else base.with_data(data)
        result, preset = {section: moved.to_dict()[section] for section in TABLES}, base.preset
    if tasks_file is not None:
        _overlay_file(result, Path(tasks_file), known, defaults, source.get("tuned", ()))
    given: set[str] = set()
    for key, value in told:
        if key in given:
            raise ConfigError(f"{key} must be set once, by --set or by its own option, got two values")
        given.add(key)
        _assign(result, key, value)
    try:
        for name, task in result["tasks"].items():
            missing = [key for key in REQUIRED if key not in task]
            if missing:
                raise ConfigError(
                    f"tasks.{name} must have {', '.join(REQUIRED)}, lacks {', '.join(missing)}:"
                    f" {preset} has them for {listed(known)} only"
                )
        return RunConfig.from_dict({"format": FORMAT, "preset": preset, **result})
    except ConfigError as error:
        key = str(error).partition(" ")[0].rstrip(":")
        if tasks_file is None or any(f"{each}.".startswith(f"{key}.") for each in given):
            raise  # the file is not at fault, or not alone
        raise ConfigError(f"{tasks_file}: {error}") from None


def _named_weights(tasks_file: str | Path | None, told: Sequence[tuple[str, Any]]) -> Any:
    """Return the weights that an option or else the TOML file names; None if neither does."""
    encoder = {} if tasks_file is None else read_toml(Path(tasks_file)).get("encoder", {})
    in_file = encoder.get("weights") if isinstance(encoder, Mapping) else None
    return next((value for key, value in told if key == "encoder.weights"), in_file)


def load_tasks(path: str | Path, *, preset: str = DEFAULT_PRESET) -> tuple[Task, ...]:
    """Return the tasks of a TOML file, with the preset's defaults; ConfigError if it has none."""
    config = build_config(preset=preset, tasks_file=path)
    if "tasks" not in read_toml(Path(path)):
        raise ConfigError(f"{path} must have a [tasks.NAME] table, got none")
    return tuple(config.tasks)


def _overlay_file(result: Table, path: Path, known: Table, defaults: Table, tuned: Sequence[str]) -> None:
    """Put a TOML file over a preset; see the module's docstring for whose tasks are kept."""
    tables = read_toml(path)
    check_known(f"{path}: a table", tables.keys() - {"sweep"}, TABLES)  # that is for sweep.py alone
    for section in ("encoder", "train"):
        table = dict(as_table(f"{path}: {section}", tables.get(section, {})))
        check_known(f"{path}: a key of {section}", table, TABLES[section])
        result[section] |= {key: _unset(section, key, value) for key, value in table.items()}
        if "weights" in table and isinstance(table["weights"], str):
            result[section]["weights"] = weights_beside(path.parent, table["weights"])
    if "tasks" not in tables:
        return
    result["tasks"] = {}
    for name, given in as_table(f"{path}: tasks", tables["tasks"]).items():
        table = dict(as_table(f"{path}: tasks.{name}", given))
        check_known(f"{path}: a key of tasks.{name}", table, TABLES["tasks"])
        table = {key: _unset("tasks", key, value) for key, value in table.items()}
        table |= {key: path.parent / table[key] for key in FILES if isinstance(table.get(key), str) and table[key]}
        start = known[name] if name in known else _own(defaults, name)
        if "train" in table:
            start = start | {key: defaults[key] for key in tuned}
        result["tasks"][name] = _kept(start, table) | table


def _kept(start: Table, table: Table) -> Table:
    """Return the preset's values that a table leaves in force: with other rows or labels some would be wrong."""
    dropped: tuple[str, ...] = ("dev", "test") if "train" in table else ()
    if table.get("kind", start.get("kind")) != start.get("kind"):
        dropped += ("labels", "class_weights")
    return {key: value for key, value in start.items() if key not in dropped}


def _own(defaults: Table, name: str) -> Table:
    """Return the defaults for a user's task, "{name}" standing for an encoder of its own."""
    return defaults | {"encoder": defaults["encoder"].format(name=name)}


def _unset(section: str, key: str, value: Any) -> Any:
    return None if value == "none" and TABLES[section][key].optional else value


def _assign(result: Table, key: str, value: Any) -> None:
    parts = key.split(".")
    check_known("--set: the section", parts[:1], TABLES)
    section, table = parts[0], result[parts[0]]
    known = TABLES[section]
    if section == "tasks" and parts[2:3] == ["format"] and len(parts) == 4:
        check_known("--set: the task", [parts[1]], tuple(table))
        check_known(f"--set: a key of {'.'.join(parts[:-1])}", parts[3:], FORMAT_KEYS)
        before = as_table(".".join(parts[:-1]), table[parts[1]].get("format", {}))
        table[parts[1]]["format"] = {**before, parts[3]: value}
        return
    if len(parts) != (3 if section == "tasks" else 2):
        form = f"{section}.NAME.KEY" if section == "tasks" else f"{section}.KEY"
        raise ConfigError(f"--set: the key must be {form}, with KEY one of {listed(known)}, got {shown(key)}")
    if section == "tasks":
        check_known("--set: the task", [parts[1]], tuple(table))
        table = table[parts[1]]
    check_known(f"--set: a key of {'.'.join(parts[:-1])}", parts[-1:], known)
    table[parts[-1]] = _unset(section, parts[-1], value)
