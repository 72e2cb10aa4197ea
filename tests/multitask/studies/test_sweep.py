"""Sweeps: trained as train does it, stopped, gone on with and shown, on a tiny encoder."""

import json
import os
import shutil
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask import Run, compare
from multitask.__main__ import main

SETTINGS = """
[sweep]
seeds = [2, 5]
[sweep.settings.baseline]
[sweep.settings.mean]
"tasks.sst.pooling" = "mean"
"""


@pytest.fixture
def study(course_like: Path, tiny_weights: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function of what a sweep's file says beside two tasks, and of which keys the first has: the file."""

    def write(settings: str = SETTINGS, **keys: Any) -> Path:
        first = {"train": str(course_like / "ids-sst-train.csv"), "dev": str(course_like / "ids-sst-dev.csv"), **keys}
        text = f"""
        [encoder]
        weights = "{tiny_weights}"
        [train]
        epochs = 1
        rounds = 2
        [tasks.sst]
        batch_size = 8
        text = ["sentence"]
        {"".join(f"{key} = {json.dumps(value)}{chr(10)}" for key, value in first.items() if value is not None)}
        [tasks.para]
        train = "{course_like / "quora-train.csv"}"
        dev = "{course_like / "quora-dev.csv"}"
        batch_size = 8
        start = "random"
        """
        (tmp_path / "study.toml").write_text(text + settings, encoding="utf-8")
        return tmp_path / "study.toml"

    return write


def sweep(file: Path, *options: object) -> int:
    out = file.parent / "out"
    return main(["sweep", str(file), "--out", str(out), "--quiet", *map(str, options)])


def weights_of(run: Path) -> bytes:
    return (run / "best" / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_a_sweep_is_stopped_and_gone_on_with_and_its_runs_are_trains(
    study: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, out = study(), tmp_path / "out"
    with monkeypatch.context() as patch:
        # A run of one epoch with two tasks writes nine lines: the second one is stopped in its first round.
        stop_after(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert sweep(file) == 143
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"multitask: error: stopped by signal 15; the same sweep goes on with {out / 'mean-2'}\n"
    assert sorted(path.name for path in out.iterdir()) == ["baseline-2", "mean-2"]
    before = (out / "baseline-2" / "record.json").stat().st_mtime_ns
    assert sweep(file) == 0
    assert (out / "baseline-2" / "record.json").stat().st_mtime_ns == before  # not trained again
    assert sorted(path.name for path in out.iterdir()) == ["baseline-2", "baseline-5", "mean-2", "mean-5"]
    table = capsys.readouterr().out
    words = ["train", "--tasks", file, "--set", "tasks.sst.pooling=mean", "--seed", 2, "--out", tmp_path / "run"]
    assert main([*map(str, words), "--quiet"]) == 0
    assert weights_of(tmp_path / "run") == weights_of(out / "mean-2")
    capsys.readouterr()
    assert sweep(file) == 0
    assert capsys.readouterr().out == table


def test_the_table_has_means_and_deviations_over_seeds_and_paired_differences(
    study: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(study(), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    out = tmp_path / "out"
    runs = [[out / f"{name}-{seed}" for seed in (2, 5)] for name in ("baseline", "mean")]
    wanted = compare(runs)
    for name, task in shown["tasks"].items():
        for side, folders, exact in zip(task["settings"], runs, wanted.tasks[name].scores, strict=True):
            scores = [Run.load(folder).evaluate()[name].value for folder in folders]
            assert side["seeds"] == pytest.approx(scores, abs=1e-12)
            assert side["seeds"] == list(exact)
            assert side["score"] == pytest.approx(statistics.fmean(scores))
            assert side["sd"] == pytest.approx(statistics.stdev(scores))
        difference = wanted.tasks[name].differences[0]
        assert [task["settings"][1][key] for key in ("difference", "low", "high", "tie")] == [
            difference.difference, difference.low, difference.high, difference.tie,
        ]  # fmt: skip
    assert [side["setting"] for side in shown["mean"]["settings"]] == ["baseline", "mean"]
    assert sweep(tmp_path / "study.toml") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:7] == ["task", "metric", "rows", "setting", "score", "sd", "seeds"]
    assert [line.split()[0] for line in lines] == ["sst", "sst", "para", "para", "mean", "mean"]
    assert all(line.split()[-1] == "2" for line in lines[::2])  # the first setting has no difference
    # A setting that has runs is changed: that is said before seed 1 of the others is trained.
    study(SETTINGS.replace("mean", "cls").replace("settings.cls", "settings.mean").replace("[2, 5]", "[1, 2, 5]"))
    assert sweep(tmp_path / "study.toml") == 1
    assert capsys.readouterr().err == (
        f"multitask: error: {out / 'mean-2'}: to be resumed, config.tasks.sst.pooling must be 'mean', got 'cls';"
        " another --out trains all runs anew\n"
    )
    study(SETTINGS.replace("[2, 5]", "[1, 2, 5]"))
    (out / "mean-1").mkdir()
    (out / "mean-1" / "notes.txt").touch()
    assert sweep(tmp_path / "study.toml") == 1
    assert (
        f"{out / 'mean-1'}: must hold a complete checkpoint to resume from, got only notes" in capsys.readouterr().err
    )
    assert not (out / "baseline-1").exists()


def test_without_a_dev_file_settings_are_paired_seed_by_seed(
    study: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(study(dev=None), "--json") == 0
    task = json.loads(capsys.readouterr().out)["tasks"]["sst"]
    assert task["rows"] == 60  # a tenth of 300 rows of each seed
    assert [len(side["seeds"]) for side in task["settings"]] == [2, 2]


def test_a_presets_missing_files_are_named_with_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.toml").write_text('[sweep]\nseeds = [1]\npreset = "slt"\n[sweep.settings.a]\n', encoding="utf-8")
    assert sweep(tmp_path / "study.toml", "--data", tmp_path) == 1
    missing = f"tasks.sst.train: {tmp_path / 'ids-sst-train.csv'} does not exist; `multitask fetch data` downloads"
    assert missing in capsys.readouterr().err


def test_a_finished_sweep_needs_no_weights(
    study: Callable[..., Path], tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_weights, weights := tmp_path / "weights")
    file = study("[sweep]\nseeds = [1]\n[sweep.settings.only]\n")
    file.write_text(file.read_text("utf-8").replace(str(tiny_weights), str(weights)), encoding="utf-8")
    assert sweep(file) == 0
    table = capsys.readouterr().out
    shutil.rmtree(weights)
    assert sweep(file) == 0
    assert capsys.readouterr().out == table


def test_one_setting_has_no_differences(study: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(study("[sweep]\nseeds = [1]\n[sweep.settings.only]\n")) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert "sd" not in header
    assert [line.split()[-2] for line in lines] == ["only"] * 3


def test_what_can_not_be_compared_is_refused_before_the_first_training(
    study: Callable[..., Path], course_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SETTINGS.replace('"tasks.sst.pooling" = "mean"', f'tasks.sst.dev = "{course_like / "ids-sst-train.csv"}"')
    none = "\n[sweep]\nseeds = [1]\n[sweep.settings.only]\ntasks.para.dev = 'none'\ntrain.hold_out = false\n"
    for settings, keys, options, status, words in (
        (other, {}, [], 1, "sst: the dev rows of baseline and mean must be the same, got 24 and 300 rows; a dev file"),
        (none, {"dev": None}, [], 1, "study.toml: a task must have dev rows for settings to be compared"),
        (SETTINGS, {"train": str(tmp_path / "gone.csv")}, [], 1, "gone.csv does not exist"),
        (SETTINGS + '"tasks.para.batch_size" = 200', {}, [], 2, "task para must have at least 400 rows for 2 rounds"),
        (SETTINGS, {}, ["--select", "nope"], 2, "select must be one of auto, last, mean, sst, para"),
        (
            SETTINGS + '"tasks.para.lr" = 1e-3\n"train.update" = "pcgrad"',
            {},
            [],
            2,
            "must be equal for all tasks of one enc",
        ),
        (SETTINGS + '"encoder.weights" = "all-mpnet-base-v3"', {}, [], 1, "all-mpnet-base-v3"),
        (SETTINGS.replace('= "mean"', '= "maen"'), {}, [], 2, "sweep.settings.mean: tasks.sst.pooling must be one of"),
    ):
        assert sweep(study(settings, **keys), *options) == status
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
        assert not (tmp_path / "out").exists()
