"""The rows without labels that are made of training texts: what they are made of, and what they may not be."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from multitask import DataError, train


@pytest.fixture
def names(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What examples/more_rows.py defines."""
    monkeypatch.syspath_prepend(str(root / "examples"))
    return importlib.import_module("more_rows")


def test_spans_are_of_the_texts_and_new(names: ModuleType) -> None:
    texts = ["a b c d e f", " a  b c", "x", "u v w x y"]
    found = [text for (text,) in names.spans(texts, 500, np.random.default_rng(0))]
    # All that there are: "a b c" is a text itself, and so is x.
    wanted = {
        " ".join(words[start : start + length])
        for words in map(str.split, texts)
        for length in range(3, len(words) + 1)
        for start in range(len(words) - length + 1)
    } - {" ".join(text.split()) for text in texts}
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert len(names.spans(texts * 25, 40, np.random.default_rng(0))) <= 40


def test_pairs_are_neighbours_and_new(names: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    angles = {"a": 0.0, "b": 0.1, "c": 1.0, "d": 1.1, "e": 2.0, "f": 2.1}
    vectors = {text: torch.tensor([np.cos(angle), np.sin(angle)]) for text, angle in angles.items()}
    monkeypatch.setattr(names, "NEAREST", 1)
    found = {
        frozenset(pair)
        for seed in range(20)
        for pair in names.neighbours([("b", "a"), ("a", "c")], vectors, 9, np.random.default_rng(seed))
    }
    assert found == {frozenset("cd"), frozenset("ef")}
    assert len(names.neighbours([], vectors, 1, np.random.default_rng(0))) == 1
    monkeypatch.setattr(names, "NEAREST", 5)
    assert len(names.neighbours([("a", "b")], vectors, 9, np.random.default_rng(0))) == 9
    assert names.neighbours([], dict(list(vectors.items())[:1]), 9, np.random.default_rng(0)) == []


def test_rows_are_of_what_the_run_trained_on(
    names: ModuleType, make_config: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    held = [f"tasks.{name}.dev=none" for name in ("sst", "para", "sts")]
    run = train(make_config("train.rounds=1", *held, epochs=1), tmp_path / "run", progress=False)
    files = names.write_more_rows(run, tmp_path / "rows", weights=str(tiny_weights), times=2.0)
    assert list(files) == ["sst", "para", "sts"]
    own = run.read_split("train")
    for name, (path, rows) in files.items():
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        assert head.split("\t") == list(run.config.task(name).text)
        assert 0 < len(lines) == rows <= 2 * len(own[name])
    texts = {text for row in own["sts"].examples for text in row.texts}
    held_out = {text for row in run.read_split("dev")["sts"].examples for text in row.texts} - texts
    assert held_out
    found = files["sts"][0].read_text(encoding="utf-8")
    assert not [text for text in held_out if text in found]
    pairs = {frozenset(row.texts) for split in ("train", "dev") for row in run.read_split(split)["sts"].examples}
    assert not [line for line in found.splitlines() if frozenset(line.split("\t")) in pairs]
    again = names.write_more_rows(run, tmp_path / "again", weights=str(tiny_weights), times=2.0)
    assert all(again[name][0].read_bytes() == path.read_bytes() for name, (path, _) in files.items())


def test_files_in_a_format_of_their_own_are_refused(
    names: ModuleType, make_config: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    sets = ("train.rounds=1", "tasks.sst.format.encoding=utf-8")
    run = train(make_config(*sets, epochs=1), tmp_path / "run", progress=False)
    with pytest.raises(DataError, match=r"tasks.sst.format must be unset, got {'encoding': 'utf-8'}"):
        names.write_more_rows(run, tmp_path / "rows", weights=str(tiny_weights))


def test_what_can_not_be_is_one_sentence(root: Path, tmp_path: Path) -> None:
    for words, message in (
        ([tmp_path / "none"], f"error: {tmp_path / 'none'}"),
        ([tmp_path, "--seed", "-1"], "error: --seed must be at least 0, got -1"),
        ([tmp_path, "--times", "0"], "error: --times must be above 0 and at most 100, got 0"),
    ):
        argv = [sys.executable, "examples/more_rows.py", *map(str, words), "--out", str(tmp_path / "out")]
        done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2)
        assert message in done.stderr.splitlines()[-1]
