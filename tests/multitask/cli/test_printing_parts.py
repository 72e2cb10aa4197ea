"""A part of one's own that prints: its words are not among the rows or scores on standard output."""

import json
from pathlib import Path

import pytest

from multitask.__main__ import main
from multitask.settings.choices import POOLINGS

PLUGIN = """
from multitask import POOLINGS

print("loaded")

@POOLINGS.register("chatty")
def chatty(encoded):
    print("called")
    return encoded.packing.mean(encoded.packed)
"""


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    for name in ("_entries", "_origins"):
        monkeypatch.setattr(POOLINGS, name, dict(getattr(POOLINGS, name)))
    (tmp_path / "chatty.py").write_text(PLUGIN)
    return ["--plugin", str(tmp_path / "chatty.py"), "--quiet"]


def test_what_a_part_prints_is_on_standard_error(
    course_like: Path,
    tiny_weights: Path,
    plugin: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run, rows = str(tmp_path / "run"), tmp_path / "rows.txt"
    rows.write_text("good film\nbad story\n")
    words = ["train", "--data", str(course_like), "--weights", str(tiny_weights), "--out", run, "--epochs", "1"]
    words += ["--rounds", "1", "--set", "tasks.sst.pooling=chatty", *plugin]
    assert main(words) == 0
    first = capfd.readouterr()
    assert first.out.startswith("task ")
    assert first.err.startswith("loaded\ncalled\n")
    assert "called" not in first.out
    assert main(["evaluate", run, "--json", *plugin]) == 0
    found = capfd.readouterr()
    assert json.loads(found.out)["split"] == "dev"
    assert "called" in found.err
    assert main(["predict", run, "--task", "sst", "--input", str(rows), *plugin]) == 0
    found = capfd.readouterr()
    assert [line.split("\t")[0] for line in found.out.splitlines()] == ["id", "1", "2"]
    assert "called" in found.err
