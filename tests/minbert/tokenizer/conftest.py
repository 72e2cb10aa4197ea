"""Fixtures of the tokenizer's tests: folders with a small vocabulary, and how batches are compared."""

import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from minbert.tokenizer import BertTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = string.ascii_letters + string.digits + string.punctuation + "éüñçß北京"
WORDS = ["the", "cat", "sat", "##ting", "on", "mat", "un", "##believ", "##able", "The", "naïve", "naive"]
VOCABULARY = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
LONG_PAIRS = [
    ("the cat " * 12, "on the mat " * 3),
    ("the cat", "on the mat sat " * 9),
    ("a b c d e f g h", "i j k l m n o p"),
    ("short", "short too"),
    ("odd " * 7, "even " * 7),
]


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    """The tokens of the small vocabulary, by their ids."""
    return VOCABULARY


@pytest.fixture(scope="session")
def long_pairs() -> list[tuple[str, str]]:
    """Pairs whose first text, second text or neither is the longer one."""
    return LONG_PAIRS


@pytest.fixture(scope="session")
def write_folder() -> Callable[..., Path]:
    """A function of a folder and settings: writes the small vocabulary there, which spells any word of LETTERS."""

    def write(folder: Path, *, config: Mapping[str, Any] | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        settings = {"tokenizer_class": "BertTokenizer", **(config or {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def folder(write_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small vocabulary and a limit of 64 tokens."""
    return write_folder(tmp_path_factory.mktemp("tokenizer"), config={"model_max_length": 64})


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> BertTokenizer:
    """The tokenizer of that folder."""
    return BertTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]:
    """A function of two batches, which must hold equal tensors."""

    def check(mine: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
        assert set(mine) == set(other) == {"input_ids", "token_type_ids", "attention_mask"}
        for key, tensor in mine.items():
            assert tensor.dtype == torch.int64
            assert torch.equal(tensor, other[key]), key

    return check
