"""Fixtures of the tests of pretraining: the tiny encoder's tokenizer, and sentences of its vocabulary."""

from pathlib import Path

import numpy as np
import pytest

from minbert import BertTokenizer
from multitask.pretraining.masks import Masker


@pytest.fixture(scope="session")
def tokenizer(tiny_weights: Path) -> BertTokenizer:
    """The tokenizer of tiny-bert: word pieces."""
    return BertTokenizer.from_pretrained(tiny_weights)


@pytest.fixture(scope="session")
def masker(tokenizer: BertTokenizer) -> Masker:
    """Draws masks by tokens."""
    return Masker(tokenizer)


@pytest.fixture(scope="session")
def sentences(tokenizer: BertTokenizer) -> list[str]:
    """Ninety texts that differ, each of 4 to 30 tokens of the vocabulary, pieces of words among them."""
    rng = np.random.default_rng(5)
    usable = [token for token in tokenizer.vocabulary if not token.startswith("[")]
    drawn = (rng.choice(sorted(usable), rng.integers(4, 30)) for _ in range(90))
    return [" ".join(tokens).replace(" ##", "") for tokens in drawn]


@pytest.fixture
def text_file(sentences: list[str], tmp_path: Path) -> Path:
    """A file of plain text."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return path
