"""Processes that train together survive the loss of one, and share out evaluation and prediction."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask.settings.config import RunConfig
from multitask.training.checkpoints import latest_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

MakeConfig = Callable[..., RunConfig]
SAVING = ["--resume", "--save-every", "2", "--keep-optimizer"]


def torchrun(options: Any, folder: Path, config: RunConfig) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1", "--standalone"]
    command += ["-m", "multitask", "train", *options(config, folder), "--out", str(folder / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, *SAVING], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def process_of_rank(parent: int, rank: int) -> int:
    """The child of torchrun that was given this rank."""
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "status").read_text()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"\nPPid:\t{parent}\n" in status and b"RANK=%d" % rank in environment:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def contents(run: Path) -> dict[str, bytes]:
    last = latest_checkpoint(run / "checkpoints")
    assert last is not None
    files = [run / "metrics.jsonl", *sorted((run / "best").iterdir()), *sorted(last.glob("*.safetensors"))]
    return {path.name: path.read_bytes() for path in files}


def wait_for_rounds(ended: Any, run: Path, count: int, process: subprocess.Popen[bytes]) -> list[bytes]:
    """The lines of timing.jsonl as soon as there are so many."""
    file, deadline = run / "timing.jsonl", time.monotonic() + 120
    while True:
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        if len(lines) >= count:
            return lines
        assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline, "no rounds within two minutes"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(options: Any, ended: Any) -> Callable[[RunConfig, Path], Path]:
    """A function of a configuration and a folder: a run of two processes that nothing happened to, made once."""
    runs: list[Path] = []

    def run(config: RunConfig, folder: Path) -> Path:
        if not runs:
            process = torchrun(options, folder, config)
            _, messages = ended(process)
            assert process.returncode == 0, messages
            runs.append(folder / "run")
        return runs[0]

    return run


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_is_restarted_and_the_run_ends_in_the_same_bytes(
    ended: Any, options: Any, undisturbed: Any, make_config: MakeConfig, tmp_path: Path, killed: int
) -> None:
    config = make_config()
    (tmp_path / "whole").mkdir()
    expected = contents(undisturbed(config, tmp_path / "whole"))
    process = torchrun(options, tmp_path, config)
    lines = wait_for_rounds(ended, tmp_path / "run", 7, process)
    os.kill(process_of_rank(process.pid, killed), signal.SIGKILL)
    _, messages = ended(process)
    assert process.returncode == 0, messages
    assert len(lines) < 18, "the run was over before it was killed"
    assert contents(tmp_path / "run") == expected
    # Times of rounds before the checkpoint: a run that had begun anew would have measured others.
    assert (tmp_path / "run" / "timing.jsonl").read_bytes().startswith(b"".join(lines[:4]))


@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_stops_both_and_resume_ends_in_the_same_bytes(
    start: Any,
    ended: Any,
    finish: Any,
    options: Any,
    undisturbed: Any,
    make_config: MakeConfig,
    tmp_path: Path,
    told: int,
) -> None:
    config = make_config()
    (tmp_path / "whole").mkdir()
    expected = contents(undisturbed(config, tmp_path / "whole"))
    command = ["-m", "multitask", "train", *options(config, tmp_path), "--out", tmp_path / "run", "--threads", 1]
    processes = start(2, *command, *SAVING)
    lines = wait_for_rounds(ended, tmp_path / "run", 5, processes[0])
    processes[told].send_signal(signal.SIGTERM)
    finish(processes, status=128 + signal.SIGTERM)
    assert len(lines) < 18, "the run was over before it was told to stop"
    finish(start(2, *command, *SAVING))
    assert contents(tmp_path / "run") == expected


def test_evaluation_and_prediction_are_shared_out(
    start: Any, ended: Any, finish: Any, undisturbed: Any, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    run = undisturbed(config, tmp_path)
    rows = tmp_path / "rows.txt"
    rows.write_text("".join(f"{'good ' * (i % 7)}film\n" for i in range(500)), encoding="utf-8")
    scores = []
    for ranks in (1, 2):
        answers = tmp_path / f"{ranks}.tsv"
        command = ["-m", "multitask", "predict", run, "--task", "sst", "--input", rows, "--output", answers, "--quiet"]
        finish(start(ranks, *command))
        scores.append([ended(process) for process in start(ranks, "-m", "multitask", "evaluate", run, "--json")])
    assert (tmp_path / "2.tsv").read_bytes() == (tmp_path / "1.tsv").read_bytes()
    (one,), two = scores
    assert json.loads(one[0])["mean"] > 0
    assert two == [one, ("", "")]


def test_an_error_of_one_process_ends_all(
    start: Any, finish: Any, options: Any, make_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine").write_text("precious")
    command = ["-m", "multitask", "train", *options(make_config(), tmp_path), "--out", out]
    main, other = finish(start(2, *command), status=1)
    assert "must be empty, got a folder with files in it" in main
    assert "error in process 1: another process of this run has stopped" in other


def test_another_number_of_processes_can_not_resume(
    start: Any, finish: Any, options: Any, undisturbed: Any, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    run = undisturbed(config, tmp_path)
    command = ["-m", "multitask", "train", *options(config, tmp_path), "--out", run, "--resume"]
    (message,) = finish(start(1, *command), status=1)
    assert "ranks must be 2, got 1" in message


def test_standard_input_can_not_be_shared(start: Any, finish: Any, tmp_path: Path) -> None:
    for message in finish(start(2, "-m", "multitask", "predict", tmp_path), status=2):
        assert "--input must be a file, which 2 processes can all read, got -" in message
