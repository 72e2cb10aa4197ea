"""The table [tasks.NAME.format]: in TOML, in Python, in config.json and by --set."""

from pathlib import Path
from typing import Any

import pytest

from multitask.errors import ConfigError
from multitask.settings.config import RunConfig, build_config
from multitask.settings.format import FORMAT_KEYS, Format
from multitask.settings.task import Task

TOML = """
[tasks.a]
train = "rows.csv"
text = [1, 2]
label = 3
kind = "binary"

[tasks.a.format]
separator = "tab"
quoting = "none"
header = false
"""


def given(format: Any) -> Task:
    return Task(name="a", text="text", label="label", format=format)


def test_one_schema_everywhere(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(TOML, encoding="utf-8")
    config = build_config(tasks_file=tmp_path / "own.toml", sets=["tasks.a.format.decimal=,", "tasks.a.id=4"])
    task = config.task("a")
    assert (task.text, task.label, task.id) == (("1", "2"), "3", "4")
    assert task.format == Format(separator="\t", quoting="none", header=False, decimal=",")
    assert RunConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["tasks"]["a"]["format"] == {
        **dict.fromkeys(FORMAT_KEYS),
        **{"separator": "\t", "quoting": "none", "header": False, "decimal": ","},
    }
    assert given({"separator": ";"}) == given(Format(separator=";")) != given({})
    assert given({}) == Task(name="a", text="text", label="label")


def test_a_run_from_before_has_no_format() -> None:
    config = build_config().to_dict()
    for task in config["tasks"].values():
        del task["format"]
    assert RunConfig.from_dict(config) == build_config()


@pytest.mark.parametrize(
    ("format", "message"),
    [
        (
            {"seperator": ";"},
            r"a key of tasks.a.format must be one of separator, .* \(did you mean separator\?\)",
        ),
        ({"separator": ";;"}, "tasks.a.format.separator must be one character, or tab, got ';;'"),
        ({"separator": '"'}, "tasks.a.format.separator must be one character, or tab, got '\"'"),
        ({"quoting": "minimal"}, "tasks.a.format.quoting must be one of double, none, got 'minimal'"),
        ({"decimal": ";"}, "tasks.a.format.decimal must be one of ., ,, got ';'"),
        ({"header": 1}, "tasks.a.format.header must be true or false, got 1"),
        (
            {"encoding": "utf9"},
            "encoding must be an encoding that Python knows, such as cp1252, got 'utf9'",
        ),
        ({"encoding": "base64"}, "tasks.a.format.encoding must be an encoding that Python knows"),
        ({"sheet": 1}, "tasks.a.format.sheet must be a non-empty string, got 1"),
        (";", "tasks.a.format must be a table of separator, quoting, decimal, header, encoding, sheet, got ';'"),
        (None, "tasks.a.format must be a table of"),
    ],
)
def test_what_is_not_allowed_is_named_by_its_key(format: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        given(format)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("tasks.a.format.sep=;", "--set: a key of tasks.a.format must be one of separator, .*got 'sep'"),
        ("tasks.b.format.sheet=x", "--set: the task must be one of a, got 'b'"),
        ("tasks.a.format=x", "tasks.a.format must be a table"),
        ("tasks.a.format.sheet.x=1", "--set: the key must be tasks.NAME.KEY"),
    ],
)
def test_set_names_what_there_is(tmp_path: Path, assignment: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(TOML, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        build_config(tasks_file=tmp_path / "own.toml", sets=[assignment])


@pytest.mark.parametrize("column", [0, -1, True, 1.0, "", None])
def test_columns_are_names_or_numbers_from_1(column: Any) -> None:
    for columns in ({"text": column, "label": "label"}, {"text": "text", "label": column}):
        with pytest.raises(ConfigError, match=r"^tasks\.a\.(text|label) must (be|name) "):
            Task(name="a", **columns)
