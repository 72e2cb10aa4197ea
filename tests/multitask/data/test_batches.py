"""Rows tokenized when they are asked for are the rows tokenized ahead."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import EncodedTexts
from multitask.settings.task import Task

ROWS = [
    ("a good film", "a bad film"),
    ("good " * 40, "short"),
    ("é" * 9, "bad"),
    ("short", "film " * 30),
    ("x" * 200, "y"),
    ("one", "two"),
]


@pytest.mark.parametrize("how", ["single", "joint", "separate"])
def test_rows_tokenized_on_demand_are_those_tokenized_ahead(how: str, tiny_weights: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(tiny_weights)
    task = Task(name="t", text=("a", "b"), label="y", kind="binary", labels=("0", "1"))
    task = replace(task, text=("a",)) if how == "single" else replace(task, input=how)
    rows = [row[:1] for row in ROWS] if how == "single" else ROWS
    ahead, later = (EncodedTexts(task, rows, tokenizer, 24, ahead=ahead) for ahead in (True, False))
    for chosen in ([3, 0, 5], [1], range(6)):
        for name, tensor in ahead.tokens(np.array(chosen)).items():
            assert tensor.equal(later.tokens(np.array(chosen))[name]), name
    assert 0 < ahead.truncated.sum() < len(rows)
    assert later.truncated.tolist() == ahead.truncated.tolist()
