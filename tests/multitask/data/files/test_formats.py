"""Lines to rows: what no reader of whole files would notice."""

import io
from pathlib import Path

import pytest

from multitask.data.files import cells
from multitask.data.files.formats import Fault, Row, read_rows


def rows(content: bytes) -> list[Row]:
    """Rows of the column text; their optional cell is None."""
    return list(read_rows(io.BytesIO(content), ["text"]))


@pytest.mark.parametrize("lines", [3, 4])
def test_a_row_has_a_limit_of_lines(lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that closes far below was not meant to: the lines between are rows of their own."""
    monkeypatch.setattr(cells, "MAX_LINES_PER_ROW", 3)
    between = ["between"] * (lines - 1)
    found = rows("\n".join(["text", '"open', *between, 'closed"', "last"]).encode())
    if lines == 3:
        assert found == [Row(2, ("open\nbetween\nbetween\nclosed", None)), Row(6, ("last", None))]
    else:
        assert found[0] == Row(2, (), Fault("", '"open', "must close each quote"))
        assert [row.cells[0] for row in found[1:]] == [*between, 'closed"', "last"]


def test_what_is_not_utf_8_stands_in_its_row_of_a_text_stream_too() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"text\nfine\ncaf\xe9\n"), encoding="utf-8")
    assert list(read_rows(stream, ["text"])) == [
        Row(2, ("fine", None)),
        Row(
            3,
            (),
            Fault("text", "caf\udce9", "must be UTF-8 (byte 4 of the line is 0xe9), or format.encoding say what else"),
        ),
    ]


def test_the_ending_decides_before_the_content(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("{},text\n1,x\n", encoding="utf-8")
    assert [row.cells for row in read_rows(path, ["text"], "{}")] == [("x", "1")]
