"""Fixtures of the tests that stop a training and resume it: short runs, ways to stop them, what they leave behind."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask.errors import StoppedError
from multitask.settings.config import RunConfig
from multitask.training import train as training

MakeConfig = Callable[..., RunConfig]
Contents = dict[str, bytes]
# Three tasks, dropout on, five rounds an epoch so that a save every second round falls mid-epoch, a long warm-up.
SETS = ("train.rounds=5", "train.warmup=0.7", "tasks.sst.dropout=0.2")


@pytest.fixture
def short_config(make_config: MakeConfig) -> MakeConfig:
    """A function of ``--set`` assignments and the options of make_config: two epochs of five rounds."""
    return lambda *sets, **options: make_config(*SETS, *sets, **options)


@pytest.fixture(scope="session")
def train() -> Callable[..., None]:
    """A function of a configuration, a folder and options: trains, saving often and keeping the moments."""

    def run(config: RunConfig, out: Path, **options: Any) -> None:
        training.train(config, out, progress=False, keep_optimizer=True, **{"save_every": 2, **options})

    return run


@pytest.fixture(scope="session")
def undisturbed() -> dict[tuple[str, ...], Contents]:
    """What a run without interruption leaves, by what `whole` is told; filled as tests ask."""
    return {}


@pytest.fixture
def whole(
    undisturbed: dict[tuple[str, ...], Contents],
    short_config: MakeConfig,
    train: Callable[..., None],
    contents: Callable[[Path], Contents],
    one_thread: None,
    tmp_path: Path,
) -> Callable[..., tuple[RunConfig, Contents]]:
    """A function of an update, a precision and ``--set`` assignments: a configuration, and what a run of it leaves."""

    def of(update: str, precision: str = "float32", *sets: str) -> tuple[RunConfig, Contents]:
        config = short_config(f"train.update={update}", f"train.precision={precision}", *sets)
        key = (update, precision, *sets)
        if key not in undisturbed:
            train(config, tmp_path / "undisturbed")
            undisturbed[key] = contents(tmp_path / "undisturbed")
        return config, undisturbed[key]

    return of


@pytest.fixture
def stopped_run(
    train: Callable[..., None], stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """A function of a configuration, a folder and a number: trains until a SIGTERM after so many lines of a log."""

    def run(config: RunConfig, out: Path, lines: int = 8, **options: Any) -> None:
        with monkeypatch.context() as patch:
            stop_after(patch, lines, lambda: os.kill(os.getpid(), signal.SIGTERM))
            with pytest.raises(StoppedError):
                train(config, out, **options)

    return run
