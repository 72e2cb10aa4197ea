"""From texts to rows: what is held out, long texts in pieces, and which rows make a step."""

import numpy as np
import pytest

from minbert import BertTokenizer
from multitask import DataError
from multitask.pretraining.masks import Masker
from multitask.pretraining.rows import MOST_HELD_OUT, Order, build_rows, hold_out


@pytest.mark.parametrize(("count", "held"), [(2, 1), (19, 1), (20, 2), (95, 9), (30_000, MOST_HELD_OUT)])
def test_a_tenth_is_held_out_by_the_seed(count: int, held: int) -> None:
    texts = [str(number) for number in range(count)]
    train, out = hold_out(texts, 1)
    assert len(out) == held
    assert sorted([*train, *out], key=int) == texts
    assert (train, out) == hold_out(texts, 1)
    assert count < 20 or out != hold_out(texts, 2)[1]


def test_a_long_text_becomes_rows_that_hold_all_of_it(tokenizer: BertTokenizer, masker: Masker) -> None:
    words = ["a", "b", "c", "d", "e", "f", "g"] * 5
    texts = ["a b", " ".join(words), "c", "☃ ☃"]
    rows = build_rows(texts, tokenizer, masker, 10)
    assert (rows.cut, rows.without) == (1, 1)  # the last has nothing that could be masked
    whole = tokenizer(" ".join(words)).input_ids[0, 1:-1].tolist()
    ids = rows.batch(np.arange(len(rows))).input_ids
    lengths = rows.lengths.tolist()
    inner = [row[1 : length - 1].tolist() for row, length in zip(ids, lengths, strict=True)]
    assert sum(inner[1:-1], []) == whole
    assert max(lengths) <= 10
    assert max(lengths[1:-1]) - min(lengths[1:-1]) <= 1
    assert {row[0].item() for row in ids} == {tokenizer.cls_token_id}
    assert {row[length - 1].item() for row, length in zip(ids, lengths, strict=True)} == {tokenizer.sep_token_id}


def test_a_text_that_the_tokenizer_would_cut_is_refused(
    tokenizer: BertTokenizer, masker: Masker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multitask.pretraining.rows.NO_LIMIT", 6)
    assert len(build_rows(["a b c d"], tokenizer, masker, 4)) == 2
    with pytest.raises(DataError, match=r"^a text must have at most 6 tokens, got more in 'a b c d e'; break it into"):
        build_rows(["c", "a b c d e"], tokenizer, masker, 4)


def test_each_epoch_has_every_row_once_in_another_order() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 333)
    order = Order(lengths, 32, seed=1)
    assert order.steps == 11
    epochs = [[order.rows(epoch, step) for step in range(order.steps)] for epoch in (0, 1)]
    for batches in epochs:
        assert sorted(np.concatenate(batches).tolist()) == list(range(333))
        assert sorted(map(len, batches)) == [13, *[32] * 10]
    together = [{tuple(sorted(batch.tolist())) for batch in batches} for batches in epochs]
    assert not together[0] & together[1]  # other rows together, too


def test_rows_of_a_step_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 5000)
    order = Order(lengths, 32, seed=1)
    spread = np.mean([np.ptp(lengths[order.rows(0, step)]) for step in range(order.steps)])
    assert spread < 8  # 53 for the rows as they come


def test_a_step_follows_from_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 5000)
    order = Order(lengths, 32, seed=1)
    first = [order.rows(0, step) for step in range(order.steps)]
    fresh = Order(lengths, 32, seed=1)
    assert np.array_equal(fresh.rows(0, 100), first[100])
    fresh.rows(3, 0)
    assert np.array_equal(fresh.rows(0, 7), first[7])
    assert not np.array_equal(Order(lengths, 32, seed=2).rows(0, 7), first[7])
