"""BertTokenizer: its own behaviour, and ids equal to those of `transformers.AutoTokenizer`."""

import csv
import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minbert.errors import InputError, WeightsError
from minbert.tokenizer import BertTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = string.ascii_letters + string.digits + string.punctuation + "éüñçß北京"
WORDS = ["the", "cat", "sat", "##ting", "on", "mat", "un", "##believ", "##able", "The", "naïve", "naive"]
ODD_TEXTS = [
    "The cat sat on the mat.",
    "",
    "   ",
    "UNBELIEVABLE!!! naïve café Ünïcødé",
    "北京 is 中国's capital",
    "a [SEP] b [MASK] c [CLS][PAD] [sep]",
    "emoji 🙂👩‍👩‍👧 zero\u200bwidth nb\u00a0space \x00\x07control \ufffd",
    "tab\tnew\nline\r\n\u2028 done",
    "x" * 101 + " " + "y" * 100,
    "don't can't -- re-use $5.00 50% e.g. U.S.A.",
    "مرحبا שלום नमस्ते สวัสดี",
    "e\u0301 combining İstanbul ﬁ ligature ½ ①",
    "word " * 40,
]
LONG_PAIRS = [
    ("the cat " * 12, "on the mat " * 3),
    ("the cat", "on the mat sat " * 9),
    ("a b c d e f g h", "i j k l m n o p"),
    ("short", "short too"),
    ("odd " * 7, "even " * 7),
]


def write_folder(folder: Path, *, config: Mapping[str, Any] | None = None) -> Path:
    """A folder with a small vocab.txt that spells any word of LETTERS."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", **(config or {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("tokenizer"), config={"model_max_length": 64})


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(folder)


def auto_tokenizer(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def assert_same(mine: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    assert set(mine) == set(other) == {"input_ids", "token_type_ids", "attention_mask"}
    for key, tensor in mine.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, other[key]), key


# What a call gives


def test_a_pair_is_laid_out_as_bert_reads_it(tokenizer: BertTokenizer) -> None:
    batch = tokenizer(["the cat", "on"], ["sat", "the mat"])
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    first_word = len(SPECIAL) + 2 * len(LETTERS)
    the, cat, sat, on, mat = (first_word + WORDS.index(word) for word in ("the", "cat", "sat", "on", "mat"))
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
    with pytest.raises(InputError, match="padding=False needs rows of one length, these have 3 to 5 tokens"):
        tokenizer(rows, padding=False)
    with pytest.raises(InputError, match="padding is 'left', allowed are"):
        tokenizer(rows, padding="left")  # type: ignore[arg-type]


def test_max_length_cuts_only_where_truncation_says_so(tokenizer: BertTokenizer) -> None:
    assert tokenizer(["word " * 100], max_length=8).input_ids.shape == (1, 402)
    assert tokenizer(["word " * 100], max_length=8, truncation=True).input_ids.shape == (1, 8)
    assert tokenizer(["word " * 100], truncation=True).input_ids.shape == (1, 64)
    assert tokenizer(["word " * 100]).input_ids.shape == (1, 402)  # the call before leaves nothing behind


@pytest.mark.parametrize("max_length", [0, 1, -5, 2.5, "8", True])
def test_a_max_length_without_room_is_refused(tokenizer: BertTokenizer, max_length: Any) -> None:
    with pytest.raises(InputError, match="max_length is .* integer from 2 to 1048576"):
        tokenizer(["the cat"], max_length=max_length, truncation=True)


def test_a_truncation_that_cannot_fit_names_its_row(tokenizer: BertTokenizer) -> None:
    with pytest.raises(InputError, match="row 1 can't be cut"):
        tokenizer(["on", "the cat " * 9], ["the", "cat"], max_length=8, truncation="only_second")
    with pytest.raises(InputError, match="truncation='only_second' needs pairs"):
        tokenizer(["on"], max_length=8, truncation="only_second")
    with pytest.raises(InputError, match="truncation is 'middle', allowed are"):
        tokenizer(["on"], truncation="middle")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [None, math.nan, 3, b"bytes", ["a"]])
def test_a_text_that_is_no_string_is_named(tokenizer: BertTokenizer, bad: Any) -> None:
    with pytest.raises(InputError) as caught:
        tokenizer(["the", bad, "cat"])
    assert str(caught.value).startswith(f"texts[1] is {bad!r}, ")
    with pytest.raises(InputError) as caught:
        tokenizer.tokenize_all(["the", "cat"], ["sat", bad])
    assert str(caught.value).startswith(f"pairs[1] is {bad!r}, ")


def test_other_bad_rows_are_refused(tokenizer: BertTokenizer) -> None:
    with pytest.raises(InputError, match="pairs has 1 entries and texts 2"):
        tokenizer(["the", "cat"], ["sat"])
    with pytest.raises(InputError, match=r"texts\[0\] is .* not valid Unicode"):
        tokenizer(["half a pair \ud83d"])


def test_one_string_is_a_batch_of_one(tokenizer: BertTokenizer) -> None:
    assert torch.equal(tokenizer("the cat", "sat").input_ids, tokenizer(["the cat"], ["sat"]).input_ids)
    assert torch.equal(tokenizer(np.array(["the cat"])).input_ids, tokenizer("the cat").input_ids)  # type: ignore[arg-type]


def test_no_rows_give_an_empty_batch(tokenizer: BertTokenizer) -> None:
    assert tokenizer([]).input_ids.shape == (0, 0)
    assert len(tokenizer.tokenize_all([])) == 0


# Ragged storage


def test_tokenize_all_holds_what_calls_give(tokenizer: BertTokenizer) -> None:
    texts = [text for text, _ in LONG_PAIRS]
    pairs = [pair for _, pair in LONG_PAIRS]
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
        with pytest.raises(InputError, match=f"indices holds {index}, allowed is 0 to 1"):
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


# Files


def test_special_tokens_and_sizes(tokenizer: BertTokenizer) -> None:
    assert tokenizer.pad_token_id == 0
    assert tokenizer.unk_token_id == 1
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (2, 3, 4)
    assert tokenizer.vocab_size == len(SPECIAL) + 2 * len(LETTERS) + len(WORDS)
    assert tokenizer.model_max_length == 64


@pytest.mark.parametrize(
    ("written", "positions", "expected"),
    [(None, None, 512), (10**30, 40, 40), (30, 40, 30), (64, 40, 40), (None, 40, 40), (1e30, None, 512)],
)
def test_model_max_length(tmp_path: Path, written: Any, positions: int | None, expected: int) -> None:
    write_folder(tmp_path, config={} if written is None else {"model_max_length": written})
    if positions is not None:
        (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))
    assert BertTokenizer.from_pretrained(tmp_path).model_max_length == expected


def test_truncation_and_padding_of_the_file_are_switched_off(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert backend.truncation is None
    assert backend.padding is None
    backend.enable_truncation(10)
    backend.enable_padding(length=10)
    backend.save(str(tmp_path / "tokenizer.json"))
    baked = BertTokenizer.from_pretrained(tmp_path)
    assert_same(baked(["word " * 9, "on"]), tokenizer(["word " * 9, "on"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read by the installed tokenizers "),
        ('{"version": "1.0", "model": {"type": "Unheard"}}', "can't be read by the installed tokenizers "),
    ],
)
def test_a_broken_tokenizer_json_is_named(folder: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError) as caught:
        BertTokenizer.from_pretrained(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)
    assert message + tokenizers.__version__ in str(caught.value)


def test_other_broken_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds neither tokenizer.json nor vocab.txt"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
    with pytest.raises(WeightsError, match=r"vocab.txt: the vocabulary lacks \[CLS\], \[SEP\]"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match="vocab.txt is not UTF-8"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="tokenizer_config.json holds a list"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{,")
    with pytest.raises(WeightsError, match="tokenizer_config.json is not valid JSON"):
        BertTokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_without_a_mask_token(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.mask_token_id is None
    assert tokenizer.vocab_size == 5


# Against HuggingFace

CONFIGS: list[dict[str, Any]] = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
    {"sep_token": "the", "cls_token": {"content": "cat", "__type": "AddedToken"}},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_ids_of_a_vocab_txt_equal_huggingface(tmp_path: Path, config: dict[str, Any]) -> None:
    mine = BertTokenizer.from_pretrained(write_folder(tmp_path, config=config))
    theirs = auto_tokenizer(tmp_path)
    assert mine.vocab_size == len(theirs)
    assert mine.mask_token_id == theirs.mask_token_id
    assert_same(mine(ODD_TEXTS), theirs(ODD_TEXTS, padding=True, return_tensors="pt"))
    others = ODD_TEXTS[::-1]
    assert_same(mine(ODD_TEXTS, others), theirs(ODD_TEXTS, others, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("config", CONFIGS[:5], ids=str)
def test_what_is_saved_reads_the_same_here_and_there(tmp_path: Path, config: dict[str, Any]) -> None:
    config = {**config, "model_max_length": 48}
    mine = BertTokenizer.from_pretrained(write_folder(tmp_path / "first", config=config))
    mine.save_pretrained(tmp_path / "second")
    again = BertTokenizer.from_pretrained(tmp_path / "second")
    assert again.model_max_length == 48
    assert_same(mine(ODD_TEXTS), again(ODD_TEXTS))
    assert sorted(file.name for file in (tmp_path / "second").iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    theirs = auto_tokenizer(tmp_path / "second")
    assert theirs.model_max_length == 48
    assert_same(mine(ODD_TEXTS), theirs(ODD_TEXTS, padding=True, return_tensors="pt"))
    (tmp_path / "second" / "tokenizer.json").unlink()
    assert_same(mine(ODD_TEXTS), BertTokenizer.from_pretrained(tmp_path / "second")(ODD_TEXTS))


def test_what_huggingface_saves_reads_the_same(folder: Path, tokenizer: BertTokenizer, tmp_path: Path) -> None:
    auto_tokenizer(folder).save_pretrained(str(tmp_path))
    assert (tmp_path / "tokenizer.json").is_file()
    assert_same(BertTokenizer.from_pretrained(tmp_path)(ODD_TEXTS), tokenizer(ODD_TEXTS))


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second", True, False])
@pytest.mark.parametrize("padding", [True, "max_length"])
@pytest.mark.filterwarnings("ignore:`max_length` is ignored when:UserWarning")
def test_truncated_pairs_equal_huggingface(folder: Path, truncation: Any, padding: Any) -> None:
    mine, theirs = BertTokenizer.from_pretrained(folder), auto_tokenizer(folder)
    compared = 0
    for text, pair in LONG_PAIRS:
        for max_length in range(4, 40):
            asked = {"max_length": max_length, "truncation": truncation, "padding": padding}
            try:
                expected = theirs([text], [pair], return_tensors="pt", **asked)
            except Exception as error:  # tokenizers has no class of its own
                if "Truncation error" not in str(error):
                    raise
                with pytest.raises(InputError, match="row 0"):
                    mine([text], [pair], **asked)
                continue
            assert_same(mine([text], [pair], **asked), expected)
            compared += 1
    assert compared > 60


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    cased=st.booleans(),
)
def test_any_unicode_text_equals_huggingface(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cased: bool
) -> None:
    place = tmp_path_factory.getbasetemp() / f"any_text_{cased}"
    if not place.is_dir():
        write_folder(place, config={"do_lower_case": not cased})
    mine, theirs = BertTokenizer.from_pretrained(place), auto_tokenizer(place)
    assert_same(mine(texts), theirs(texts, padding=True, return_tensors="pt"))


def test_all_minilm_equals_huggingface(minilm_weights: Path) -> None:
    mine, theirs = BertTokenizer.from_pretrained(minilm_weights), auto_tokenizer(minilm_weights)
    texts = [*ODD_TEXTS, "a very long text " * 100]  # over the 128 tokens that its file cuts at
    assert_same(mine(texts), theirs(texts, padding=True, return_tensors="pt"))
    assert mine.vocab_size == 30522
    assert mine.model_max_length == 512
    assert mine.mask_token_id == 103


@pytest.mark.parametrize(
    ("file", "columns"),
    [
        ("ids-sst-dev.csv", ["sentence"]),
        ("sts-dev.csv", ["sentence1", "sentence2"]),
        ("quora-dev.csv", ["sentence1", "sentence2"]),
    ],
)
def test_dev_sentences_equal_huggingface(
    course_data: Path, minilm_weights: Path, file: str, columns: list[str]
) -> None:
    with (course_data / file).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    texts = [[row[column] for row in rows] for column in columns]
    assert len(rows) > 500
    mine, theirs = BertTokenizer.from_pretrained(minilm_weights), auto_tokenizer(minilm_weights)
    tokenized = mine.tokenize_all(*texts, max_length=32)
    expected = theirs(*texts, max_length=32, truncation=True, padding=True, return_tensors="pt")
    assert_same(tokenized.batch(range(len(rows))), expected)
    assert_same(mine(*texts), theirs(*texts, padding=True, return_tensors="pt"))
