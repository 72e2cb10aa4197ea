"""A stopped run continues to the bytes of a run that was never stopped."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from multitask.errors import StoppedError
from multitask.settings.config import RunConfig
from multitask.training import checkpoints, session
from multitask.training import train as training
from multitask.training.checkpoints import latest_checkpoint

MakeConfig = Callable[..., RunConfig]
Contents = dict[str, bytes]
Whole = Callable[..., tuple[RunConfig, Contents]]
Train = Callable[..., None]
StopAfter = Callable[[pytest.MonkeyPatch, int, Callable[[], None]], None]
ContentsOf = Callable[[Path], Contents]
pytestmark = pytest.mark.usefixtures("one_thread")
UPDATES = ("separate", "combined", "pcgrad")


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    ("number", "precision"), [(signal.SIGTERM, "float32"), (signal.SIGINT, "float32"), (signal.SIGTERM, "bfloat16")]
)
def test_a_signal_saves_the_state_and_resume_ends_in_the_same_bytes(
    train: Train,
    stop_after: StopAfter,
    contents: ContentsOf,
    whole: Whole,
    update: str,
    number: signal.Signals,
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole(update, precision)
    with monkeypatch.context() as patch:
        stop_after(patch, 4 * 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(StoppedError) as stopped:
            train(config, tmp_path / "run", save_every=1000)
    assert stopped.value.signum == number
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


def test_a_signal_during_the_last_scoring_leaves_a_run_to_finish(
    train: Train, stopped_run: Train, contents: ContentsOf, whole: Whole, tmp_path: Path
) -> None:
    config, expected = whole("separate")
    stopped_run(config, tmp_path / "run", 4 * 10 + 2 * 4)
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


@pytest.mark.parametrize("update", ["uncertainty", "famo", "upgrad"])
def test_an_update_with_state_of_its_own_resumes_to_the_same_bytes(
    train: Train, stopped_run: Train, contents: ContentsOf, whole: Whole, update: str, tmp_path: Path
) -> None:
    config, expected = whole(update)
    stopped_run(config, tmp_path / "run", 4 * 7 + 4)
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


@pytest.mark.parametrize("setting", ["train.moments=shared", "encoder.checkpoint_layers=true"])
def test_settings_that_save_memory_resume_to_the_same_bytes(
    train: Train, stopped_run: Train, contents: ContentsOf, whole: Whole, setting: str, tmp_path: Path
) -> None:
    config, expected = whole("separate", "float32", setting, "tasks.sst.weight_decay=0.1")
    stopped_run(config, tmp_path / "run", 4 * 7 + 4)
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


def skip_schedule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("multitask.training.loop.TrainState.step", lambda self, per_epoch: self.round)


def skip_moments(patch: pytest.MonkeyPatch) -> None:
    read = checkpoints.read_tensors

    def without_sts(path: Path) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in read(path).items() if not name.startswith("sts/")}

    patch.setattr(checkpoints, "read_tensors", without_sts)


def skip_sampler(patch: pytest.MonkeyPatch) -> None:
    read = session.read_state
    patch.setattr(session, "read_state", lambda folder: {**read(folder), "round": 1})


def skip_generator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "set_rng_state", lambda state: None)


@pytest.mark.parametrize("mutant", [skip_schedule, skip_moments, skip_sampler, skip_generator])
def test_each_thing_that_is_not_restored_shows(
    train: Train,
    stopped_run: Train,
    whole: Whole,
    mutant: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole("separate")
    stopped_run(config, tmp_path / "run", 4 * 7 + 4)
    with monkeypatch.context() as patch:
        mutant(patch)
        train(config, tmp_path / "run", resume=True)
    # Of the weights alone: that a round has another number in the log would be no finding.
    (weights,) = (name for name in expected if name.startswith("checkpoints") and name.endswith("/model.safetensors"))
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert (last / "model.safetensors").read_bytes() != expected[weights]


def test_resume_without_a_checkpoint_starts_anew_and_a_finished_run_is_given_back(
    train: Train, contents: ContentsOf, whole: Whole, tmp_path: Path
) -> None:
    config, expected = whole("separate")
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_finished_run_keeps_no_moments_unless_asked(short_config: MakeConfig, tmp_path: Path) -> None:
    training.train(short_config(), tmp_path / "run", progress=False, save_every=2)
    assert not (tmp_path / "run" / "checkpoints").exists()
