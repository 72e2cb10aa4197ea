"""``predict --split``: one table of a run's predictions for the files of all its tasks, on a tiny encoder."""

import csv
import shutil
from pathlib import Path

import pytest

from multitask import Run, Task, TrainConfig, train
from multitask.__main__ import main
from multitask.data.examples import read_examples

SIZES = [f"--set=tasks.{name}.batch_size=8" for name in ("sst", "para", "sts")]
FILES = {"sst": "ids-sst", "para": "quora", "sts": "sts"}


def command(*argv: object) -> int:
    return main([str(word) for word in (*argv, "--quiet")])


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def data(course_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the course, the test files without labels."""
    folder = tmp_path_factory.mktemp("split") / "data"
    shutil.copytree(course_like, folder)
    for stem in FILES.values():
        path = folder / f"{stem}-test-student.csv"
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(line.rpartition("\t")[0] + "\n" for line in lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tiny_weights: Path) -> Path:
    out = data.parent / "run"
    words = ["train", "--data", data, "--weights", tiny_weights, "--out", out, "--epochs", 1, "--rounds", 2, *SIZES]
    assert command(*words) == 0
    return out


@pytest.mark.parametrize("split", ["test", "dev"])
def test_all_tasks_are_in_one_table_with_what_predict_says_of_each(
    trained: Path, data: Path, tmp_path: Path, split: str
) -> None:
    output = tmp_path / "all.tsv"
    assert command("predict", trained, "--split", split, "--output", output) == 0
    header, *rows = rows_of(output)
    assert header == ["task", "id", "prediction"]
    wanted = []
    for task, stem in FILES.items():
        source, single = data / f"{stem}-{'test-student' if split == 'test' else split}.csv", tmp_path / f"{task}.tsv"
        assert command("predict", trained, "--task", task, "--input", source, "--output", single) == 0
        wanted += [[task, *row[:2]] for row in rows_of(single)[1:]]
    assert rows == wanted
    assert {row[1][0] for row in rows} == {"s", "p", "t"}  # the files' own ids


def test_one_task_needs_no_files_of_the_others(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(data / "sts-test-student.csv", moved)
    assert command("predict", trained, "--split", "test", "--data", moved, "--task", "sts") == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 7
    assert {row.split("\t")[0] for row in rows[1:]} == {"sts"}
    assert command("predict", trained, "--split", "test", "--data", moved) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ids-sst-test-student.csv" in captured.err


def test_held_out_rows_are_those_that_evaluate_scores(
    data: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task(name="sst", text="sentence", label="sentiment", train=data / "ids-sst-train.csv", batch_size=8)
    settings = TrainConfig(epochs=1, rounds=1, seed=3)
    run = train(tasks=[task], weights=tiny_weights, settings=settings, out=tmp_path / "run", progress=False)
    labels = {row.id: str(row.label) for row in read_examples(str(task.train), run.config.task("sst")).examples}
    assert command("predict", run.folder, "--split", "dev") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    score = run.evaluate()["sst"]
    assert len(rows) == score.n == 30
    assert sum(labels[name] == answer for _, name, answer in rows) / 30 == score.value
    assert command("predict", run.folder, "--split", "train", "--output", tmp_path / "train.tsv") == 0
    assert len(rows_of(tmp_path / "train.tsv")) == 271


def test_a_row_without_text_is_named_or_left_out_and_counted(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    (moved / "ids-sst-test-student.csv").write_text("id\tsentence\na\tgood\nb\t\nc\tbad\n", encoding="utf-8")
    options = ["predict", trained, "--split", "test", "--data", moved]
    assert command(*options) == 1
    assert "ids-sst-test-student.csv:3: column 'sentence' must not be empty" in capsys.readouterr().err
    assert command(*options, "--bad-rows", "skip") == 0
    captured = capsys.readouterr()
    assert [line.split("\t")[1] for line in captured.out.splitlines()[1:3]] == ["a", "c"]
    assert captured.err.startswith("sst: left out 1 row of 3, the first: ")


def test_labels_are_spelled_as_predict_spells_them(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "good,x;y\nbad,;\ngreat,x\npoor,y\n" * 3, encoding="utf-8")
    task = Task(name="tags", text="text", label="label", kind="multilabel", label_separator=";", train=rows, test=rows)
    settings = TrainConfig(epochs=1, rounds=1, hold_out=False)
    run = train(tasks=[task], weights=tiny_weights, settings=settings, out=tmp_path / "run", progress=False)
    assert command("predict", run.folder, "--split", "test") == 0
    shown = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    answers = [answer.label for answer in run.predict("tags", ["good", "bad", "great", "poor"] * 3)]
    assert shown == [";".join(label) or ";" for label in answers]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--split", "dev", "--input", "rows.tsv"], 2, "--split and --input must not both be given, got dev and rows"),
        (["--split", "dev", "--input", "-"], 2, "--split and --input must not both be given, got dev and -"),
        (["--input", "x", "--data", "."], 2, "--data must be left out without --split, got ."),
        (["--split", "valid"], 2, "invalid choice: 'valid'"),
        (["--split", "dev", "--task", "nope"], 2, "task must be one of sst, para, sts, got 'nope'"),
    ],
)
def test_wrong_usage_is_status_2(
    trained: Path, capsys: pytest.CaptureFixture[str], options: list[str], status: int, words: str
) -> None:
    assert command("predict", trained, *options) == status
    assert words in capsys.readouterr().err


def test_an_output_must_not_be_a_file_of_rows(trained: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data / "quora-dev.csv"
    before = source.read_bytes()
    assert command("predict", trained, "--split", "test", "--output", source) == 2
    assert "--output must be another file than tasks.para.dev, got " in capsys.readouterr().err
    assert source.read_bytes() == before


def test_splits_can_be_read_from_python_without_labels(trained: Path) -> None:
    run = Run.load(trained)
    rows = run.read_split("test")
    assert {name: len(dataset) for name, dataset in rows.items()} == {"sst": 6, "para": 6, "sts": 6}
    assert rows["sst"].labels == []
