"""Batches: the rows asked for, as the tokenizer gives them, whether tokenized ahead or on demand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import EncodedTexts, TaskData
from multitask.data.examples import Example
from multitask.settings.task import Task

ROWS = [
    ("a good film", "a bad film"),
    ("good " * 40, "short"),
    ("é" * 9, "bad"),
    ("short", "film " * 30),
    ("x" * 200, "y"),
    ("one", "two"),
]


@pytest.fixture(scope="module")
def tokenizer(tiny_weights: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny_weights)


def task_and_rows(how: str) -> tuple[Task, list[tuple[str, ...]]]:
    task = Task(name="t", text=("a", "b"), label="y", kind="binary", labels=("0", "1"))
    if how == "single":
        return replace(task, text=("a",)), [row[:1] for row in ROWS]
    return replace(task, input=how), list(ROWS)


@pytest.mark.parametrize("how", ["single", "joint", "separate"])
def test_rows_tokenized_on_demand_are_those_tokenized_ahead(how: str, tokenizer: BertTokenizer) -> None:
    task, rows = task_and_rows(how)
    ahead, later = (EncodedTexts(task, rows, tokenizer, 24, ahead=ahead) for ahead in (True, False))
    for chosen in ([3, 0, 5], [1], range(6)):
        for name, tensor in ahead.tokens(np.array(chosen)).items():
            assert tensor.equal(later.tokens(np.array(chosen))[name]), name
    assert 0 < ahead.truncated.sum() < len(rows)
    assert later.truncated.tolist() == ahead.truncated.tolist()


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("how", ["single", "joint", "separate"])
def test_a_batch_is_the_rows_asked_for(how: str, ahead: bool, tokenizer: BertTokenizer) -> None:
    task, rows = task_and_rows(how)
    examples = [Example(str(row), texts, row % 2, 10 + row) for row, texts in enumerate(rows)]
    data = TaskData.build(task, examples, tokenizer, 24, ahead=ahead)
    assert len(data) == 6
    assert data.lines.tolist() == [10, 11, 12, 13, 14, 15]
    batch = data.batch(np.array([3, 0, 4]))
    assert batch.labels.tolist() == [1, 0, 0]
    assert (batch.rows, batch.counts) == (3, True)
    firsts, *seconds = zip(*(rows[row] for row in (3, 0, 4)), strict=True)
    columns = [[*firsts, *seconds[0]]] if how == "separate" else [list(firsts), *map(list, seconds)]
    wanted = tokenizer(*columns, max_length=24, truncation=True)
    for name, tensor in wanted.items():
        assert tensor.equal(batch.tokens[name]), name
    if ahead:
        lengths = wanted["attention_mask"].sum(1)
        assert data.texts.lengths[[3, 0, 4]].tolist() == (
            (lengths[:3] + lengths[3:]).tolist() if how == "separate" else lengths.tolist()
        )


@pytest.mark.parametrize("length", [1, 9])
def test_a_character_that_is_several_tokens_is_known_to_be_cut(length: int, tmp_path: Path) -> None:
    """Normalization takes a Korean syllable apart: a text may have more tokens than characters."""
    parts = ["ᄀ", "ᅡ", "ᆨ"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *parts, *(f"##{part}" for part in parts)]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    task = Task(name="t", text=("a",), label="y", kind="binary", labels=("0", "1"))
    texts = EncodedTexts(task, [("각" * length,)], BertTokenizer.from_pretrained(tmp_path), 24, ahead=False)
    assert texts.tokens(np.array([0]))["attention_mask"].sum() == min(3 * length + 2, 24)
    assert texts.truncated.tolist() == [length == 9]
