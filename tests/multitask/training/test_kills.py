"""A run that is killed, at any point, continues to the bytes of a run that was never stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minbert
import minbert.files.storage
from multitask.settings.config import RunConfig
from multitask.training import checkpoints, session
from multitask.training.checkpoints import latest_checkpoint

MakeConfig = Callable[..., RunConfig]
Contents = dict[str, bytes]
Whole = Callable[..., tuple[RunConfig, Contents]]
Train = Callable[..., None]
StopAfter = Callable[[pytest.MonkeyPatch, int, Callable[[], None]], None]
ContentsOf = Callable[[Path], Contents]
pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


@pytest.mark.parametrize("lines", np.random.default_rng(0).integers(1, 4 * 10, 6).tolist())
def test_a_run_killed_anywhere_between_saves_ends_in_the_same_bytes(
    train: Train,
    stop_after: StopAfter,
    contents: ContentsOf,
    whole: Whole,
    lines: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole("separate")

    def kill() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        stop_after(patch, lines, kill)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


# Each call that a save makes on the file system, in turn: staged files and their syncs, rename, marker.
FAULTS = [
    (checkpoints, "write_tensors", 1),
    (checkpoints, "write_tensors", 2),
    (checkpoints, "write_tensors", 3),
    (minbert.files.storage.os, "fsync", 1),
    (minbert.files.storage.os, "replace", 2),
    (checkpoints, "write_json", 1),
    (Path, "rename", 1),
    (checkpoints, "_sync", 1),
    (checkpoints, "write_json", 2),
    (checkpoints, "_sync", 2),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "name", "call"), FAULTS, ids=[f"{name}-{call}" for _, name, call in FAULTS])
def test_a_kill_at_each_point_of_saving_loses_at_most_the_rounds_since_the_last_save(
    train: Train,
    contents: ContentsOf,
    whole: Whole,
    owner: Any,
    name: str,
    call: int,
    when: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole("separate")
    save, saves, armed, calls = session.save_checkpoint, [0], [False], [0]
    original = getattr(owner, name)

    def second_save(*args: Any, **options: Any) -> Path:
        saves[0] += 1
        armed[0] = saves[0] == 2
        return save(*args, **options)

    def faulty(*args: Any, **options: Any) -> Any:
        calls[0] += armed[0]
        due = armed[0] and calls[0] == call
        if due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **options)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    child = os.fork()
    if child == 0:
        try:
            with monkeypatch.context() as patch:
                patch.setattr(session, "save_checkpoint", second_save)
                patch.setattr(owner, name, faulty)
                train(config, tmp_path / "run")
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert latest_checkpoint(tmp_path / "run" / "checkpoints") is not None
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from multitask.settings.config import RunConfig
from multitask.training.train import train
config = RunConfig.from_dict(json.load(open(sys.argv[1])))
train(config, sys.argv[2], resume=True, save_every=2, keep_optimizer=True, progress=False)
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_ten_real_kills_at_random_moments(
    train: Train, contents: ContentsOf, make_config: MakeConfig, tmp_path: Path, precision: str
) -> None:
    """SIGKILL to a process of its own: each time to one that has just begun to train, or continues after a kill."""
    config = make_config("train.rounds=30", "train.warmup=0.7", "tasks.sst.dropout=0.2", f"train.precision={precision}")
    train(config, tmp_path / "undisturbed")
    minbert.files.storage.write_json(tmp_path / "config.json", config.to_dict())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.json"), str(tmp_path / "run")]
    timing = tmp_path / "run" / "timing.jsonl"
    for delay in np.random.default_rng(1).uniform(0.0, 0.05, 10).tolist():
        before = timing.stat().st_mtime_ns if timing.exists() else 0
        process = subprocess.Popen(command)
        # A moment after the process has begun to train.
        while process.poll() is None and (not timing.exists() or timing.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    subprocess.run(command, check=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


def test_a_kill_while_an_epochs_last_round_is_saved_again_keeps_a_checkpoint(
    train: Train, short_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, renames = Path.rename, [0]

    def faulty(self: Path, target: Path) -> Path:
        renames[0] += self.name.endswith(".writing")
        if renames[0] == 6:  # five rounds saved, then the fifth once more, scored
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", faulty)
        with pytest.raises(Killed):
            train(short_config(), tmp_path / "run", save_every=1)
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == "round-00000005"


def test_a_kill_while_best_is_written_leaves_no_mixture_of_epochs(
    train: Train, short_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("multitask.model.model.write_tensors", kill)
        with pytest.raises(Killed):
            train(short_config(), tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()
