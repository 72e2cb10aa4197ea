"""What train is told, checked before anything is read or written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multitask.errors import ConfigError, RunError
from multitask.evaluation import Selection
from multitask.settings.checks import shown
from multitask.settings.config import EncoderConfig, RunConfig, TrainConfig
from multitask.settings.task import FILES, Task

__all__ = ["config_of", "make_folder", "open_folder", "refuse_run_as_weights", "with_given"]


def config_of(
    config: RunConfig | None,
    tasks: Sequence[Task] | None,
    weights: str | Path | EncoderConfig | None,
    settings: TrainConfig | None,
    base: RunConfig | None = None,
    **shorthands: Any,
) -> RunConfig:
    """Return the configuration that train was given as one, as tasks and settings, or as that of another run.

    :param base: of the run to begin from, where neither a configuration nor tasks are given.
    :param shorthands: settings of TrainConfig; None sets nothing.
    :raises ConfigError: for neither, both, or values of other types.
    """
    changes = {name: value for name, value in shorthands.items() if value is not None}
    parts = {"tasks": tasks, "weights": weights, "settings": settings, **changes}
    given = [name for name, value in parts.items() if value is not None]
    if config is not None:
        if not isinstance(config, RunConfig):
            raise ConfigError(f"config must be a RunConfig, got {shown(config)}; tasks are given by tasks=")
        if given:
            raise ConfigError(f"train must be given either config or {given[0]}, got both")
        return config
    if tasks is None and base is None:
        raise ConfigError("train must be given config, tasks or from_run, got none of them")
    if settings is not None and not isinstance(settings, TrainConfig):
        raise ConfigError(f"settings must be a TrainConfig, got {shown(settings)}")
    if base is None:
        base = RunConfig(tasks=tasks)  # type: ignore[arg-type] # None is refused above
    encoder = base.encoder
    if weights is not None:
        encoder = weights if isinstance(weights, EncoderConfig) else replace(encoder, weights=weights)
    return replace(base, encoder=encoder, train=replace(settings or base.train, **changes))


def with_given(config: RunConfig, data: Mapping[str, Any] | None) -> RunConfig:
    """Return another run's configuration without the files whose rows are given in memory instead."""
    if not isinstance(data, Mapping):
        return config
    splits = {name: set(rows) & set(FILES) for name, rows in data.items() if isinstance(rows, Mapping)}
    unset: dict[str, dict[str, Any]] = {name: dict.fromkeys(there) for name, there in splits.items()}
    tasks = [replace(task, **unset.get(task.name, {})) for task in config.tasks]
    return replace(config, tasks=tasks)


def refuse_run_as_weights(config: RunConfig) -> None:
    """Raise ConfigError where a run folder is named as weights."""
    weights = Path(config.encoder.weights)
    if not (weights / "best" / "tasks.json").is_file():
        return
    raise ConfigError(
        f"encoder.weights must be a folder of weights, got the run {weights}; --from {weights} (in Python from_run)"
        " takes its decoders, too, --weights RUN/best its encoder alone"
    )


def make_folder(
    config: RunConfig,
    out: Path,
    select: str,
    resume: bool,
    counts: Mapping[str, int | None],
    from_run: str | Path | None = None,
) -> None:
    """Make the run's folder, once train's other arguments are known to be right.

    :param counts: by name what must be at least 1 or None.
    :raises ConfigError: for another value.
    :raises RunError: for a folder that holds something else, or can't be made.
    """
    Selection.parse(select, config.tasks)
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    if from_run is not None and Path(from_run).resolve() == out.resolve():
        raise ConfigError(f"out must be another folder than the run to begin from, got {out} for both")
    open_folder(out, resume)


def open_folder(out: Path, resume: bool) -> None:
    """Make a run's folder, or let it be where it is empty or a run that is to be resumed.

    :raises RunError: for a folder that holds something else, or can't be made.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: must be a folder, got a file; name a new one")
    if not resume and out.exists() and any(entry.name != ".lock" for entry in out.iterdir()):
        raise RunError(
            f"{out}: must be empty, got a folder with files in it; name a new one, or continue it with --resume"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: the run folder can't be made ({error.strerror})") from None
