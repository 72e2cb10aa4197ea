"""Equal texts within the training rows: copies and contradictions are counted, said and named."""

import json
from pathlib import Path

import pytest

from multitask.__main__ import main
from multitask.data.examples import Example
from multitask.data.repeats import Repeats, find_repeats


def rows_of(*rows: tuple[str, int]) -> list[Example]:
    return [Example("", tuple(texts.split("|")), label, line) for line, (texts, label) in enumerate(rows, 2)]


def test_copies_and_conflicts_are_counted() -> None:
    rows = rows_of(("a film", 0), ("a  film ", 0), ("A film", 1), ("a film", 1), ("b", 1), ("b", 1), ("b", 1), ("c", 0))
    assert find_repeats(rows) == Repeats(duplicates=3, conflicts=3, lines=[(2, 5)])
    assert find_repeats(rows[4:]) == Repeats(duplicates=2, conflicts=0, lines=[])
    many = rows_of(*((f"row {number}", label) for label in (0, 1) for number in range(9)))
    assert find_repeats(many) == Repeats(0, 18, [(line, line + 9) for line in range(2, 7)])


def test_a_pair_in_the_other_order_is_another() -> None:
    assert find_repeats(rows_of(("a|b", 0), ("b|a", 1))) == Repeats()
    assert find_repeats(rows_of(("a|b", 0), ("a|b", 1))).conflicts == 2


def test_they_are_said_and_recorded(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("text,mood\na film,0\na film,1\nb,1\nb,1\n" + "x,1\ny,0\n" * 5)
    (tmp_path / "dev.csv").write_text("text,mood\nx,1\nz,0\n")
    tables = '[tasks.mood]\ntrain = "rows.csv"\ndev = "dev.csv"\ntext = "text"\nlabel = "mood"\nkind = "binary"\n'
    (tmp_path / "tasks.toml").write_text(tables)
    words = ["train", "--tasks", tmp_path / "tasks.toml", "--weights", tiny_weights, "--out", tmp_path / "run"]
    sets = ("train.min_rounds=1", "tasks.mood.batch_size=4", "tasks.mood.lr=1e-4")
    assert main([*map(str, words), "--epochs", "1", *(f"--set={assignment}" for assignment in sets)]) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    mood = record["tasks"]["mood"]
    assert (mood["duplicate_train_rows"], mood["conflicting_train_rows"]) == (9, 2)
    assert mood["conflicts"] == ["lines 2 and 3 of rows.csv"]
    assert record["notes"][1:] == [
        "mood: 9 training rows have texts and label of another one",
        "mood: 2 training rows have the texts of another one but a different label, such as lines 2 and 3 of rows.csv",
        "mood: 1 dev rows are also in train",
    ]
    said = capsys.readouterr().err
    assert all(said.count(f"{note}\n") == 1 for note in record["notes"])
