"""train, evaluate and predict from the command line, on a tiny encoder."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from multitask import Run
from multitask.__main__ import main
from multitask.data.examples import iter_examples

Error = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def trained(course_like: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the three tasks, trained by the command for a few rounds."""
    out = tmp_path_factory.mktemp("runs") / "new" / "run"
    sizes = [f"--set=tasks.{name}.batch_size=8" for name in ("sst", "para", "sts")]
    argv = ["train", "--data", course_like, "--weights", tiny_weights, "--out", out, "--epochs", 1, "--rounds", 2]
    assert main([str(word) for word in [*argv, *sizes, "--quiet", "--device", "cpu"]]) == 0
    return out


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Error:
    """Runs a command that must fail; returns its status and its one line."""

    def run(*argv: object) -> tuple[int, str]:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        line = capsys.readouterr().err
        assert line.startswith("multitask: error: ")
        assert line.count("\n") == 1
        return status, line

    return run


def predict(run: Path, task: str, source: Path, output: Path) -> list[list[str]]:
    """The rows that predict wrote, header first."""
    words = ["predict", run, "--task", task, "--input", source, "--output", output, "--quiet"]
    assert main([str(word) for word in words]) == 0
    with output.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


def piped(run: Path, task: str, text: str) -> subprocess.CompletedProcess[bytes]:
    """``predict`` between two pipes, in a process of its own."""
    words = [sys.executable, "-m", "multitask", "predict", str(run), "--task", task, "--quiet"]
    return subprocess.run(words, input=text.encode(), capture_output=True, check=False)


def test_train_prints_the_dev_scores(
    course_like: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--data", course_like, "--weights", tiny_weights, "--out", out, "--epochs", 1, "--limit", 8]
    words += [f"--set=tasks.{name}.batch_size=4" for name in ("sst", "para", "sts")]
    assert main([str(word) for word in [*words, "--set=train.min_rounds=1"]]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()[:5]] == ["task", "sst", "para", "sts", "mean"]
    assert str(out) in captured.out
    assert "minutes" in captured.err  # the estimate


def test_a_second_run_into_the_same_folder_is_refused(
    error_of: Error, trained: Path, course_like: Path, tiny_weights: Path
) -> None:
    status, line = error_of("train", "--data", course_like, "--weights", tiny_weights, "--out", trained)
    assert status == 1
    assert str(trained) in line


def test_a_select_that_is_no_task_is_status_2(
    error_of: Error, course_like: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    words = ["--data", course_like, "--weights", tiny_weights, "--out", tmp_path / "run", "--select", "best"]
    status, line = error_of("train", *words)
    assert status == 2
    for name in ("auto, last, mean, sst, para and 1 more", "TASK.METRIC", "best"):
        assert name in line


def test_evaluate_prints_a_table(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "95 % interval" in lines[0]
    assert "macro-F1" in lines[0]
    assert [line.split()[:2] for line in lines[1:4]] == [["sst", "accuracy"], ["para", "accuracy"], ["sts", "pearson"]]


def test_evaluate_prints_one_json_object(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--json", "--split", "train"]) == 0
    result = json.loads(capsys.readouterr().out)
    scores = Run.load(trained).evaluate("train")
    assert result["split"] == "train"
    assert result["mean"] == sum(score.value for score in scores.values()) / 3
    for name, score in scores.items():
        shown = result["tasks"][name]
        assert (shown["value"], shown["low"], shown["high"], shown["n"]) == (
            score.value, score.low, score.high, score.n,
        )  # fmt: skip
        assert (shown["macro_f1"] is None) == (name == "sts")


def test_evaluate_of_rows_without_labels_is_status_1(error_of: Error, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "ids-sst-test-student.csv").write_text("id\tsentence\n1\ta good film\n", encoding="utf-8")
    status, line = error_of("evaluate", trained, "--split", "test", "--data", tmp_path, "--quiet")
    assert status == 1
    assert "sentiment" in line


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_status_2(error_of: Error, trained: Path, device: str) -> None:
    import torch

    if (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        pytest.skip(f"{device} is available")
    assert error_of("evaluate", trained, "--device", device)[0] == 2


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_that_is_not_there_is_status_1(error_of: Error, course_like: Path, tmp_path: Path, command: str) -> None:
    rows = ["--input", course_like / "ids-sst-dev.csv"] if command == "predict" else []
    status, line = error_of(command, tmp_path / "no-run", *rows)
    assert status == 1
    assert "no-run" in line


@pytest.mark.parametrize(
    ("task", "file", "labels"),
    [("sst", "ids-sst", "01234"), ("para", "quora", "01"), ("sts", "sts", "")],
)
@pytest.mark.parametrize("split", ["dev", "test-student"])
def test_predict_writes_what_the_run_answers_in_the_order_of_the_rows(
    trained: Path, course_like: Path, tmp_path: Path, task: str, file: str, labels: str, split: str
) -> None:
    source = course_like / f"{file}-{split}.csv"
    header, *rows = predict(trained, task, source, tmp_path / "out.tsv")
    assert header == ["id", "prediction", *(f"p_{label}" for label in labels)]
    run = Run.load(trained)
    examples = list(iter_examples(source, next(t for t in run.config.tasks if t.name == task)))
    assert [row[0] for row in rows] == [example.id for example in examples]
    for row, answer in zip(rows, run.predict(task, [example.texts for example in examples]), strict=True):
        if task == "sts":
            assert float(row[1]) == pytest.approx(answer.label, abs=1e-5)
            assert "." in row[1]
        else:
            assert row[1] == answer.label
            assert row[1] in labels
            assert [float(p) for p in row[2:]] == pytest.approx(answer.probabilities, abs=1e-5)


def test_predict_takes_plain_text_from_a_pipe(trained: Path) -> None:
    done = piped(trained, "sst", "a good film\na bad, bad story\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == ["id", "1", "2"]


def test_predict_takes_plain_pairs_with_a_tab_between(trained: Path) -> None:
    done = piped(trained, "sts", "a good film\ta lovely story\n")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.decode().splitlines()
    assert header == "id\tprediction"
    float(row.split("\t")[1])


def test_predict_of_a_bad_row_names_it_and_leaves_no_file(error_of: Error, trained: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "rows.tsv", tmp_path / "out.tsv"
    source.write_text("id\tsentence\n1\ta good film\n2\t\n", encoding="utf-8")
    output.write_text("as it was", encoding="utf-8")
    status, line = error_of("predict", trained, "--task", "sst", "--input", source, "--output", output, "--quiet")
    assert status == 1
    assert f"{source}:3" in line
    assert output.read_text(encoding="utf-8") == "as it was"
    assert sorted(os.listdir(tmp_path)) == ["out.tsv", "rows.tsv"]


@pytest.mark.parametrize("task", [["--task", "nope"], []])
def test_predict_of_no_such_task_lists_those_there_are(
    error_of: Error, trained: Path, course_like: Path, task: list[str]
) -> None:
    status, line = error_of("predict", trained, "--quiet", "--input", course_like / "sts-dev.csv", *task)
    assert status == 2
    for name in ("sst", "para", "sts"):
        assert name in line


def test_predict_follows_a_link_to_its_output(trained: Path, course_like: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target.tsv", tmp_path / "link.tsv"
    target.write_text("", encoding="utf-8")
    link.symlink_to(target)
    predict(trained, "sst", course_like / "ids-sst-dev.csv", link)
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith("id\tprediction")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_predict_onto_a_full_disk_is_status_1(error_of: Error, trained: Path, course_like: Path) -> None:
    source = course_like / "ids-sst-dev.csv"
    status, line = error_of("predict", trained, "--task", "sst", "--input", source, "--output", "/dev/full", "--quiet")
    assert status == 1
    assert "/dev/full" in line


def test_predict_leaves_quietly_when_its_reader_does(trained: Path, course_like: Path) -> None:
    words = [sys.executable, "-m", "multitask", "predict", trained, "--task", "sst", "--quiet"]
    words += ["--input", course_like / "ids-sst-dev.csv"]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 141
