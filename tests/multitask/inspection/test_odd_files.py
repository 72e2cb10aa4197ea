"""inspect: files that are odd as a whole. What is first wrong with them is said."""

import json
from pathlib import Path

import numpy as np
import pytest

from minbert.tokenizer import BertTokenizer
from multitask.__main__ import main
from multitask.cli.inspect import lines_of
from multitask.errors import DataError
from multitask.inspection.report import Report, inspect_file

LABELS = ("no", "yes")
ROWS = [f"a film of row {row},{LABELS[row % 2]}" for row in range(20)]


def look(folder: Path, lines: list[str], name: str = "rows.csv", encoding: str = "utf-8") -> Report:
    (folder / name).write_bytes("\n".join(lines).encode(encoding))
    return inspect_file(folder / name)


def test_rows_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    said = [*lines_of(look(tmp_path, ["text,label", *(f"café {row}" for row in ROWS)], encoding="cp1252"))]
    assert said[2] == "rows       20, 20 that can't be used"
    assert "rows.csv:2: column 'text' must be UTF-8 (byte 4 of the line is 0xe9), or format.encoding say" in said[3]
    assert said[-2:] == ["left out   and 15 more", "note       no row can be read"]


def test_rows_that_stop_the_training_are_counted(tmp_path: Path) -> None:
    report = look(tmp_path, ["text,label", *ROWS, "a,b,c", ",yes"])
    assert (report.rows, len(report.bad)) == (20, 2)
    assert "1 of the rows left out stop the training, unless --bad-rows skip leaves them out, too" in report.notes


@pytest.mark.parametrize("header", ["0,1", "1,2", "text,label"])
@pytest.mark.parametrize("end", ["", ","])
def test_a_header_of_numbers_or_without_the_last_separator(tmp_path: Path, header: str, end: str) -> None:
    report = look(tmp_path, [header, *(row + end for row in ROWS)])
    assert (report.rows, report.labels, report.columns) == (20, {"no": 10, "yes": 10}, header.split(","))


def test_a_header_that_repeats_a_name(tmp_path: Path) -> None:
    report = look(tmp_path, ["text,label,x,x", *(f"{row},1,2" for row in ROWS)])
    assert (report.rows, report.labels) == (20, {"no": 10, "yes": 10})
    assert report.notes[0] == "the header has 'x' several times: such columns can't be named"
    with pytest.raises(DataError, match="must have columns of different names, got 'text' several times"):
        look(tmp_path, ["text,text", *ROWS])


def test_the_option_that_helps_is_named_as_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("\n".join(["text,label", *(f"café {row}" for row in ROWS)]).encode("cp1252"))
    assert main(["inspect", str(path)]) == 0
    assert ", or --format encoding say what else" in capsys.readouterr().out
    path.write_text("text,label\na good film,yes\n", encoding="utf-16-le")
    assert main(["inspect", str(path)]) == 1
    said = capsys.readouterr().err
    assert "must not contain NUL characters" in said
    assert "--format encoding may have to name the file's encoding, such as utf-16-le" in said


def test_a_pair_is_as_long_as_both_its_texts_together(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"film {n} was good", f"a film {n} and a story", n % 2) for n in range(12)]
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,label\n" + "".join(f"{a},{b},{label}\n" for a, b, label in rows))
    assert main(["inspect", str(path), "--weights", str(tiny_weights), "--json"]) == 0
    lengths = json.loads(capsys.readouterr().out)["lengths"]
    tokenizer = BertTokenizer.from_pretrained(tiny_weights)
    together = tokenizer.tokenize_all([a for a, _, _ in rows], [b for _, b, _ in rows]).lengths
    assert (lengths["median"], lengths["longest"]) == (int(np.median(together)), together.max())
