"""Tokenizers of each member of the family: ids, layouts, decoding and files equal to those of `transformers`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minbert.config import BertConfig
from minbert.errors import InputError
from minbert.tokenizer import BertTokenizer

KINDS = [f"{name}Tokenizer" for name in ("Bert", "DistilBert", "MPNet", "Roberta", "XLMRoberta", "Camembert")]
# A class, its own tokenizer.json or its vocabulary's files, and settings; None: there is no tokenizer_config.json.
FOLDERS: list[tuple[str, bool, dict[str, Any] | None]] = [
    *((name, True, None) for name in KINDS),
    *((name, False, {}) for name in KINDS[:4]),
    ("BertTokenizer", True, {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}),
    ("DistilBertTokenizer", False, {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}),
    ("MPNetTokenizer", False, {"do_lower_case": False, "sep_token": "the"}),
    ("RobertaTokenizer", False, {"add_prefix_space": True, "trim_offsets": False}),
    ("RobertaTokenizer", True, {"add_prefix_space": True, "clean_up_tokenization_spaces": True}),
    (
        "RobertaTokenizer",
        True,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        },
    ),
    ("XLMRobertaTokenizer", True, {"add_prefix_space": False, "clean_up_tokenization_spaces": True}),
    ("CamembertTokenizer", True, {"extra_special_tokens": ["cat"]}),
    ("BertTokenizer", False, {"split_special_tokens": True, "clean_up_tokenization_spaces": True}),
]


@pytest.fixture(params=FOLDERS, ids=str)
def both(request: Any, write_kind: Callable[..., Path], tmp_path: Path) -> tuple[BertTokenizer, Any, Path]:
    """A tokenizer here, transformers' of the same folder, and the folder."""
    name, json_file, config = request.param
    folder = write_kind(tmp_path / "folder", name, json_file=json_file, config=config)
    return BertTokenizer.from_pretrained(folder), auto_tokenizer(folder), folder


def auto_tokenizer(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def assert_equal(mine: BertTokenizer, theirs: Any, *texts: list[str], **asked: Any) -> None:
    """Ids, mask and, where the encoder reads them, token types are transformers'."""
    expected = theirs(*texts, padding=True, return_tensors="pt", return_token_type_ids=True, **asked)
    found = mine(*texts, **asked)
    for key in ("input_ids", "attention_mask"):
        assert found[key].equal(expected[key]), key
    types = expected["token_type_ids"]
    assert found.token_type_ids.equal(types if mine.token_types == 2 else 0 * types)


def test_ids_equal_huggingface(both: tuple[BertTokenizer, Any, Path], odd_texts: list[str]) -> None:
    mine, theirs, _ = both
    assert mine.vocab_size == len(theirs)
    for role in ("pad", "cls", "sep", "unk", "mask"):
        theirs_id = getattr(theirs, f"{role}_token_id")
        assert getattr(mine, f"{role}_token_id") == theirs_id or theirs_id is None, role
    assert_equal(mine, theirs, odd_texts)
    assert_equal(mine, theirs, odd_texts, odd_texts[::-1])


def test_cut_pairs_equal_huggingface(both: tuple[BertTokenizer, Any, Path], long_pairs: list[tuple[str, str]]) -> None:
    mine, theirs, _ = both
    compared = 0
    for text, pair in long_pairs:
        for truncation in ("longest_first", "only_first", "only_second"):
            for length in (5, 11, 20):
                asked = {"max_length": length, "truncation": truncation}
                try:
                    theirs([text], [pair], **asked)
                except Exception as error:  # tokenizers has no class of its own
                    if "Truncation error" not in str(error):
                        raise
                    with pytest.raises(InputError, match="row 0"):
                        mine([text], [pair], **asked)
                else:
                    assert_equal(mine, theirs, [text], [pair], **asked)
                    compared += 1
        assert_equal(mine, theirs, [text], max_length=7, truncation=True)
    assert compared > 15


def test_decoding_equals_huggingface(both: tuple[BertTokenizer, Any, Path], odd_texts: list[str]) -> None:
    mine, theirs, _ = both
    for row in mine(odd_texts, odd_texts[::-1]).input_ids.tolist():
        for skip in (False, True):
            assert mine.decode(row, skip) == theirs.decode(row, skip_special_tokens=skip)


def test_what_is_saved_reads_the_same_here_and_there(
    both: tuple[BertTokenizer, Any, Path], odd_texts: list[str], tmp_path: Path
) -> None:
    """With the encoder's config.json beside it, and without."""
    mine, _, folder = both
    for place, beside in ((tmp_path / "with", True), (tmp_path / "without", False)):
        mine.save_pretrained(place)
        if beside:
            (place / "config.json").write_text((folder / "config.json").read_text())
        again, theirs = BertTokenizer.from_pretrained(place), auto_tokenizer(place)
        assert again.model_max_length == theirs.model_max_length == mine.model_max_length
        assert_equal(mine, theirs, odd_texts, odd_texts[::-1])
        assert_equal(again, theirs, odd_texts)
        assert json.loads((place / "tokenizer.json").read_text())["truncation"] is None
        row = mine(odd_texts[6]).input_ids[0].tolist()
        assert again.decode(row) == theirs.decode(row) == mine.decode(row)
        # What an encoder without token types would refuse.
        assert "token_type_ids" not in theirs("a") or mine.token_types == 2


@pytest.mark.parametrize("name", KINDS)
def test_layouts_and_limits(name: str, write_kind: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_kind(tmp_path, name, json_file=True)
    tokenizer = BertTokenizer.from_pretrained(folder)
    (row,), (types, *_), mask = tokenizer("the", "cat").values()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    middle = 1 if name in KINDS[:2] else 2
    ids = row.tolist()
    assert (ids[0], ids[-1]) == (cls, sep)
    assert ids.count(sep) == 1 + middle
    assert types.tolist() == ([0] * 3 + [1] * 2 if name == "BertTokenizer" else [0] * len(ids))
    assert mask.all()
    first = 0 if name in KINDS[:2] else 2  # positions from the padding's id, 1, on
    assert tokenizer.model_max_length == 100 - first
    assert tokenizer.pad_token_id == (0 if name in KINDS[:2] else 1)
    pairs = [("the", ""), ("", "the cat"), ("on the cat", "cat")]
    rows = tokenizer.tokenize_all(*map(list, zip(*pairs, strict=True)))
    for place, (texts, spans) in enumerate(zip(pairs, rows.spans.tolist(), strict=True)):
        ids = rows.input_ids[slice(*rows.offsets[place : place + 2])].tolist()
        expected = [tokenizer.tokenize_all([text]).input_ids[1:-1].tolist() for text in texts]
        assert [ids[start:end] for start, end in spans] == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("MPNetTokenizer", {"pad_token_id": 0}),  # not read, since transformers writes 1 into the code
        ("RobertaTokenizer", {"pad_token_id": None}),
        ("RobertaTokenizer", {"max_position_embeddings": None}),
        ("XLMRobertaTokenizer", {"pad_token_id": 4}),
        ("DistilBertTokenizer", {"pad_token_id": 4}),
    ],
)
def test_the_limit_is_the_encoders(
    name: str, values: dict[str, Any], write_kind: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_kind(tmp_path, name, json_file=True) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    assert BertTokenizer.from_pretrained(tmp_path).model_max_length == BertConfig.from_folder(tmp_path).max_tokens
