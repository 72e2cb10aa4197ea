"""A run that learns other runs' outputs: what it trains on, resumes from, records and refuses."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from multitask.__main__ import main
from multitask.errors import ConfigError, DataError, RunError, StoppedError
from multitask.run import Run
from multitask.settings.config import RunConfig
from multitask.settings.distillation import Distillation
from multitask.training import session
from multitask.training.train import train

MakeConfig = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teachers(course_like: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of three tasks, and one of sst alone."""
    from multitask.settings.config import build_config

    folder = tmp_path_factory.mktemp("teachers")
    config = build_config(data=course_like, weights=str(tiny_weights), epochs=1, rounds=2, seed=5)
    train(config, folder / "three", progress=False)
    train(replace(config, tasks=config.tasks[:1]), folder / "one", progress=False)
    return folder / "three", folder / "one"


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Rows of text, as predict takes them."""
    path = tmp_path / "more.txt"
    path.write_text("".join(f"the film a good story {'bad ' * count}\n" for count in range(30)), encoding="utf-8")
    return path


def learning(teachers: tuple[Path, ...], **values: Any) -> Distillation:
    return Distillation(teachers=list(teachers), **values)


def test_a_task_learns_the_mean_outputs_of_the_teachers_that_have_it(
    make_config: MakeConfig, teachers: tuple[Path, Path], unlabelled: Path, course_like: Path, tmp_path: Path
) -> None:
    told = learning(teachers, unlabelled={"sst": unlabelled})
    config = make_config("train.precision=float32")
    train(config, tmp_path / "run", distillation=told, progress=False)
    outputs = load_file(tmp_path / "run" / "teachers.safetensors")
    assert {name: tuple(each.shape) for name, each in outputs.items()} == {
        "sst": (330, 5),
        "para": (300, 1),
        "sts": (300, 1),
    }
    texts = unlabelled.read_text(encoding="utf-8").splitlines()
    logits = []
    for folder in teachers:
        run = Run.load(folder, precision="float32")
        tokens = run.tokenizer.tokenize_all(texts, max_length=64).batch(np.arange(30))
        with torch.inference_mode():
            logits.append(run.model("sst", tokens))
    assert torch.allclose(outputs["sst"][300:], torch.stack(logits).mean(0), atol=1e-5)
    rows = [line.split("\t") for line in (course_like / "sts-dev.csv").read_text(encoding="utf-8").splitlines()[1:]]
    assert len(rows) == 24

    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    noted = record["distillation"]
    assert [each["folder"] for each in noted["teachers"]] == [str(folder) for folder in teachers]
    assert len({each["sha256"] for each in noted["teachers"]}) == 2
    assert (noted["temperature"], noted["teacher_weight"]) == (2.0, 0.9)
    assert noted["unlabelled"]["sst"]["rows"] == 30
    assert record["tasks"]["sst"]["train_rows"] == 300
    assert "sst: learns the teachers' outputs on 30 rows of more.txt, too" in record["notes"]
    assert len(Run.load(tmp_path / "run").predict("sst", texts)) == 30


def test_rows_without_labels_count_among_those_that_are_drawn_from(
    make_config: MakeConfig, teachers: tuple[Path, Path], unlabelled: Path, tmp_path: Path
) -> None:
    sizes = [f"tasks.{name}.batch_size={size}" for name, size in (("sst", 10), ("para", 9), ("sts", 9))]
    told = learning(teachers, unlabelled={"sst": unlabelled})
    train(make_config("train.rounds=32", *sizes, epochs=1), tmp_path / "run", distillation=told, progress=False)
    notes = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))["notes"]
    # 320 rows of sst are drawn, of 300 with labels and 30 without.
    assert not [note for note in notes if "passed over" in note]


def test_a_student_comes_near_its_teacher_without_a_single_label(
    make_config: MakeConfig, teachers: tuple[Path, Path], read_log: Any, tmp_path: Path
) -> None:
    """The teacher's answers count alone, and the student is another encoder: its outputs follow the teacher's."""
    sets = [f"tasks.sst.{each}" for each in ("lr=1e-3", "decoder_lr=1e-3", "dropout=0", "start=random")]
    config = make_config(*sets, "encoder.dropout=0", "train.rounds=30", "train.precision=float32", epochs=2)
    config = replace(config, tasks=config.tasks[:1])
    told = learning(teachers[1:], teacher_weight=1.0, temperature=1.0)
    train(config, tmp_path / "run", distillation=told, progress=False)
    losses = [line["loss"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize("gone", [False, True])
def test_a_resumed_run_ends_in_the_same_bytes_and_asks_no_teacher_again(
    make_config: MakeConfig,
    teachers: tuple[Path, Path],
    unlabelled: Path,
    contents: Any,
    gone: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teachers[0], copy)
    told = learning((copy,), unlabelled={"sst": unlabelled})
    config = make_config("train.log_conflict=true", "tasks.sts.dev=none")  # rows of sts that the teacher trained on
    train(config, tmp_path / "whole", distillation=told, progress=False, keep_optimizer=True)
    with pytest.raises(StoppedError):
        train(
            config,
            tmp_path / "run",
            distillation=told,
            progress=False,
            on_round=lambda record: "stop" if record.number == 2 else None,
        )
    if gone:
        shutil.rmtree(copy)
    monkeypatch.setattr("multitask.training.teachers.outputs_of", None)
    train(config, tmp_path / "run", distillation=told, progress=False, resume=True, keep_optimizer=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    first, second = (json.loads((tmp_path / name / "record.json").read_text("utf-8")) for name in ("whole", "run"))
    assert f"sts: {copy} may have trained on some of its dev rows" in "\n".join(first["notes"])
    assert (second["notes"], second["distillation"]) == (first["notes"], first["distillation"])
    again = train(config, tmp_path / "run", distillation=told, progress=False, resume=True)
    assert again.folder == tmp_path / "run"


def test_a_run_without_a_checkpoint_needs_its_teacher(
    make_config: MakeConfig, teachers: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, out, config = tmp_path / "teacher", tmp_path / "run", make_config(epochs=1)
    shutil.copytree(teachers[0], copy)
    with monkeypatch.context() as patch:  # killed in its first round, when its record and the answers are there
        patch.setattr(session.Session, "_train_epoch", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, out, distillation=learning((copy,)), progress=False)
    answers = (out / "teachers.safetensors").read_bytes()
    assert (out / "record.json").exists()
    shutil.rmtree(copy)
    with pytest.raises(RunError, match=f"{copy}"):
        train(config, out, distillation=learning((copy,)), progress=False, resume=True)
    assert (out / "teachers.safetensors").read_bytes() == answers


def test_what_is_learned_must_not_change(
    make_config: MakeConfig, teachers: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, told = make_config(epochs=1), tmp_path / "run", learning(teachers)
    train(config, out, distillation=told, progress=False)
    with pytest.raises(RunError, match=r"distillation must be .*'temperature': 2.0.*, got None"):
        train(config, out, progress=False, resume=True)
    with pytest.raises(RunError, match=r"distillation.temperature must be 2.0, got 3.0"):
        train(config, out, distillation=replace(told, temperature=3.0), progress=False, resume=True)
    with pytest.raises(RunError, match=r"distillation.teachers must be \["):
        train(config, out, distillation=learning(teachers[:1]), progress=False, resume=True)


def test_a_run_stopped_before_its_first_round_starts_anew(
    make_config: MakeConfig, teachers: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = make_config(epochs=1), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "_open_logs", lambda self, lengths: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, out, distillation=learning(teachers), progress=False)
    assert {entry.name for entry in out.iterdir()} == {".lock", "teachers.safetensors"}
    train(config, out, distillation=learning(teachers), progress=False, resume=True)


def test_a_broken_cache_is_refused(make_config: MakeConfig, teachers: tuple[Path, Path], tmp_path: Path) -> None:
    config, out, told = make_config(epochs=1), tmp_path / "run", learning(teachers)
    with pytest.raises(StoppedError):
        train(config, out, distillation=told, progress=False, on_round=lambda record: "stop")
    cache = out / "teachers.safetensors"
    cache.write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"teachers.safetensors: the teachers' outputs can't be read"):
        train(config, out, distillation=told, progress=False, resume=True)


@pytest.mark.parametrize(
    ("sets", "only", "message"),
    [
        (
            ["tasks.sst.labels=['0','1','2','3','4','5']"],
            0,
            r"^tasks.sst.labels must be the teacher's of .*one, \('0', ",
        ),
        (["tasks.sts.labels=[0, 6]"], 2, r"^the teacher .*one must have a task of this run, sts, got sst$"),
        ([], None, r"^distillation.teachers must have the task para, got none among .*one$"),
        (
            ["tasks.sst.kind=regression", "tasks.sst.labels=[0, 4]"],
            0,
            r"^tasks.sst.kind must be the teacher's of .*one, 'cl",
        ),
    ],
)
def test_teachers_must_have_the_tasks_with_equal_labels(
    make_config: MakeConfig,
    teachers: tuple[Path, Path],
    sets: list[str],
    only: int | None,
    message: str,
    tmp_path: Path,
) -> None:
    config = make_config(*sets)
    config = config if only is None else replace(config, tasks=config.tasks[only : only + 1])
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", distillation=learning(teachers[1:]), progress=False)


def test_what_is_told_is_checked(make_config: MakeConfig, teachers: tuple[Path, Path], tmp_path: Path) -> None:
    for values, message in (
        ({"temperature": 1e-9}, "distillation.temperature must be finite and at least 0.01 and at most 100, got 1e-09"),
        ({"teacher_weight": 1.5}, "distillation.teacher_weight must be finite and at least 0 and at most 1, got 1.5"),
        ({"teachers": []}, r"distillation.teachers must be a list of run folders, got \[\]"),
        ({"teachers": [teachers[0], teachers[0]]}, "distillation.teachers must be different runs, got .* twice"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}"):
            Distillation(**{"teachers": list(teachers), **values})
    with pytest.raises(ConfigError, match="^distillation must be a Distillation, got {'teachers': "):
        train(make_config(), tmp_path / "a", distillation={"teachers": []}, progress=False)  # type: ignore[arg-type]
    told = learning(teachers, unlabelled={"x": tmp_path / "x.txt"})
    with pytest.raises(ConfigError, match="a task of distillation.unlabelled must be one of sst, para, sts, got 'x'"):
        train(make_config(), tmp_path / "a", distillation=told, progress=False)
    os.mkfifo(tmp_path / "pipe")
    told = learning(teachers, unlabelled={"sst": tmp_path / "pipe"})
    with pytest.raises(DataError, match="pipe must be a file, which is read several times, got a pipe$"):
        train(make_config(), tmp_path / "b", distillation=told, progress=False)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", encoding="utf-8")
    told = learning(teachers, unlabelled={"sst": empty})
    with pytest.raises(DataError, match="must have a usable row for task sst, got none"):
        train(make_config(), tmp_path / "c", distillation=told, progress=False, bad_rows="skip")


def test_the_command_takes_what_train_takes(
    make_config: MakeConfig,
    teachers: tuple[Path, Path],
    unlabelled: Path,
    options: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*options(make_config(), tmp_path), "--rounds", "2", "--epochs", "1", "--out", str(tmp_path / "run")]
    words += ["--teacher", str(teachers[0]), "--teacher", str(teachers[1]), "--unlabelled", f"sst={unlabelled}"]
    assert main(["distill", *words, "--temperature", "3", "--teacher-weight", "0.5"]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["distillation"]["temperature"] == 3.0
    assert record["distillation"]["teacher_weight"] == 0.5
    assert main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["distill", *words, "--unlabelled", f"sst={unlabelled}"]) == 2
    assert "--unlabelled must be TASK=FILE, once a task, got 'sst=" in capsys.readouterr().err
    assert main(["distill", "--out", "x"]) == 2
    assert "the following arguments are required: --teacher" in capsys.readouterr().err


def test_a_teacher_that_saw_the_rows_held_out_is_noted(
    teachers: tuple[Path, Path], make_config: MakeConfig, tmp_path: Path
) -> None:
    """The teacher has a dev file and trained on all of train; here a tenth of that is held out."""
    config = make_config(epochs=1)
    config = replace(config, tasks=tuple(replace(task, dev=None) for task in config.tasks))
    train(config, tmp_path / "run", distillation=learning(teachers), progress=False)
    notes = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))["notes"]
    assert len([note for note in notes if "may have trained on some of its dev rows" in note]) == 4
