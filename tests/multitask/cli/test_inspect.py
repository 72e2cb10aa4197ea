"""inspect: what it sees in files of many kinds, and that the TOML it prints trains."""

import gzip
import json
import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from multitask.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ("the", "a", "film", "story", "good", "bad", "great", "poor", "dull", "lovely")
MOODS = ("bad", "fair", "good")
Looked = Callable[..., tuple[str, dict[str, Any]]]


def texts(count: int = 48, words: int = 6) -> list[str]:
    draw = random.Random(count * words)
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


def frame(**columns: Any) -> pd.DataFrame:
    """A frame of 48 rows: a text, and the mood of every third row."""
    return pd.DataFrame({"text": texts(), "mood": [MOODS[row % 3] for row in range(48)], **columns})


@pytest.fixture
def looked(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Looked:
    """A function of a file's name in the working directory and options: what is printed, and its one task."""
    monkeypatch.chdir(tmp_path)

    def look(name: str, *options: str) -> tuple[str, dict[str, Any]]:
        capsys.readouterr()
        assert main(["inspect", name, "--weights", str(tiny_weights), *options]) == 0
        output = capsys.readouterr().out
        Path("own.toml").write_text(output, encoding="utf-8")
        tasks = tomllib.loads(output).get("tasks", {})
        (task,) = tasks.values() if tasks else [{}]
        return output, task

    return look


def write_commas(folder: Path) -> None:
    frame().to_csv(folder / "rows.csv", index=False)


def write_index(folder: Path) -> None:
    frame().to_csv(folder / "rows.csv")


def write_semicolons(folder: Path) -> None:
    frame(mood=[f"{row / 10:.1f}".replace(".", ",") for row in range(48)]).to_csv(
        folder / "rows.csv", sep=";", index=False
    )


def write_without_header(folder: Path) -> None:
    frame()[["mood", "text"]].to_csv(folder / "rows.tsv", sep="\t", index=False, header=False)


def write_utf16(folder: Path) -> None:
    frame().to_csv(folder / "rows.tsv", sep="\t", index=False, encoding="utf-16")


def write_gzip(folder: Path) -> None:
    lines = [json.dumps(row) for row in frame().to_dict("records")]
    with gzip.open(folder / "rows.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))


def write_array(folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps(frame().to_dict("records"), indent=1))


def write_parquet(folder: Path) -> None:
    frame(mood=[row % 2 == 0 for row in range(48)]).to_parquet(folder / "rows.parquet")


def write_pairs(folder: Path) -> None:
    """As MRPC's: names with signs, quotes that are text, ids of both texts."""
    lines = [f'{row % 2}\t{row % 7}\t{row % 5}\t{one}\t"{one} again' for row, one in enumerate(texts())]
    (folder / "rows.tsv").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "\n".join(lines) + "\n")


def write_ratings(folder: Path) -> None:
    """A column of an odd name, its whole numbers written as floats, as pandas does where one is missing."""
    frame().rename(columns={"text": "kommentar"}).assign(mood=[float(row % 5 + 1) for row in range(48)]).to_csv(
        folder / "train.csv", index=False
    )


MANY: dict[Callable[[Path], None], dict[str, Any]] = {
    write_commas: {"text": "text", "label": "mood", "kind": "classification", "labels": list(MOODS)},
    write_index: {"text": "text", "label": "mood", "kind": "classification", "labels": list(MOODS)},
    write_semicolons: {"text": "text", "label": "mood", "kind": "regression", "labels": [0.0, 4.7]},
    write_without_header: {"text": "2", "label": "1", "kind": "classification", "labels": list(MOODS)},
    write_utf16: {"text": "text", "label": "mood", "kind": "classification", "labels": list(MOODS)},
    write_gzip: {"text": "text", "label": "mood", "kind": "classification", "labels": list(MOODS)},
    write_array: {"text": "text", "label": "mood", "kind": "classification", "labels": list(MOODS)},
    write_parquet: {"text": "text", "label": "mood", "kind": "binary", "labels": ["False", "True"]},
    write_pairs: {"text": ["#1 String", "#2 String"], "label": "Quality", "kind": "binary", "labels": ["0", "1"]},
    write_ratings: {
        "text": "kommentar",
        "label": "mood",
        "kind": "classification",
        "labels": ["1.0", "2.0", "3.0", "4.0", "5.0"],
    },
}


@pytest.mark.parametrize("write", MANY, ids=lambda write: str(write.__name__).removeprefix("write_"))
def test_the_toml_trains_as_it_stands(
    write: Callable[[Path], None], looked: Looked, tiny_weights: Path, tmp_path: Path
) -> None:
    write(tmp_path)
    (file,) = tmp_path.iterdir()
    output, task = looked(file.name)
    assert task == {"train": file.name, **MANY[write]}
    assert "# rows       48\n" in output
    name = next(iter(tomllib.loads(output)["tasks"]))
    words = ["train", "--tasks", "own.toml", "--weights", str(tiny_weights), "--epochs", "1", "--rounds", "1"]
    assert main([*words, "--set", f"tasks.{name}.batch_size=8", "--out", "run", "--quiet"]) == 0


@pytest.mark.parametrize("cells", ["x;y", ["x", "y"]])
def test_several_labels_a_row_are_seen(looked: Looked, tiny_weights: Path, tmp_path: Path, cells: Any) -> None:
    tags = [cells if row % 2 else cells[:1] for row in range(48)]
    Path(tmp_path / "rows.json").write_text(json.dumps(frame(mood=tags).to_dict("records"), indent=1))
    _, task = looked("rows.json")
    assert task["kind"] == "multilabel"
    assert task["labels"] == ["x", "y"]
    assert task.get("label_separator") == (";" if cells == "x;y" else None)
    words = ["train", "--tasks", "own.toml", "--weights", str(tiny_weights), "--epochs", "1", "--rounds", "1"]
    assert main([*words, "--set", "tasks.rows.batch_size=8", "--out", "run", "--quiet"]) == 0


def test_what_is_odd_is_counted(looked: Looked, tmp_path: Path) -> None:
    rows = [*zip(texts(), [MOODS[row % 3] for row in range(48)], strict=True)]
    odd = ["the same film,good", "the same film,bad", "the same film,bad", ",good", "a film,", "a,b,c"]
    odd += [f"no label {row}," for row in range(4)]
    lines = ["text,mood", *(f"{text},{mood}" for text, mood in rows), *odd, "long " + "film " * 90 + ",good"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    (tmp_path / "dev.csv").write_text(f"text,mood\n{rows[0][0]},bad\n{rows[1][0]},good\nanother film,good\n")
    output, task = looked("rows.csv", "--dev", "dev.csv")
    assert task["dev"] == "dev.csv"
    lines = output.splitlines()
    assert "# rows       52, 7 that can't be used; 3 dev rows" in lines
    assert "# labels     3: bad 18, good 18, fair 16" in lines
    assert (
        "# repeated   1 copies of earlier rows; 3 with equal texts but another label (such as lines 50 and 51)" in lines
    )
    assert "# overlap    2 dev rows have the texts of a training row" in lines
    assert any(line.endswith("1 of 52 rows have more than the encoder's 64 and are cut") for line in lines)
    assert sum(line.startswith("#     ") for line in lines) == 5  # to 8, 16, 32, 64 and 128 tokens
    left_out = [line for line in lines if line.startswith("# left out")]
    assert [line.split("rows.csv:")[-1].split(":")[0] for line in left_out[:-1]] == ["53", "54", "55", "56", "57"]
    assert left_out[-1] == "# left out   and 2 more"


def test_many_labels_are_shown_as_a_few(looked: Looked, tmp_path: Path) -> None:
    frame(mood=[f"m{row % 12:02d}" for row in range(48)]).to_csv(tmp_path / "rows.csv", index=False)
    output, task = looked("rows.csv")
    assert "# labels     12: m00 4, m01 4, m02 4, m03 4, m04 4, m05 4, m06 4, m07 4, m08 4, m09 4, 2 more" in output
    assert len(task["labels"]) == 12


def test_columns_beside_the_task_are_named(looked: Looked, tmp_path: Path) -> None:
    table = frame(user_id=[row % 9 for row in range(48)], title=texts(words=3))
    table.insert(0, "row", range(48))
    table.to_csv(tmp_path / "rows.csv", index=False)
    output, task = looked("rows.csv")
    assert "columns    row [id], text [text], mood [label], user_id [group?], title [text, too]\n" in output
    assert 'text = "text"  # or "title"\n' in output
    assert '# group = "user_id"' in output
    assert task["id"] == "row"
    _, task = looked("rows.csv", "--text", "title", "--text", "text", "--label", "user_id", "--kind", "regression")
    assert (task["text"], task["label"], task["labels"]) == (["title", "text"], "user_id", [0.0, 8.0])


def test_few_whole_numbers_may_be_either_kind(looked: Looked, tmp_path: Path) -> None:
    write_ratings(tmp_path)
    output, task = looked("train.csv")
    assert task["kind"] == "classification"
    assert '"classification"  # or "regression" with labels = [1, 5], if these numbers are an order\n' in output


def test_a_name_of_a_presets_task_or_of_torchs_is_not_taken(looked: Looked, tmp_path: Path) -> None:
    for name in ("sst-train.csv", "values.csv", "mean.csv", "last.csv", "train.csv", "größe 5.csv"):
        frame().to_csv(tmp_path / name, index=False)
    for name, task in (("sst-train", "own-sst"), ("values", "own-values"), ("mean", "own-mean"), ("last", "own-last")):
        assert f"[tasks.{task}]\n" in looked(f"{name}.csv")[0]
    for name, task in (("train", "task"),):
        assert f"[tasks.{task}]\n" in looked(f"{name}.csv")[0]
    assert "[tasks.gr-e-5]\n" in looked("größe 5.csv")[0]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("text\n" + "\n".join(texts()), "no column looks like a label: name it with --label COLUMN"),
        (
            "text,code\n" + "\n".join(f"{text},c{row}x" for row, text in enumerate(texts())),
            "no column looks like a label: name it with --label COLUMN",
        ),
        ("text,label\na good film,good\na bad film,good\n", "no column looks like a label"),
        ("x,y\n" + "\n".join(f"{row % 7},{row % 2}" for row in range(48)), "no column looks like a text: name it"),
    ],
)
def test_what_is_not_seen_is_asked_for(looked: Looked, tmp_path: Path, content: str, note: str) -> None:
    (tmp_path / "rows.csv").write_text(content)
    output, task = looked("rows.csv")
    assert task == {}
    assert f"# note       {note}" in output


def test_what_training_would_refuse_is_said(looked: Looked, tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "rows.csv", index=False)
    output, task = looked("rows.csv", "--label", "text", "--text", "mood", "--kind", "regression")
    assert task == {}
    assert "# note       can't be trained on as it is: " in output


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("rows.csv", b"", [], "rows.csv must have rows, got none"),
        ("rows.csv", b"text,label\n", [], "rows.csv must have rows below its header, got none"),
        ("rows.txt", b"a good film\na bad film\n", [], "rows.txt must be a table with columns, got plain text"),
        ("rows.csv", b"PK\x03\x04", [], "broken zip archive"),
        ("none.csv", None, [], "none.csv can't be read: No such file or directory"),
        ("rows.csv", b"text,label\na,b\n", ["--label", "mood"], "--label must be one of text, label, got 'mood'"),
        (
            "rows.csv",
            b"text,label\na,b\n",
            ["--format", "separator"],
            "--format must be KEY=VALUE, such as separator=tab",
        ),
        ("rows.csv", b"text,label\na,b\n", ["--format", "width=2"], "a key of --format must be one of separator, "),
    ],
)
def test_what_is_no_table_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    options: list[str],
    message: str,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["inspect", str(tmp_path / name), *options]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_how_a_file_is_written_can_be_said(looked: Looked, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(
        "\n".join(["text~größe", *(f"{text}~{i % 2}" for i, text in enumerate(texts()))]).encode("cp1252")
    )
    output, task = looked("rows.csv", "--format", "separator=~", "--format", "encoding=cp1252")
    assert task["format"] == {"separator": "~", "encoding": "cp1252"}
    assert (task["label"], task["kind"]) == ("größe", "binary")
    assert "CP1252" in output


def test_json_has_all_of_it(
    looked: Looked, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame().to_csv(tmp_path / "rows.csv", index=False)
    assert main(["inspect", "rows.csv", "--weights", str(tiny_weights), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["labels"]) == (48, dict.fromkeys(MOODS, 16))
    assert report["guess"]["kind"] == "classification"
    assert sum(report["lengths"]["histogram"].values()) == 48
    assert tomllib.loads(report["toml"])["tasks"]["rows"]["train"] == "rows.csv"


def test_no_name_or_label_ends_a_comment(looked: Looked, tmp_path: Path) -> None:
    wild = frame().rename(columns={"text": 'te"xt\n\x1b[31m'}).replace({"mood": {"good": 'go\n"od\\\x7f'}})
    (tmp_path / "rows.json").write_text(json.dumps(wild.to_dict("records")))
    output, task = looked("rows.json")
    assert task["text"] == 'te"xt\n\x1b[31m'
    assert 'go\n"od\\\x7f' in task["labels"]
    assert "\x1b" not in output
