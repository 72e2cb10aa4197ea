"""Texts longer than the encoder's positions: the ends that are kept, and the windows that they are read in."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from minbert.tokenizer import BertTokenizer
from multitask.data.batches import Batch, EncodedTexts, TaskData
from multitask.data.examples import Example
from multitask.data.long_texts import NO_LIMIT, cut_note, keep_ends, to_windows
from multitask.errors import ConfigError
from multitask.settings.task import Task

WORDS = ("good", "bad", "film", "the", "not", "is", "was")  # each one token of the tiny vocabulary
WHOLE = Task(name="t", text="a", label="y", kind="binary", labels=("0", "1"))


@pytest.fixture(scope="module")
def tokenizer(tiny_weights: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny_weights)


def text_of(length: int, seed: int = 0) -> str:
    """A text of so many tokens."""
    return " ".join(np.random.default_rng((seed, length)).choice(WORDS, length).tolist())


def row(tokens: Any, place: int) -> list[int]:
    ids: list[int] = tokens.input_ids[tokens.offsets[place] : tokens.offsets[place + 1]].tolist()
    return ids


@pytest.mark.parametrize("max_length", [24, 23, 7])
def test_the_ends_are_kept(max_length: int, tokenizer: BertTokenizer) -> None:
    texts = [text_of(length) for length in range(40)]
    whole = tokenizer.tokenize_all(texts, max_length=NO_LIMIT)
    cut = keep_ends(whole, max_length)
    room = max_length - 2
    head = round(room * 128 / 510)
    for length in range(40):
        content = row(whole, length)[1:-1]
        wanted = content if length <= room else content[:head] + content[length - room + head :]
        assert row(cut, length) == [tokenizer.cls_token_id, *wanted, tokenizer.sep_token_id]
        assert cut.truncated[length] == (length > room)


def test_of_510_tokens_128_are_the_first(tokenizer: BertTokenizer) -> None:
    """Sun et al. 2019, section 5.3.1."""
    whole = tokenizer.tokenize_all([text_of(900)], max_length=NO_LIMIT)
    content = row(whole, 0)[1:-1]
    assert row(keep_ends(whole, 512), 0)[1:-1] == content[:128] + content[-382:]


def test_a_pairs_texts_are_cut_to_the_lengths_that_the_tokenizer_gives_them(tokenizer: BertTokenizer) -> None:
    lengths = [(a, b) for a in range(0, 34, 3) for b in range(0, 34, 2)]
    columns = [[text_of(pair[side], side) for pair in lengths] for side in (0, 1)]
    for max_length in (24, 25):
        whole = tokenizer.tokenize_all(*columns, max_length=NO_LIMIT)
        cut, usual = keep_ends(whole, max_length), tokenizer.tokenize_all(*columns, max_length=max_length)
        assert cut.offsets.tolist() == usual.offsets.tolist()
        assert cut.token_type_ids.tolist() == usual.token_type_ids.tolist()
        assert cut.truncated.tolist() == usual.truncated.tolist()
        for place, (a, b) in enumerate(lengths):
            found, full = row(cut, place), row(whole, place)
            assert found[-1] == full[-1] == tokenizer.sep_token_id
            second = found.index(tokenizer.sep_token_id)
            assert found[second - 1] == full[a] or not a  # each text's last token is there
            assert found[-2] == full[-2] or not b


@pytest.fixture(scope="module")
def without_types() -> BertTokenizer:
    """RoBERTa's layout, <s> a </s></s> b </s>, all token types 0, over the same words."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.add_special_tokens(words[:4])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    roles = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    return BertTokenizer(backend, special_tokens=roles, model_max_length=512)


def test_a_pairs_texts_are_found_without_token_types(without_types: BertTokenizer) -> None:
    """Also where a separator is written in a text."""
    lengths = [(a, b) for a in range(0, 34, 3) for b in range(0, 34, 2)]
    columns = [[text_of(pair[side], side) for pair in lengths] for side in (0, 1)]
    columns[0] += ["good </s> " * 20, "</s> bad"]
    columns[1] += ["the film", "is </s> not " * 20]
    for max_length in (24, 25):
        whole = without_types.tokenize_all(*columns, max_length=NO_LIMIT)
        cut, usual = keep_ends(whole, max_length), without_types.tokenize_all(*columns, max_length=max_length)
        assert not whole.token_type_ids.any()
        assert cut.offsets.tolist() == usual.offsets.tolist()
        assert cut.spans.tolist() == usual.spans.tolist()
        for place in range(len(whole)):
            found, full = row(cut, place), row(whole, place)
            texts, kept = (
                [ids[slice(*span)] for span in spans]
                for ids, spans in ((full, whole.spans[place]), (found, cut.spans[place]))
            )
            assert found == [0, *kept[0], 2, 2, *kept[1], 2]
            for text, part in zip(texts, kept, strict=True):
                head = len(part) if len(part) == len(text) else round(len(part) * 128 / 510)
                assert part == text[:head] + text[len(text) - len(part) + head :]


def test_windows_hold_texts_of_any_layout(without_types: BertTokenizer) -> None:
    windows, firsts = to_windows(without_types.tokenize_all([text_of(60)], max_length=NO_LIMIT), 24, most=100)
    assert firsts.tolist() == [0, 5]
    assert [(row(windows, place)[0], row(windows, place)[-1]) for place in range(5)] == [(0, 2)] * 5
    assert windows.spans.tolist() == [[[1, 23], [23, 23]]] * 5


@pytest.mark.parametrize("max_length", [24, 9])
def test_windows_overlap_by_half_and_hold_all_of_a_text(max_length: int, tokenizer: BertTokenizer) -> None:
    texts = [text_of(length) for length in range(60)]
    whole = tokenizer.tokenize_all(texts, max_length=NO_LIMIT)
    windows, firsts = to_windows(whole, max_length, most=100)
    room = max_length - 2
    for length in range(60):
        content = row(whole, length)[1:-1]
        own = [row(windows, window)[1:-1] for window in range(firsts[length], firsts[length + 1])]
        starts = [0] if length <= room else [*range(0, length - room, room // 2), length - room]
        assert own == [content[start : start + room] for start in starts]
    assert not windows.truncated.any()
    assert set(windows.input_ids[windows.offsets[:-1]].tolist()) == {tokenizer.cls_token_id}
    assert set(windows.input_ids[windows.offsets[1:] - 1].tolist()) == {tokenizer.sep_token_id}


def test_windows_beyond_the_most_are_cut(tokenizer: BertTokenizer) -> None:
    texts = [text_of(length) for length in (3, 22, 23, 33, 34, 200)]
    windows, firsts = to_windows(tokenizer.tokenize_all(texts, max_length=NO_LIMIT), 24, most=2)
    assert np.diff(firsts).tolist() == [1, 1, 2, 2, 2, 2]
    assert np.bitwise_or.reduceat(windows.truncated, firsts[:-1]).tolist() == [False] * 4 + [True] * 2


LENGTHS = [3, 60, 22, 23, 90, 40, 400, 1]


@pytest.mark.parametrize("ahead", [True, False])
def test_a_batch_has_the_windows_of_its_rows(ahead: bool, tokenizer: BertTokenizer) -> None:
    task = replace(WHOLE, long="windows", windows=5)
    texts = [(text_of(length),) for length in LENGTHS]
    encoded = EncodedTexts(task, texts, tokenizer, 24, ahead=ahead)
    assert encoded.windows.tolist() == [1, 5, 1, 2, 5, 3, 5, 1]
    assert encoded.truncated.tolist() == [length in (90, 400) for length in LENGTHS]
    tokens, windows = encoded.batch(np.array([5, 0, 3]))
    assert windows == (3, 1, 2)
    each = [encoded.batch(np.array([place])) for place in (5, 0, 3)]
    for name, tensor in tokens.items():
        width = tensor.shape[1]
        padded = [torch.nn.functional.pad(one[name], (0, width - one[name].shape[1])) for one, _ in each]
        assert tensor.equal(torch.cat(padded)), name
    if ahead:
        assert encoded.lengths[[0, 2, 5]].tolist() == [5, 24, 3 * 24]
        assert EncodedTexts(task, [], tokenizer, 24).lengths.tolist() == []


def test_parts_of_a_batch_keep_a_rows_windows_together(tokenizer: BertTokenizer) -> None:
    task = replace(WHOLE, long="windows")
    examples = [Example(str(place), (text_of(length),), place % 2, place) for place, length in enumerate(LENGTHS)]
    data = TaskData.build(task, examples, tokenizer, 24)
    rows = np.array([4, 0, 3, 1, 7])
    whole = data.batch(rows)
    for count in (1, 2, 3, 5, 9):
        parts = whole.parts(count)
        assert len(parts) == min(count, 5)
        assert sum((part.windows or () for part in parts), ()) == whole.windows
        assert torch.cat([part.tokens.input_ids for part in parts]).equal(whole.tokens.input_ids)
        assert [len(part.tokens.input_ids) for part in parts] == [sum(part.windows or ()) for part in parts]
        assert [len(part.labels) for part in parts] == [len(part.windows or ()) for part in parts]
    assert isinstance(whole.to(torch.device("cpu")), Batch)
    assert whole.to(torch.device("cpu")).windows == whole.windows


@pytest.mark.parametrize("how", ["joint", "separate"])
@pytest.mark.parametrize("ahead", [True, False])
def test_pairs_keep_their_ends(how: str, ahead: bool, tokenizer: BertTokenizer) -> None:
    task = replace(WHOLE, text=("a", "b"), input=how, long="head-tail")
    texts = [(text_of(a, 1), text_of(b, 2)) for a, b in ((3, 4), (40, 2), (30, 50))]
    encoded = EncodedTexts(task, texts, tokenizer, 24, ahead=ahead)
    assert encoded.truncated.tolist() == [False, True, True]
    assert encoded.windows.tolist() == [1, 1, 1]
    tokens, windows = encoded.batch(np.array([2, 0]))
    assert windows is None
    lasts = [" ".join(tokenizer.decode(ids, skip_special_tokens=True).split()[-2:]) for ids in tokens["input_ids"]]
    wanted = (
        [texts[row][side] for side in (0, 1) for row in (2, 0)] if how == "separate" else [texts[2][1], texts[0][1]]
    )
    assert lasts == [" ".join(text.split()[-2:]) for text in wanted]


def test_windows_of_pairs_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^tasks\.t\.long must be 'head' or 'head-tail' for a pair, since any window"
    ):
        replace(WHOLE, text=("a", "b"), long="windows")
    with pytest.raises(ConfigError, match=r"^tasks\.t\.windows must be at least 1, got 0"):
        replace(WHOLE, windows=0)


def test_what_is_said_of_cut_rows() -> None:
    said = {
        long: cut_note("topic", long, 37, 600, 512, what="training rows") for long in ("head", "head-tail", "windows")
    }
    assert said == {
        "head": "topic: 37 of 600 training rows (6 %) are longer than 512 tokens and are cut: tasks.topic.long",
        "head-tail": "topic: 37 of 600 training rows (6 %) are longer than 512 tokens and lose their middle:"
        " tasks.topic.long",
        "windows": "topic: 37 of 600 training rows (6 %) have more windows of 512 tokens and are cut:"
        " tasks.topic.windows",
    }
    assert "1,000 of 1,000 rows (100 %)" in cut_note("topic", "head", 1000, 1000, 512)
    assert "(0.04 %)" in cut_note("topic", "head", 4, 10_000, 512)
