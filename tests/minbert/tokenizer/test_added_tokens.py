"""Added and special tokens, in each place where files have them, against `transformers.AutoTokenizer`; refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minbert.errors import WeightsError
from minbert.tokenizer import BertTokenizer

KINDS = [f"{name}Tokenizer" for name in ("Bert", "DistilBert", "MPNet", "Roberta", "XLMRoberta", "Camembert")]
NEW = {"content": "<new>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
NO_BYTES = {"vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}, "merges": [], "unk_token": "<unk>"}
CAT = {**NEW, "content": "cat", "single_word": True, "__type": "AddedToken"}
# Files of a folder beside its vocabulary, SIZE for the first free id and the next: what each says of tokens.
PLACES: dict[str, dict[str, Any]] = {
    "added_tokens.json": {"added_tokens.json": {"<new>": 0, "the new cat": 1}},
    "added, some special": {
        "added_tokens.json": {"<new>": 0, "[extra]": 1},
        "tokenizer_config.json": {"additional_special_tokens": ["[extra]"]},
    },
    "added, one with a role": {
        "added_tokens.json": {"<new>": 0, "[extra]": 1},
        "tokenizer_config.json": {
            "eos_token": {**NEW, "lstrip": False, "__type": "AddedToken"},
            "bos_token": "[extra]",
        },
    },
    "additional": {"tokenizer_config.json": {"additional_special_tokens": ["[extra]", "<new>", "a"]}},
    "extra": {"tokenizer_config.json": {"extra_special_tokens": ["<new>", "[extra]"]}},
    "extra by role": {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<new>"}}},
    "a role of its own": {"tokenizer_config.json": {"video_token": "<new>"}},
    "objects": {
        "tokenizer_config.json": {"additional_special_tokens": [{**NEW, "__type": "AddedToken", "special": True}]}
    },
    "decoder": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"1": {**NEW, "special": True, "lstrip": False}, "0": {**NEW, "content": "[extra]"}}
        },
        "added_tokens.json": {"not read": 77},
    },
    "map": {"special_tokens_map.json": {"additional_special_tokens": ["<new>"], "mask_token": {**NEW, "content": "a"}}},
    "map over config": {
        "special_tokens_map.json": {"sep_token": "a"},
        "tokenizer_config.json": {"sep_token": "t"},
    },
    "bos and eos": {"tokenizer_config.json": {"bos_token": "<new>", "eos_token": "a"}},
    "flags of several roles": {
        "tokenizer_config.json": {
            "bos_token": {**NEW, "content": "a", "__type": "AddedToken"},
            "additional_special_tokens": [
                "a",
                {**NEW, "__type": "AddedToken"},
                "<new>",
                {**CAT, "__type": "AddedToken"},
            ],
        }
    },
    "by role and listed": {
        "tokenizer_config.json": {"extra_special_tokens": {"one": "a"}, "additional_special_tokens": ["<new>"]}
    },
    "a mask that the vocabulary lacks": {"tokenizer_config.json": {"mask_token": "<new>"}},
    "a separator that is listed, too": {
        "tokenizer_config.json": {"sep_token": "<new>", "additional_special_tokens": ["[extra]", "<new>"]}
    },
    "no mask": {"tokenizer_config.json": {"mask_token": None}},
    "a mask by its text": {"special_tokens_map.json": {"mask_token": "<mask>"}},
    "objects that are not special": {
        "tokenizer_config.json": {
            "additional_special_tokens": [{**NEW, "__type": "AddedToken"}],
            "split_special_tokens": True,
        }
    },
}


def auto_tokenizer(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def put(folder: Path, files: dict[str, Any], first: int) -> None:
    """Write files, ids counted from the first free one."""
    for name, content in files.items():
        if name == "added_tokens.json":
            content = {token: first + number for token, number in content.items()}
        if "added_tokens_decoder" in content:
            special = {
                str(token_id): {**NEW, "lstrip": False, "special": True, "content": token}
                for token, token_id in auto_tokenizer(folder).get_added_vocab().items()
            }
            new = {str(first + int(number)): token for number, token in content["added_tokens_decoder"].items()}
            content = {**content, "added_tokens_decoder": {**special, **new}}
        (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("name", "json_file"), [*((name, True) for name in KINDS), *((name, False) for name in KINDS[:4])]
)
def test_added_tokens_equal_huggingface(
    write_kind: Callable[..., Path], odd_texts: list[str], tmp_path: Path, name: str, place: str, json_file: bool
) -> None:
    folder = write_kind(tmp_path / "folder", name, json_file=json_file)
    size = BertTokenizer.from_pretrained(folder).vocab_size
    put(folder, PLACES[place], size)
    mine, theirs = BertTokenizer.from_pretrained(folder), auto_tokenizer(folder)
    assert mine.vocab_size == len(theirs)
    texts = [*odd_texts, "the new cat<new>cat [extra]the THE NEW CAT", " <new> [extra]"]
    mine.save_pretrained(tmp_path / "saved")
    again, there = BertTokenizer.from_pretrained(tmp_path / "saved"), auto_tokenizer(tmp_path / "saved")
    for columns in ([texts], [texts, texts[::-1]]):
        expected = theirs(*columns, padding=True, return_tensors="pt")["input_ids"]
        assert mine(*columns).input_ids.equal(expected)
        assert again(*columns).input_ids.equal(expected)
        assert there(*columns, padding=True, return_tensors="pt")["input_ids"].equal(expected)
    row = theirs(texts[-2])["input_ids"]
    assert mine.decode(row, True) == theirs.decode(row, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}},
            "tokenizer_class must be one of Bert",
        ),
        ({"tokenizer_config.json": {"tokenizer_class": "GPT2TokenizerFast"}}, "got 'GPT2TokenizerFast'"),
        ({"config.json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "config.json: tokenizer_class must be one of"),
        ({"config.json": {"model_type": "albert"}}, "config.json: model_type must be one of bert, .*, got 'albert'"),
        ({"config.json": {"model_type": ["bert"]}}, "config.json: model_type must be one of bert, .*, got ..bert"),
        ({"tokenizer_config.json": {"pad_token": "\ud800"}}, "must be valid JSON .*surrogates not allowed"),
        (
            {"tokenizer_config.json": {"do_basic_tokenize": False}},
            "do_basic_tokenize must be True or left out, got False",
        ),
        ({"tokenizer_config.json": {"never_split": ["cat"]}}, "never_split must be None or left out, got"),
        ({"tokenizer_config.json": {"padding_side": "left"}}, "padding_side must be 'right'"),
        ({"tokenizer_config.json": {"truncation_side": "left"}}, "truncation_side must be 'right'"),
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["a.B", None]}}}, "auto_map must be None"),
        ({"tokenizer_config.json": {"do_lower_case": "no"}}, "do_lower_case must be true or false, got 'no'"),
        ({"tokenizer_config.json": {"strip_accents": "no"}}, "strip_accents must be true, false or null, got 'no'"),
        ({"tokenizer_config.json": {"pad_token": 0}}, "pad_token must be a token or an object with its content, got 0"),
        ({"tokenizer_config.json": {"sep_token": {"content": "cat", "lstrip": 1}}}, "flags of sep_token must be true"),
        ({"tokenizer_config.json": {"additional_special_tokens": "<new>"}}, "must be a list of tokens, got '<new>'"),
        ({"tokenizer_config.json": {"additional_special_tokens": [3]}}, "must be a token or an object"),
        ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {}}}}, "must have tokens by their ids, got 'x'"),
        ({"tokenizer_config.json": {"added_tokens_decoder": ["x"]}}, "must have tokens by their ids"),
        ({"tokenizer_config.json": {"sep_token": "<s:ep>"}, "added_tokens.json": {"<s:ep>": 219}}, "can't be laid out"),
        (
            {"special_tokens_map.json": {"extra_special_tokens": {"one": "a"}}},
            "special_tokens_map.json: extra_special_tokens must be a list, got",
        ),
        (
            {"special_tokens_map.json": {"extra_special_tokens": [], "additional_special_tokens": ["a"]}},
            "must be a list without additional_special_tokens beside it, got",
        ),
        (
            {"tokenizer_config.json": {"unk_token": "<new>", "additional_special_tokens": ["<new>"]}},
            "the vocabulary must hold <new>, got it as an added token",
        ),
        ({"added_tokens.json": {"<new>": "3"}}, "the id of '<new>' must be a whole number, got '3'"),
        ({"added_tokens.json": {"<new>": 300}}, "added tokens must follow the ids of its vocabulary, got '<new>' at"),
        ({"added_tokens.json": {"cat": 300}}, "got 'cat' at [0-9]+ instead of 300"),
        (
            {
                "tokenizer_config.json": {"additional_special_tokens": ["a"]},
                "special_tokens_map.json": {"additional_special_tokens": ["a", "<new>"]},
            },
            "additional_special_tokens must have all tokens of special_tokens_map.json, lacks <new>",
        ),
    ],
)
def test_what_cannot_be_read_alike_is_refused(
    write_kind: Callable[..., Path], tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    folder = write_kind(tmp_path, "BertTokenizer")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=message) as caught:
        BertTokenizer.from_pretrained(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("BertTokenizer", {"normalizer": {"type": "NFKC"}}, "normalizer must be BertNormalizer, got NFKC"),
        ("BertTokenizer", {"normalizer": None}, "normalizer must be BertNormalizer, got none"),
        ("MPNetTokenizer", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer must be BertPreTokenizer"),
        ("BertTokenizer", {"model": {"max_input_chars_per_word": 200}}, "must be '##' and 100, got '##' and 200"),
        ("RobertaTokenizer", {"normalizer": {"type": "NFC"}}, "normalizer must be none, got NFC"),
        ("RobertaTokenizer", {"model": NO_BYTES}, "unk_token must be none for a vocabulary that lacks bytes"),
        ("RobertaTokenizer", {"model": {"dropout": 0.5}}, "dropout must be none, got 0.5"),
        ("RobertaTokenizer", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer must be ByteLevel, got White"),
        (
            "CamembertTokenizer",
            {"normalizer": {"type": "NFKC"}},
            "normalizer must be of Precompiled and Strip, got NFKC",
        ),
        ("XLMRobertaTokenizer", {"pre_tokenizer": {"type": "Whitespace"}}, "WhitespaceSplit and Metaspace, got White"),
        ("XLMRobertaTokenizer", {"model": {"unk_id": 1}}, "unk_id must be 3, got 1"),
        ("CamembertTokenizer", {"model": {"unk_id": 1}}, "unk_id must be 3, got 1"),
    ],
)
def test_rules_that_its_class_would_not_build_are_refused(
    write_kind: Callable[..., Path], tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    """As it is, the same file can be read."""
    folder = write_kind(tmp_path, name, json_file=True)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    layout = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True}
    content["post_processor"] = content["post_processor"] or {**layout, "add_prefix_space": False}
    for key, value in change.items():
        content[key] = {**content[key], **value} if key == "model" else value
    file.write_text(json.dumps(content))
    with pytest.raises(
        WeightsError, match=f"tokenizer.json: .*{message}.*, as transformers' {name} builds it; to take"
    ):
        BertTokenizer.from_pretrained(folder)
    if name == "CamembertTokenizer":
        return  # <s> has another id
    roles = {} if name == "BertTokenizer" else {"unk_token": "[UNK]" if name == "MPNetTokenizer" else "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **roles}))
    mine, theirs = BertTokenizer.from_pretrained(folder), auto_tokenizer(folder)
    if "dropout" not in str(change):
        for text in ("The cat sat.", "é ﬁ Q", " on  the"):
            assert mine([text], [text]).input_ids.tolist() == theirs([text], [text])["input_ids"]


def test_files_that_are_missing_are_named(write_kind: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    with pytest.raises(WeightsError, match="must hold tokenizer.json$"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"x")
    with pytest.raises(WeightsError, match="bpe.model: can't be read; write a tokenizer.json .*save_pretrained"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    (tmp_path / "sentencepiece.bpe.model").unlink()
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(WeightsError, match="must hold tokenizer.json or vocab.json and merges.txt"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "merges.txt").write_text("a b c")
    with pytest.raises(WeightsError, match="vocab.json: can't be read with merges.txt"):
        BertTokenizer.from_pretrained(tmp_path)


def test_a_layout_of_another_kind_is_refused(write_kind: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_kind(
        tmp_path, "BertTokenizer", json_file=True, config={"tokenizer_class": "PreTrainedTokenizerFast"}
    )
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    with pytest.raises(
        WeightsError, match=r"post_processor must lay out texts as \[CLS\] a \[SEP\], got nothing around"
    ):
        BertTokenizer.from_pretrained(folder)


def test_a_fallback_to_bytes_is_refused(write_kind: Callable[..., Path], tmp_path: Path) -> None:
    """The class does without, so it gives other ids."""
    file = write_kind(tmp_path, "XLMRobertaTokenizer") / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] += [[f"<0x{byte:02X}>", -9.0] for byte in range(256)]
    file.write_text(json.dumps(content))
    assert (
        BertTokenizer.from_pretrained(tmp_path)("🙂").input_ids.tolist()
        == auto_tokenizer(tmp_path)(["🙂"])["input_ids"]
    )
    content["model"]["byte_fallback"] = True
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="tokenizer.json: byte_fallback must be false, got true, as transformers'"):
        BertTokenizer.from_pretrained(tmp_path)
