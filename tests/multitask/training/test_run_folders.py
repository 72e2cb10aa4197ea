"""What a folder, a disk or another process can do to a run: one error, and nothing is lost."""

import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multitask.errors import RunError
from multitask.settings.config import RunConfig
from multitask.training import session
from multitask.training import train as training
from multitask.training.checkpoints import latest_checkpoint
from multitask.training.run_folder import locked

MakeConfig = Callable[..., RunConfig]
Contents = dict[str, bytes]
Whole = Callable[..., tuple[RunConfig, Contents]]
Train = Callable[..., None]
ContentsOf = Callable[[Path], Contents]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_runs_into_one_folder_are_refused(train: Train, short_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another process is training into it"):
        train(short_config(), tmp_path / "run")


def test_a_full_disk_is_one_error_and_leaves_the_last_checkpoint_whole(
    train: Train, contents: ContentsOf, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saves = session.save_checkpoint, [0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def second_has_no_room(*args: Any, **options: Any) -> Path:
        saves[0] += 1
        if saves[0] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            return save(*args, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    config, expected = whole("separate")
    with monkeypatch.context() as patch:
        patch.setattr(session, "save_checkpoint", second_has_no_room)
        with pytest.raises(RunError, match="the checkpoint can't be written"):
            train(config, tmp_path / "run")
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == "round-00000002"
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


def test_resume_destroys_nothing_in_a_folder_that_is_no_run(
    train: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    (out / "checkpoints" / "mine").mkdir(parents=True)
    for name in ("metrics.jsonl", "checkpoints/mine/weights"):
        (out / name).write_text("precious")
    with pytest.raises(RunError, match="must hold a complete checkpoint to resume from, got only checkpoints, metrics"):
        train(short_config(), out, resume=True)
    for name in ("metrics.jsonl", "checkpoints/mine/weights"):
        assert (out / name).read_text() == "precious"


def test_resume_does_not_start_anew_over_a_best_epoch_whose_record_is_lost(
    train: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    training.train(short_config(), tmp_path / "run", progress=False)
    (tmp_path / "run" / "record.json").unlink()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="must hold a complete checkpoint to resume from, got only best"):
        train(short_config(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_lost_marker_is_refused_and_the_checkpoint_left(
    train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    stopped_run(short_config(), tmp_path / "run", 4 * 5 + 4 + 8)
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    (last / "complete.json").unlink()
    with pytest.raises(RunError, match="must hold a complete checkpoint to resume from, got only "):
        train(short_config(), tmp_path / "run", resume=True)
    assert (last / "model.safetensors").is_file()


def test_a_place_where_no_folder_can_be_made_is_one_error(train: Train, short_config: MakeConfig) -> None:
    with pytest.raises(RunError, match="/proc/run: the run folder can't be made"):
        train(short_config(), Path("/proc/run"))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function of mount options: a file system of its own, mounted or mounted again with them."""
    place = tmp_path / "mount"
    place.mkdir()

    def mounted(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"can't mount here: {done.stderr.decode().strip()}")
        return place

    yield mounted
    subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)


def test_a_read_only_mount_is_one_error_and_loses_nothing(
    train: Train,
    stopped_run: Train,
    contents: ContentsOf,
    whole: Whole,
    mount: Callable[[str], Path],
) -> None:
    config, expected = whole("separate")
    out = mount("rw") / "run"
    stopped_run(config, out, 4 * 3)
    mount("remount,ro")
    with pytest.raises(RunError, match="can't be written"):
        train(config, out, resume=True)
    mount("remount,rw")
    train(config, out, resume=True)
    assert contents(out) == expected
