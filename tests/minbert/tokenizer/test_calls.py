"""What a call gives and refuses, and the ragged rows of tokenize_all."""

import copy
import math
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

from minbert.errors import InputError
from minbert.tokenizer import BertTokenizer


def test_a_pair_is_laid_out_as_bert_reads_it(vocabulary: list[str], tokenizer: BertTokenizer) -> None:
    batch = tokenizer(["the cat", "on"], ["sat", "the mat"])
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    the, cat, sat, on, mat = map(vocabulary.index, ("the", "cat", "sat", "on", "mat"))
    assert batch["input_ids"].tolist() == [[cls, the, cat, sep, sat, sep], [cls, on, sep, the, mat, sep]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 6]


def test_a_batch_is_a_mapping_that_a_model_takes(tokenizer: BertTokenizer) -> None:
    batch = tokenizer(["the cat", "on"])
    assert isinstance(batch, Mapping)
    assert list(batch) == ["input_ids", "token_type_ids", "attention_mask"]
    assert len(batch) == 3
    assert dict(**batch)["input_ids"] is batch.input_ids
    assert "labels" not in batch
    with pytest.raises(KeyError):
        batch["to"]
    assert torch.equal(batch.to("cpu").attention_mask, batch.attention_mask)


def test_padding_as_asked(tokenizer: BertTokenizer) -> None:
    rows = ["the cat sat", "on"]
    assert tokenizer(rows).input_ids.shape == (2, 5)
    assert torch.equal(tokenizer(rows, padding="longest").input_ids, tokenizer(rows, padding=True).input_ids)
    assert tokenizer(rows, padding="max_length").input_ids.shape == (2, tokenizer.model_max_length)
    padded = tokenizer(rows, padding="max_length", max_length=9)
    assert padded.attention_mask.tolist() == [[1] * 5 + [0] * 4, [1] * 3 + [0] * 6]
    assert (padded.input_ids[padded.attention_mask == 0] == tokenizer.pad_token_id).all()
    assert tokenizer(["the cat", "on mat"], padding=False).input_ids.shape == (2, 4)
    with pytest.raises(
        InputError, match="padding must be True for rows of unequal lengths, got False for 3 to 5 tokens"
    ):
        tokenizer(rows, padding=False)
    with pytest.raises(InputError, match="padding must be True, 'longest', 'max_length' or False, got 'left'"):
        tokenizer(rows, padding="left")  # type: ignore[arg-type]


def test_max_length_cuts_only_where_truncation_says_so(tokenizer: BertTokenizer) -> None:
    assert tokenizer(["word " * 100], max_length=8).input_ids.shape == (1, 402)
    assert tokenizer(["word " * 100], max_length=8, truncation=True).input_ids.shape == (1, 8)
    assert tokenizer(["word " * 100], truncation=True).input_ids.shape == (1, 64)
    assert tokenizer(["word " * 100]).input_ids.shape == (1, 402)  # the call before leaves nothing behind


@pytest.mark.parametrize("max_length", [0, 1, -5, 2.5, "8", True])
def test_a_max_length_without_room_is_refused(tokenizer: BertTokenizer, max_length: Any) -> None:
    with pytest.raises(InputError, match="max_length must be an integer from 2 to 1048576, got "):
        tokenizer(["the cat"], max_length=max_length, truncation=True)


def test_a_truncation_that_cannot_fit_names_its_row(tokenizer: BertTokenizer) -> None:
    with pytest.raises(InputError, match="row 1 can't be cut"):
        tokenizer(["on", "the cat " * 9], ["the", "cat"], max_length=8, truncation="only_second")
    with pytest.raises(InputError, match="pairs must be given for truncation='only_second', got None"):
        tokenizer(["on"], max_length=8, truncation="only_second")
    with pytest.raises(InputError, match="truncation must be True, .* or False, got 'middle'"):
        tokenizer(["on"], truncation="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [None, math.nan, 3, b"bytes", ["a"]])
def test_a_text_that_is_no_string_is_named(tokenizer: BertTokenizer, bad: Any) -> None:
    with pytest.raises(InputError) as caught:
        tokenizer(["the", bad, "cat"])
    assert str(caught.value) == f"texts[1] must be a string, got {bad!r}"
    with pytest.raises(InputError) as caught:
        tokenizer.tokenize_all(["the", "cat"], ["sat", bad])
    assert str(caught.value) == f"pairs[1] must be a string, got {bad!r}"


def test_no_text_at_all_and_long_ones_are_named(tokenizer: BertTokenizer) -> None:
    with pytest.raises(InputError, match="^texts must be a string or several, got None$"):
        tokenizer(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="^texts.1. must be valid Unicode text, got ") as caught:
        tokenizer(["the", "cat " * 1000 + "\ud800"])
    assert len(str(caught.value)) < 100


def test_other_bad_rows_are_refused(tokenizer: BertTokenizer) -> None:
    with pytest.raises(InputError, match="pairs must have as many entries as texts .2., got 1"):
        tokenizer(["the", "cat"], ["sat"])
    with pytest.raises(InputError, match=r"texts\[0\] must be valid Unicode text, got 'half"):
        tokenizer(["half a pair \ud83d"])


def test_one_string_is_a_batch_of_one(tokenizer: BertTokenizer) -> None:
    assert torch.equal(tokenizer("the cat", "sat").input_ids, tokenizer(["the cat"], ["sat"]).input_ids)
    assert torch.equal(tokenizer(np.array(["the cat"])).input_ids, tokenizer("the cat").input_ids)  # type: ignore[arg-type]


def test_no_rows_give_an_empty_batch(tokenizer: BertTokenizer) -> None:
    assert tokenizer([]).input_ids.shape == (0, 0)
    assert len(tokenizer.tokenize_all([])) == 0


def test_tokenize_all_holds_what_calls_give(
    assert_same: Callable[..., None], long_pairs: list[tuple[str, str]], tokenizer: BertTokenizer
) -> None:
    texts = [text for text, _ in long_pairs]
    pairs = [pair for _, pair in long_pairs]
    rows = tokenizer.tokenize_all(texts, pairs, max_length=12)
    assert len(rows) == len(texts)
    assert (rows.input_ids.dtype, rows.token_type_ids.dtype, rows.offsets.dtype) == (
        np.int32,
        np.uint8,
        np.int64,
    )
    assert rows.input_ids.shape == rows.token_type_ids.shape == (rows.offsets[-1],)
    assert rows.truncated.dtype == bool
    assert (rows.lengths <= 12).all()
    full = tokenizer(texts, pairs)
    assert rows.truncated.tolist() == (full.attention_mask.sum(1) > 12).tolist()
    chosen = [3, 0, 3]
    expected = tokenizer([texts[i] for i in chosen], [pairs[i] for i in chosen], max_length=12, truncation=True)
    assert_same(rows.batch(chosen), expected)
    assert_same(rows.batch(np.array(chosen)), expected)
    assert rows.batch([3]).input_ids.shape == (1, rows.lengths[3])
    assert rows.batch([]).input_ids.shape == (0, 0)


def test_an_index_outside_is_refused(tokenizer: BertTokenizer) -> None:
    rows = tokenizer.tokenize_all(["the", "cat"])
    for index in (2, -1):
        with pytest.raises(InputError, match=f"indices must be from 0 to 1, got {index}"):
            rows.batch([0, index])


def test_chunks_do_not_show(tokenizer: BertTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'the cat ' * (i % 5)}{i}" for i in range(50)]
    whole = tokenizer.tokenize_all(texts)
    monkeypatch.setattr("minbert.tokenizer.CHUNK_ROWS", 7)
    parts = tokenizer.tokenize_all(texts)
    for name in ("input_ids", "token_type_ids", "offsets", "truncated"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    with pytest.raises(InputError, match="row 20 can't be cut"):
        tokenizer(["on"] * 20 + ["the cat " * 9], ["on"] * 21, max_length=8, truncation="only_second")


def test_eight_threads_get_what_each_asks_for(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    """With one backend for all, most of these calls were cut to another thread's length, or not at all."""
    texts = ["word " * 300] * 4
    widths: list[int | None] = [None, *range(8, 31)]  # None: not cut; more than there are backends kept

    def call(number: int) -> tuple[int | None, int]:
        width = widths[number % 24]
        if number % 40 == 0:  # saving once switched the truncation of calls beside it off
            tokenizer.save_pretrained(tmp_path / str(number))
        return width, tokenizer(texts, truncation=width is not None, max_length=width).input_ids.shape[1]

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(call, range(480)))
    assert found == {(width, width or 1202): 20 for width in widths}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))])
def test_a_copy_gives_the_same(
    copied: Callable[[BertTokenizer], BertTokenizer],
    tokenizer: BertTokenizer,
    long_pairs: list[tuple[str, str]],
    assert_same: Callable[..., None],
) -> None:
    """As DataLoader's worker processes take it."""
    texts, pairs = zip(*long_pairs, strict=True)
    for asked in ({}, {"truncation": True, "max_length": 9}):
        assert_same(copied(tokenizer)(texts, pairs, **asked), tokenizer(texts, pairs, **asked))


def test_the_given_backend_is_left_as_it_is(folder: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece.from_file(str(folder / "vocab.txt"), unk_token="[UNK]"))
    backend.enable_truncation(3)
    backend.enable_padding(length=5)
    roles = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    before = backend.to_str()
    tokenizer = BertTokenizer(backend, special_tokens=roles, model_max_length=64)
    assert tokenizer(["the"], truncation=True, max_length=8).input_ids.shape == (1, 3)
    assert backend.to_str() == before
