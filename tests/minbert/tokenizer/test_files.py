"""What a tokenizer is read from, and the broken files that are named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from minbert.errors import WeightsError
from minbert.tokenizer import BertTokenizer


def test_special_tokens_and_sizes(vocabulary: list[str], tokenizer: BertTokenizer) -> None:
    assert tokenizer.pad_token_id == 0
    assert tokenizer.unk_token_id == 1
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (2, 3, 4)
    assert tokenizer.vocab_size == len(vocabulary)
    assert tokenizer.model_max_length == 64


@pytest.mark.parametrize(
    ("written", "positions", "expected"),
    [(None, None, 512), (10**30, 40, 40), (30, 40, 30), (64, 40, 40), (None, 40, 40), (1e30, None, 512)],
)
def test_model_max_length(
    write_folder: Callable[..., Path], tmp_path: Path, written: Any, positions: int | None, expected: int
) -> None:
    write_folder(tmp_path, config={} if written is None else {"model_max_length": written})
    if positions is not None:
        (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": positions}))
    assert BertTokenizer.from_pretrained(tmp_path).model_max_length == expected


def test_truncation_and_padding_of_the_file_are_switched_off(
    assert_same: Callable[..., None], tokenizer: BertTokenizer, tmp_path: Path
) -> None:
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


def test_other_broken_folders_are_named(vocabulary: list[str], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="must hold tokenizer.json or vocab.txt, found neither"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
    with pytest.raises(WeightsError, match=r"vocab.txt: the vocabulary must hold .* lacks \[CLS\], \[SEP\]"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match="vocab.txt: must be UTF-8"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="tokenizer_config.json: must be a JSON object, got list"):
        BertTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{,")
    with pytest.raises(WeightsError, match="tokenizer_config.json: must be valid JSON"):
        BertTokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_without_a_mask_token(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n")
    tokenizer = BertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.mask_token_id is None
    assert tokenizer.vocab_size == 5
