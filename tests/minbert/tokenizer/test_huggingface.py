"""Token ids and files equal to those of `transformers.AutoTokenizer`."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minbert.errors import InputError
from minbert.tokenizer import BertTokenizer

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
CONFIGS: list[dict[str, Any]] = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False},
    {"sep_token": "the", "cls_token": {"content": "cat", "__type": "AddedToken"}},
]


def auto_tokenizer(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_ids_of_a_vocab_txt_equal_huggingface(
    write_folder: Callable[..., Path], assert_same: Callable[..., None], tmp_path: Path, config: dict[str, Any]
) -> None:
    mine = BertTokenizer.from_pretrained(write_folder(tmp_path, config=config))
    theirs = auto_tokenizer(tmp_path)
    assert mine.vocab_size == len(theirs)
    assert mine.mask_token_id == theirs.mask_token_id
    assert_same(mine(ODD_TEXTS), theirs(ODD_TEXTS, padding=True, return_tensors="pt"))
    others = ODD_TEXTS[::-1]
    assert_same(mine(ODD_TEXTS, others), theirs(ODD_TEXTS, others, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("config", CONFIGS[:5], ids=str)
def test_what_is_saved_reads_the_same_here_and_there(
    write_folder: Callable[..., Path], assert_same: Callable[..., None], tmp_path: Path, config: dict[str, Any]
) -> None:
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


def test_what_huggingface_saves_reads_the_same(
    assert_same: Callable[..., None], folder: Path, tokenizer: BertTokenizer, tmp_path: Path
) -> None:
    auto_tokenizer(folder).save_pretrained(str(tmp_path))
    assert (tmp_path / "tokenizer.json").is_file()
    assert_same(BertTokenizer.from_pretrained(tmp_path)(ODD_TEXTS), tokenizer(ODD_TEXTS))


@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second", True, False])
@pytest.mark.parametrize("padding", [True, "max_length"])
@pytest.mark.filterwarnings("ignore:`max_length` is ignored when:UserWarning")
def test_truncated_pairs_equal_huggingface(
    assert_same: Callable[..., None], long_pairs: list[tuple[str, str]], folder: Path, truncation: Any, padding: Any
) -> None:
    mine, theirs = BertTokenizer.from_pretrained(folder), auto_tokenizer(folder)
    compared = 0
    for text, pair in long_pairs:
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
    write_folder: Callable[..., Path],
    assert_same: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    cased: bool,
) -> None:
    place = tmp_path_factory.getbasetemp() / f"any_text_{cased}"
    if not place.is_dir():
        write_folder(place, config={"do_lower_case": not cased})
    mine, theirs = BertTokenizer.from_pretrained(place), auto_tokenizer(place)
    assert_same(mine(texts), theirs(texts, padding=True, return_tensors="pt"))


def test_all_minilm_equals_huggingface(assert_same: Callable[..., None], minilm_weights: Path) -> None:
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
    assert_same: Callable[..., None], course_data: Path, minilm_weights: Path, file: str, columns: list[str]
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


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_decoding_equals_huggingface(
    write_folder: Callable[..., Path], tmp_path: Path, config: dict[str, Any], skip: bool
) -> None:
    mine = BertTokenizer.from_pretrained(write_folder(tmp_path, config=config))
    theirs = auto_tokenizer(tmp_path)
    for row in mine(ODD_TEXTS, ODD_TEXTS[::-1]).input_ids:
        expected = theirs.decode(row, skip_special_tokens=skip)
        assert mine.decode(row, skip) == mine.decode(row.numpy(), skip) == mine.decode(row.tolist(), skip) == expected
    assert mine.decode([]) == ""


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2], [3, 4]], r"one row of token ids, got the shape \(2, 2\)"),
        ([0.5], "one row of token ids, got .* float64"),
        ([1, 5000], "ids must be from 0 to [0-9]+, got 5000"),
        ([-1], "got -1"),
    ],
)
def test_what_cannot_be_decoded_is_refused(folder: Path, ids: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BertTokenizer.from_pretrained(folder).decode(ids)
