"""Rows that can't be used, and rows that are cut: what train, evaluate and predict do about them, and say."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minbert.errors import InputError
from multitask import ConfigError, DataError, Run, train
from multitask.__main__ import main

LONG = "good film " * 40  # the tiny encoder has 64 positions
Outcome = tuple[int, str, list[str]]


@pytest.fixture(scope="module")
def spoiled(course_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course's files, sst with a label that is no class, one that is missing, and texts that are too long."""
    folder = tmp_path_factory.mktemp("spoiled") / "data"
    shutil.copytree(course_like, folder)
    for split, longer in (("train", 2), ("dev", 3)):
        lines = [f"0\tl{number}\t{LONG}\t1" for number in range(longer)]
        with (folder / f"ids-sst-{split}.csv").open("a", encoding="utf-8") as file:
            file.write("\n".join([*lines, "0\tb1\ta film\t7", "0\tb2\ta film\t", ""]))
    return folder


def words(folder: Path, weights: Path, out: Path, *more: str) -> list[str]:
    sizes = [f"--set=tasks.{name}.batch_size=8" for name in ("sst", "para", "sts")]
    given = {"--data": folder, "--weights": weights, "--out": out, "--epochs": 1, "--rounds": 2}
    return ["train", *(str(word) for pair in given.items() for word in pair), *sizes, "--device", "cpu", *more]


@pytest.fixture(scope="module")
def trained(spoiled: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(words(spoiled, tiny_weights, out, "--bad-rows", "skip", "--quiet")) == 0
    return out


@pytest.fixture
def predict(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs predict on a file of that content: its status, what it said, and the rows it wrote."""

    def run(content: str, *more: str, task: str = "sst", name: str = "rows.txt", quiet: bool = True) -> Outcome:
        source, output = tmp_path / name, tmp_path / "out.tsv"
        source.write_text(content, encoding="utf-8")
        output.unlink(missing_ok=True)
        capsys.readouterr()
        argv = ["predict", str(trained), "--task", task, "--input", str(source), "--output", str(output), *more]
        status = main([*argv, "--quiet"] if quiet else argv)
        said = capsys.readouterr().err.replace(str(source), name)
        return status, said, output.read_text(encoding="utf-8").splitlines()[1:] if output.exists() else []

    return run


def ids(rows: Sequence[str]) -> list[str]:
    return [row.split("\t")[0] for row in rows]


def test_train_counts_what_it_left_out_and_cut(trained: Path, spoiled: Path) -> None:
    record = json.loads((trained / "record.json").read_text(encoding="utf-8"))
    sst, para = record["tasks"]["sst"], record["tasks"]["para"]
    assert (sst["train_rows"], sst["dev_rows"], para["train_rows"]) == (302, 27, 300)
    assert (sst["truncated_train_rows"], sst["truncated_dev_rows"]) == (2, 3)
    assert (para["truncated_train_rows"], para["truncated_dev_rows"], para["skipped"]) == (0, 0, [])
    assert [row.split(":")[1] for row in sst["skipped"]] == ["304", "305", "29", "30"]
    assert sst["skipped"][0].startswith(
        f"{spoiled}/ids-sst-train.csv:304: column 'sentiment' must be one of the classes"
    )


def test_train_says_how_many_rows_are_cut(
    spoiled: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(spoiled, tiny_weights, tmp_path / "run", "--bad-rows", "skip")) == 0
    said = capsys.readouterr().err
    assert (
        said.count("sst: 2 of 302 training rows (0.7 %) are longer than 64 tokens and are cut: tasks.sst.long\n") == 1
    )
    assert said.count("sst: 3 of 27 dev rows (11 %) are longer than 64 tokens and are cut: tasks.sst.long\n") == 1
    assert said.count("are cut") == 2


@pytest.mark.parametrize("more", [[], ["--bad-rows", "missing"], ["--bad-rows", "error"]])
def test_train_stops_at_a_bad_row(
    spoiled: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    assert main(words(spoiled, tiny_weights, tmp_path / "run", *more, "--quiet")) == 1
    assert (
        "ids-sst-train.csv:304: column 'sentiment' must be one of the classes 0, 1, 2, 3, 4, got '7'"
        in capsys.readouterr().err
    )


def test_missing_labels_are_refused_only_if_asked(make_config: Any, course_like: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(course_like, tmp_path / "data"))
    with (folder / "quora-train.csv").open("a", encoding="utf-8") as file:
        file.write("0\tb1\ta film\t\t\n")
    config = make_config(epochs=1).with_data(folder)
    with pytest.raises(DataError, match=r"quora-train\.csv:302: column 'sentence2' must not be empty, got ''"):
        train(config, tmp_path / "error", bad_rows="error", progress=False)
    run = train(config, tmp_path / "run", progress=False)
    assert len(json.loads((run.folder / "record.json").read_text())["tasks"]["para"]["skipped"]) == 1
    with pytest.raises(ConfigError, match="must be one of missing, error, skip"):
        train(config, tmp_path / "other", bad_rows="drop", progress=False)  # type: ignore[arg-type]


def test_evaluate_says_what_it_left_out(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--split", "train", "--bad-rows", "skip", "--quiet"]) == 0
    said = capsys.readouterr().err
    assert re.search(r"^sst: left out [1-9]\d* rows?$", said, re.MULTILINE)
    assert "sst: 2 of 302 rows (0.7 %) are longer than 64 tokens and are cut: tasks.sst.long\n" in said


def test_evaluate_takes_the_same_choice(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--quiet"]) == 1
    assert (
        "ids-sst-dev.csv:29: column 'sentiment' must be one of the classes 0, 1, 2, 3, 4, got '7'"
        in capsys.readouterr().err
    )
    assert main(["evaluate", str(trained), "--quiet", "--bad-rows", "skip", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["sst"]["n"] == 27


@pytest.mark.parametrize("task", ["sst", "para"])
def test_predict_takes_any_word_of_plain_text(predict: Any, task: str) -> None:
    lines = ["None", "nan", "null", "good film"]
    content = "".join(f"{line}\n" if task == "sst" else f"{line}\t{line}\n" for line in lines)
    status, said, rows = predict(content, task=task)
    assert (status, said, ids(rows)) == (0, "", ["1", "2", "3", "4"])


def test_predict_stops_at_a_blank_line_or_leaves_it_out(predict: Any) -> None:
    content = "good film\n\nbad film\n\n"
    assert predict(content) == (1, "multitask: error: rows.txt:2: the row must not be blank, got ''\n", [])
    assert predict(content, "--bad-rows", "error")[0] == 1
    status, said, rows = predict(content, "--bad-rows", "skip")
    assert (status, ids(rows)) == (0, ["1", "3"])
    assert said == "left out 1 row of 3, the first: rows.txt:2: the row must not be blank, got ''\n"


def test_predict_of_nothing_but_bad_rows_is_trouble(predict: Any) -> None:
    status, said, rows = predict("sentence\n \n\t\nnull\n", "--bad-rows", "skip", name="rows.tsv")
    assert (status, rows) == (1, [])
    assert (
        "must have a usable row for task sst, got none: rows.tsv:2: column 'sentence' must not be empty, got ' '\n"
        in said
    )


def test_predict_refuses_a_table_with_other_columns(predict: Any) -> None:
    status, said, rows = predict("id,text\nr1,Great film\n")
    assert (status, rows) == (1, [])
    assert "rows.txt:1: the columns must include 'sentence', got 'id', 'text' (if that is plain text, " in said


@pytest.mark.parametrize("quiet", [True, False])
def test_predict_says_how_many_rows_are_cut(predict: Any, quiet: bool) -> None:
    status, said, rows = predict(f"good film\n{LONG}\n{LONG}bad\n", quiet=quiet)
    assert (status, ids(rows)) == (0, ["1", "2", "3"])
    assert said.endswith("sst: 2 of 3 rows (67 %) are longer than 64 tokens and are cut: tasks.sst.long\n")
    status, said, rows = predict(f"good film\tbad film\n{LONG}\tfilm\nfilm\t{LONG}\n", task="sts", quiet=quiet)
    assert (status, ids(rows)) == (0, ["1", "2", "3"])
    assert said.endswith("sts: 2 of 3 rows (67 %) are longer than 64 tokens and are cut: tasks.sts.long\n")


def test_a_prediction_knows_that_its_row_was_cut(trained: Path) -> None:
    run = Run.load(trained)
    fits = " ".join(["film"] * 62)  # and [CLS], [SEP]
    assert [row.truncated for row in run.predict("sst", [LONG, "film", fits, f"{fits} film"])] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("A film.", r"rows must be a list of texts .*, such as \['A film\.'\], got 'A film\.'"),
        ([None], r"row 1 must be str or tuple\[str, \.\.\.\], got None"),
        (["a", 5], r"row 2 must be str or tuple\[str, \.\.\.\], got 5"),
        ([("a", None)], r"row 1 must be str or tuple\[str, \.\.\.\], got \('a', None\)"),
        ([("a film",), {"a": 1}], r"row 2 must be str or tuple\[str, \.\.\.\], got {'a': 1}"),
        ([b"a"], r"row 1 must be str or tuple\[str, \.\.\.\], got b'a'"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(trained: Path, rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Run.load(trained).predict("sst", rows)
