"""What looking at a whole file finds: separator, quoting, decimal sign, header; and where it has to ask."""

import csv
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multitask.data.examples import infer_labels, read_examples
from multitask.data.files.dialects import Wanted, look_at
from multitask.data.files.formats import read_rows
from multitask.data.load import prepare
from multitask.errors import DataError
from multitask.settings.config import RunConfig, TrainConfig
from multitask.settings.format import Format
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label", labels=("neg", "pos"))
SCORE = Task(name="score", text="text", label="score", kind="regression")


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|"])
@pytest.mark.parametrize("ending", ["tsv", "csv", "txt"])
def test_the_separator_is_where_the_columns_are(
    tmp_path: Path, separator: str, ending: str, put: Any, found: Any
) -> None:
    lines = ["text,label", "good; fine | well,pos", "bad,neg"]
    path = put(tmp_path, "\n".join(lines).replace(",", separator) if separator in "\t," else "", f"rows.{ending}")
    if separator in ";|":
        path = put(tmp_path, f"label{separator}text\npos{separator}good, fine\nneg{separator}bad", f"rows.{ending}")
    assert [label for *_, label in found(path)] == [1, 0]
    assert look_at(path, wanted=Wanted(["text", "label"])).separator == separator


def test_a_quote_that_two_lines_share_in_a_tsv_is_text(tmp_path: Path, put: Any, found: Any) -> None:
    """Field 11: GLUE's files are not quoted."""
    body = [("pos", "good"), ("pos", '"Well, he began'), ("neg", 'and then he left"'), ("neg", "bad")]
    path = put(tmp_path, "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in body))
    assert found(path) == [(text, int(label == "pos")) for label, text in body]
    assert str(look_at(path, wanted=Wanted(["text"]))) == "tabs between cells, no quoting, a header, UTF-8"


def test_quotes_that_close_too_early_in_a_tsv_are_text(tmp_path: Path, put: Any, found: Any) -> None:
    """Field 11: MRPC's pairs."""
    task = Task(name="same", text=("a", "b"), label="label", kind="binary", labels=("0", "1"))
    body = [('"Yes', 'we can" they said', 1), ('"all of it quoted"', "x", 0), ('5" wide', "y", 1)]
    path = put(tmp_path, "a\tb\tlabel\n" + "".join(f"{a}\t{b}\t{label}\n" for a, b, label in body))
    assert found(path, task) == body


def test_cells_over_several_lines_stay_legal(tmp_path: Path, put: Any, found: Any) -> None:
    rows = [("one\ntwo", "pos"), ('say "x",\n\nok', "neg"), ("plain", "pos")]
    for delimiter in "\t,;|":
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=delimiter).writerows([("text", "label"), *rows])
        path = put(tmp_path, buffer.getvalue(), "rows.txt")
        assert found(path) == [(text, int(label == "pos")) for text, label in rows]


@pytest.mark.parametrize(
    ("content", "line", "double", "none"),
    [
        ('label,text\npos,"hello\nneg,well"\nneg,x\n', 2, 2, 3),
        ('text\n"hello\nwell"\nx\n', 2, 2, 3),
        ('label\ttext\npos\t"He ""said"""\npos\t"hello\nneg\twell"\n', 3, 2, 3),
        ('label\ttext\npos\t"hello\nneg\twell"\nneg\tx\ty\n', 2, 2, 3),
    ],
)
def test_what_can_be_read_either_way_is_asked(
    tmp_path: Path, content: str, line: int, double: int, none: int, put: Any
) -> None:
    path = put(tmp_path, content)
    wanted = Wanted(content.split("\n")[0].replace("\t", ",").split(","))
    with pytest.raises(DataError) as caught:
        look_at(path, Format(key="tasks.mood.format"), wanted)
    assert str(caught.value) == (
        f"{path}:{line}: tasks.mood.format.quoting must be double (a cell in quotes goes on over lines, which makes"
        f" {double} rows) or none (each line is a row, which makes {none}): the file can be read either way"
    )
    for quoting, count in (("double", double), ("none", none)):
        rows = read_rows(path, wanted.required, None, format=Format(quoting=quoting))
        assert sum(1 for _ in rows) == count


@pytest.mark.parametrize("middle", ["", "\t1"])
def test_a_cell_of_a_tsv_may_go_on_over_lines(tmp_path: Path, middle: str, put: Any, found: Any) -> None:
    """Its first line in the last column has the width of a row, the next has not."""
    more = "\tshop" if middle else ""
    path = put(tmp_path, f'label\ttext{more}\npos\t"good\nand short"{middle}\nneg\tbad{middle}\n')
    assert found(path) == [("good\nand short", 1), ("bad", 0)]


def test_a_single_bad_row_leaves_the_others_quoted(tmp_path: Path, put: Any, refusal: Any) -> None:
    path = put(tmp_path, 'text,label\n"a, b",pos\n"c" d,neg\nonly one\n"open,neg\nlast,pos\n', "rows.csv")
    data = read_examples(path, MOOD, bad_rows="skip")
    assert [row.texts for row in data.examples] == [("a, b",), ("last",)]
    assert [bad.line for bad in data.skipped] == [3, 4, 5]
    assert "rows.csv:3: the row must have no text after a closing quote" in refusal(path)


@pytest.mark.parametrize(
    ("content", "mark"),
    [
        ("text;score\na, b;0,35\nc;1\nd;-1,5\n", True),
        ("text\tscore\na, b\t0,35\nc\t1\nd\t-1,5\n", False),
        ('text,score\n"a, b","0,35"\nc,1\nd,"-1,5"\n', False),
    ],
)
def test_decimal_commas(tmp_path: Path, content: str, mark: bool, put: Any, found: Any) -> None:
    """Field 20."""
    path = put(tmp_path, content.encode("utf-8-sig" if mark else "utf-8"))
    assert found(path, SCORE) == [("a, b", 0.35), ("c", 1.0), ("d", -1.5)]
    assert read_examples(path, SCORE).dialect is not None
    assert ", decimal commas, UTF-8" in str(read_examples(path, SCORE).dialect)


def test_a_decimal_sign_that_is_not_one_is_asked(tmp_path: Path, put: Any, found: Any, refusal: Any) -> None:
    path = put(tmp_path, "text;score\na;0,5\nb;0.5\n", "rows.csv")
    assert refusal(path, SCORE) == (
        "rows.csv:2: tasks.score.format.decimal must be ',' or '.': column 'score' has both, '0,5' here and '0.5' on"
        " line 3"
    )
    thousands = put(tmp_path, "text;score\na;1,500\nb;20\n", "rows.csv")
    assert "'1,500' in column 'score' may be a decimal sign, or part thousands" in refusal(thousands, SCORE)
    comma = Task(name="score", text="text", label="score", kind="regression", format={"decimal": ","})  # type: ignore[arg-type]
    assert found(thousands, comma) == [("a", 1.5), ("b", 20.0)]
    path = put(tmp_path, "text;score\na;0,5\nb;0.5\n", "rows.csv")
    assert refusal(path, comma).startswith("rows.csv:3: column 'score' must be a number with a decimal comma")
    assert found(put(tmp_path, "text;score\na;0,500\nb;1,500\n", "rows.csv"), SCORE) == [("a", 0.5), ("b", 1.5)]


def test_a_class_with_a_comma_is_no_number(tmp_path: Path, put: Any) -> None:
    task = Task(name="mood", text="text", label="label")
    assert infer_labels(task, put(tmp_path, "text;label\na;0,5\nb;1,5\n")).labels == ("0,5", "1,5")


@pytest.mark.parametrize(
    "content",
    [
        "text,label\ngood,pos,\nbad,neg,\n",
        "text,label,\ngood,pos,\nbad,neg,\n",
        "text;label\ngood;pos;\nbad;neg; \n",
        '"text","label"\n"good","pos",\n"bad","neg",\n',
    ],
)
def test_separators_at_the_end_of_each_row(tmp_path: Path, content: str, put: Any, found: Any) -> None:
    """Field 12."""
    assert found(put(tmp_path, content, "t.csv")) == [("good", 1), ("bad", 0)]


def test_a_separator_at_the_end_of_some_rows_is_their_fault(tmp_path: Path, put: Any, refusal: Any) -> None:
    path = put(tmp_path, "text,label\ngood,pos\nbad,neg,\n", "t.csv")
    assert refusal(path) == "t.csv:3: the row must have 2 fields like the header, not 3, got 'bad,neg,'"


def test_what_is_set_is_not_looked_for(tmp_path: Path, put: Any, found: Any, refusal: Any) -> None:
    path = put(tmp_path, "text;label,x\ngood;pos\n", "rows.csv")
    task = Task(name="mood", text="text", label="label,x", labels=("neg", "pos"), format=Format(separator=";"))
    assert found(path, task) == [("good", 1)]
    tabs = Task(name="mood", text="text", label="label", format=Format(separator="tab"))
    assert refusal(path, tabs).endswith("got 'text;label,x'; tasks.mood.format.separator is '\\t'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text;label\na;b\nc;d\n", "semicolons between cells, quoting as in CSV, a header, UTF-8"),
        ("id,text\n1,a; b\n2,c; d\n", "commas between cells, quoting as in CSV, a header, UTF-8"),
        ("A good film, I think.\nBad\nFine\n", "plain text, UTF-8"),
        ('{"a": 1}\n', "JSON lines, UTF-8"),
        ('[\n{"a": 1}]\n', "a JSON array, UTF-8"),
        ("5\tgood\n", "tabs between cells, quoting as in CSV, no header, UTF-8"),
    ],
)
def test_a_file_is_looked_at_before_its_columns_are_known(tmp_path: Path, content: str, said: str, put: Any) -> None:
    assert str(look_at(put(tmp_path, content, "rows.txt"))) == said


LINE = st.text(st.sampled_from('ab "'), min_size=1, max_size=6).filter(lambda cell: cell.strip() == cell)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LINE, LINE), min_size=1, max_size=6))
def test_a_tsv_without_quoting_is_read_as_pandas_does_or_asked(
    put: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    content = "one\ttwo\n" + "".join(f"{one}\t{two}\n" for one, two in rows)
    path = put(tmp_path_factory.mktemp("tsv"), content)
    frame = pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False)
    theirs = list(frame.itertuples(index=False, name=None))
    assert [row.cells[:2] for row in read_rows(path, ["one", "two"], format=Format(quoting="none"))] == theirs == rows
    with suppress(DataError):
        found = [row.cells[:2] for row in read_rows(path, ["one", "two"])]
        # Where quotes always stand in pairs around cells, nobody can tell; the rows are the same.
        assert found in (
            rows,
            [tuple(cell[1:-1].replace('""', '"') if cell[0] == '"' else cell for cell in row) for row in rows],
        )


CELL = st.text(st.sampled_from("ab ,;|\t\"\n'é"), min_size=1, max_size=6).filter(lambda cell: cell.strip() == cell)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.sampled_from("\t,;|"), st.booleans())
def test_what_the_csv_module_writes_is_read_or_asked(
    put: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str, everything: bool
) -> None:
    # Of these, whose lines may all look like rows, GLUE's files are likelier.
    assume(delimiter != "\t" or not any("\t" in cell and "\n" in cell for row in rows for cell in row))
    buffer = io.StringIO()
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    csv.writer(buffer, delimiter=delimiter, quoting=quoting).writerows([("one", "two"), *rows])
    path = put(tmp_path_factory.mktemp("csv"), buffer.getvalue(), "rows.txt")
    assert [row.cells[:2] for row in read_rows(path, ["one", "two"], None, format=Format(quoting="double"))] == rows
    looked: Any = None
    with suppress(DataError):
        looked = [row.cells[:2] for row in read_rows(path, ["one", "two"], None)]
    if looked is None:
        with pytest.raises(DataError, match="quoting must be double"):
            look_at(path, wanted=Wanted(["one", "two"]))
    else:
        assert looked == rows


def test_what_was_found_is_noted(tmp_path: Path, put: Any) -> None:
    rows = [(f"text {number}", ("neg", "pos")[number % 2]) for number in range(40)]
    train = put(tmp_path, "text;label\n" + "".join(f"{text};{label}\n" for text, label in rows), "train.csv")
    dev = put(tmp_path, "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), "dev.tsv")
    ours = "semicolons between cells, quoting as in CSV, a header, UTF-8"
    theirs = "tabs between cells, quoting as in CSV, a header, UTF-8"
    for files, held, note in (
        ({"train": train, "dev": dev}, None, f"mood: format of train: {ours}; dev: {theirs}"),
        ({"train": train}, True, f"mood: format of train and dev: {ours}"),
        ({"train": train}, False, f"mood: format of train: {ours}"),
    ):
        task = Task(name="mood", text="text", label="label", **files)
        notes = prepare(RunConfig(train=TrainConfig(hold_out=held), tasks=[task])).notes
        assert [line for line in notes if "format" in line] == [note]
