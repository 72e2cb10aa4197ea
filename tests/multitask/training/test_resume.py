"""A stopped run goes on to the bytes of a run that was never stopped."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import minbert.files.storage
from multitask.errors import RunError, StoppedError
from multitask.settings.config import RunConfig
from multitask.training import checkpoints
from multitask.training import train as training
from multitask.training.checkpoints import latest_checkpoint
from multitask.training.run_folder import JsonLines, locked

MakeConfig = Callable[..., RunConfig]
Contents = dict[str, bytes]
# Three tasks, dropout on, five rounds an epoch so that a save every second round falls mid-epoch, a long warm-up.
SETS = ("train.rounds=5", "train.warmup=0.7", "tasks.sst.dropout=0.2")
UPDATES = ("separate", "combined", "pcgrad")


class Killed(BaseException):
    """Stands for a kill: nothing in the package may catch it."""


def train(config: RunConfig, out: Path, **options: Any) -> None:
    training.train(config, out, progress=False, keep_optimizer=True, **{"save_every": 2, **options})


def contents(out: Path) -> Contents:
    """Every file that has to be equal to the byte: log, best epoch, last checkpoint less its own log's length."""
    files = [out / "metrics.jsonl", *sorted((out / "best").iterdir())]
    last = latest_checkpoint(out / "checkpoints")
    assert last is not None
    files += [last / name for name in ("model.safetensors", "optimizers.safetensors", "generators.safetensors")]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Contents]:
    """What a run without interruption leaves, by update and precision; filled as tests ask."""
    return {}


@pytest.fixture
def whole(
    undisturbed: dict[tuple[str, str], Contents], make_config: MakeConfig, tmp_path: Path
) -> Callable[..., tuple[RunConfig, Contents]]:
    def of(update: str, precision: str = "float32") -> tuple[RunConfig, Contents]:
        config = make_config(*SETS, f"train.update={update}", f"train.precision={precision}")
        if (update, precision) not in undisturbed:
            train(config, tmp_path / "undisturbed")
            undisturbed[update, precision] = contents(tmp_path / "undisturbed")
        return config, undisturbed[update, precision]

    return of


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stop_after(monkeypatch: pytest.MonkeyPatch, lines: int, act: Callable[[], None]) -> None:
    """Call ``act`` once, after so many lines of a log (four a round: three tasks and the time)."""
    write, count = JsonLines.write, [0]

    def counting(self: JsonLines, **values: Any) -> None:
        write(self, **values)
        count[0] += 1
        if count[0] == lines:
            act()

    monkeypatch.setattr(JsonLines, "write", counting)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    ("number", "precision"), [(signal.SIGTERM, "float32"), (signal.SIGINT, "float32"), (signal.SIGTERM, "bfloat16")]
)
def test_a_signal_saves_the_state_and_resume_ends_in_the_same_bytes(
    whole: Callable[..., tuple[RunConfig, Contents]],
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


@pytest.mark.parametrize("lines", np.random.default_rng(0).integers(1, 4 * 10, 6).tolist())
def test_a_run_killed_anywhere_between_saves_ends_in_the_same_bytes(
    whole: Callable[..., tuple[RunConfig, Contents]], lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    whole: Callable[..., tuple[RunConfig, Contents]],
    owner: Any,
    name: str,
    call: int,
    when: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole("separate")
    save, saves, armed, calls = training.save_checkpoint, [0], [False], [0]
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
                patch.setattr(training, "save_checkpoint", second_save)
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
def test_ten_real_kills_at_random_moments(make_config: MakeConfig, tmp_path: Path, precision: str) -> None:
    """SIGKILL to a process of its own: each time to one that has just begun to train, or goes on from a kill."""
    config = make_config("train.rounds=30", *SETS[1:], f"train.precision={precision}")
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


def skip_schedule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("multitask.training.loop.TrainState.step", lambda self, per_epoch: self.round)


def skip_moments(patch: pytest.MonkeyPatch) -> None:
    read = checkpoints.read_tensors

    def without_sts(path: Path) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in read(path).items() if not name.startswith("sts/")}

    patch.setattr(checkpoints, "read_tensors", without_sts)


def skip_sampler(patch: pytest.MonkeyPatch) -> None:
    read = training.read_state
    patch.setattr(training, "read_state", lambda folder: {**read(folder), "round": 1})


def skip_generator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "set_rng_state", lambda state: None)


@pytest.mark.parametrize("mutant", [skip_schedule, skip_moments, skip_sampler, skip_generator])
def test_each_thing_that_is_not_restored_shows(
    whole: Callable[..., tuple[RunConfig, Contents]],
    mutant: Callable[[pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole("separate")
    with monkeypatch.context() as patch:
        stop_after(patch, 4 * 7 + 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run")
    with monkeypatch.context() as patch:
        mutant(patch)
        train(config, tmp_path / "run", resume=True)
    # Of the weights alone: that a round has another number in the log would be no finding.
    (weights,) = (name for name in expected if name.startswith("checkpoints") and name.endswith("/model.safetensors"))
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert (last / "model.safetensors").read_bytes() != expected[weights]


def stopped_run(config: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(config, out)


def test_a_changed_configuration_is_refused_with_what_changed(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(make_config(*SETS), tmp_path / "run", monkeypatch)
    with pytest.raises(RunError, match=r"tasks\.sst\.lr was 5e-05 and is 0\.001"):
        train(make_config(*SETS, "tasks.sst.lr=1e-3"), tmp_path / "run", resume=True)


def test_changed_data_is_refused(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(*SETS)
    source = Path(str(config.task("sst").train))
    moved = tmp_path / "sst.tsv"
    moved.write_bytes(source.read_bytes())
    config = make_config(*SETS, f'tasks.sst.train="{moved}"')
    stopped_run(config, tmp_path / "run", monkeypatch)
    moved.write_bytes(source.read_bytes().replace(b"film", b"story"))
    with pytest.raises(RunError, match=r"data\.sst\.train was"):
        train(config, tmp_path / "run", resume=True)


def test_a_flipped_bit_of_a_checkpoint_is_refused(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(make_config(*SETS), tmp_path / "run", monkeypatch)
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    content = bytearray((last / "optimizers.safetensors").read_bytes())
    content[-5] ^= 1
    (last / "optimizers.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="optimizers.safetensors: its checksum is not the one written"):
        train(make_config(*SETS), tmp_path / "run", resume=True)


def test_two_runs_into_one_folder_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(RunError, match="another process is training into it"):
        train(make_config(*SETS), tmp_path / "run")


def test_a_full_disk_is_one_error_and_leaves_the_last_checkpoint_whole(
    whole: Callable[..., tuple[RunConfig, Contents]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saves = training.save_checkpoint, [0]
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
        patch.setattr(training, "save_checkpoint", second_has_no_room)
        with pytest.raises(RunError, match="the checkpoint can't be written"):
            train(config, tmp_path / "run")
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == "round-00000002"
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


def test_resume_without_a_checkpoint_starts_anew_and_a_finished_run_is_given_back(
    whole: Callable[..., tuple[RunConfig, Contents]], tmp_path: Path
) -> None:
    config, expected = whole("separate")
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_finished_run_keeps_no_moments_unless_asked(make_config: MakeConfig, tmp_path: Path) -> None:
    training.train(make_config(*SETS), tmp_path / "run", progress=False, save_every=2)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_finished_run_of_other_settings_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    training.train(make_config(*SETS), tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"config\.train\.seed was 11711 and is 5"):
        training.train(make_config(*SETS, "train.seed=5"), tmp_path / "run", progress=False, resume=True)


def test_another_decoder_is_refused_by_its_setting_not_by_its_tensors(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_run(make_config(*SETS), tmp_path / "run", monkeypatch)
    with pytest.raises(RunError, match=r"tasks\.sst\.pooling was 'attention' and is 'mean'"):
        train(make_config(*SETS, "tasks.sst.pooling=mean"), tmp_path / "run", resume=True)


def test_a_kill_while_an_epochs_last_round_is_saved_again_keeps_a_checkpoint(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
            train(make_config(*SETS), tmp_path / "run", save_every=1)
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == "round-00000005"


def test_a_kill_while_best_is_written_leaves_no_mixture_of_epochs(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args: Any, **options: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("multitask.model.model.write_tensors", kill)
        with pytest.raises(Killed):
            train(make_config(*SETS), tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()


def test_resume_destroys_nothing_in_a_folder_that_is_no_run(make_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "checkpoints" / "mine").mkdir(parents=True)
    for name in ("metrics.jsonl", "checkpoints/mine/weights"):
        (out / name).write_text("precious")
    with pytest.raises(RunError, match="has no complete checkpoint to resume from, and holds checkpoints, metrics"):
        train(make_config(*SETS), out, resume=True)
    for name in ("metrics.jsonl", "checkpoints/mine/weights"):
        assert (out / name).read_text() == "precious"


def test_resume_does_not_start_anew_over_a_best_epoch_whose_record_is_lost(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    training.train(make_config(*SETS), tmp_path / "run", progress=False)
    (tmp_path / "run" / "record.json").unlink()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="has no complete checkpoint to resume from, and holds best"):
        train(make_config(*SETS), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_lost_marker_is_refused_and_the_checkpoint_left(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 4 * 5 + 4 + 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(make_config(*SETS), tmp_path / "run")
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    (last / "complete.json").unlink()
    with pytest.raises(RunError, match="has no complete checkpoint to resume from"):
        train(make_config(*SETS), tmp_path / "run", resume=True)
    assert (last / "model.safetensors").is_file()


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
    whole: Callable[..., tuple[RunConfig, Contents]],
    mount: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, expected = whole("separate")
    out = mount("rw") / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 4 * 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(config, out)
    mount("remount,ro")
    with pytest.raises(RunError, match="can't be written"):
        train(config, out, resume=True)
    mount("remount,rw")
    train(config, out, resume=True)
    assert contents(out) == expected


def test_a_place_where_no_folder_can_be_made_is_one_error(make_config: MakeConfig) -> None:
    with pytest.raises(RunError, match="/proc/run: the run folder can't be made"):
        train(make_config(*SETS), Path("/proc/run"))


def test_a_signal_during_the_last_scoring_leaves_a_run_to_finish(
    whole: Callable[..., tuple[RunConfig, Contents]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, expected = whole("separate")
    with monkeypatch.context() as patch:
        stop_after(patch, 4 * 10 + 2 * 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


def test_other_threads_are_said_and_recorded(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped_run(make_config(*SETS), tmp_path / "run", monkeypatch)
    torch.set_num_threads(2)
    training.train(make_config(*SETS), tmp_path / "run", resume=True)
    assert "resumed with other threads, so not to the same bytes: 1 before, 2 now" in capsys.readouterr().err
    assert '"resumed_with_changes"' in (tmp_path / "run" / "record.json").read_text()
