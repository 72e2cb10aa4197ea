"""Fixtures of the tokenizer's tests: folders with a small vocabulary, and how batches are compared."""

import json
import string
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

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
ODD_TEXTS = [
    "The cat sat on the mat.",
    "",
    "   ",
    "  two  spaces   before\tthe cat  ",
    "UNBELIEVABLE!!! naïve café Ünïcødé Q",
    "北京 is 中国's capital",
    "a [SEP] b [MASK] c [CLS][PAD] [sep] d <mask> e<mask>f <s></s> <pad> <unk>[UNK]",
    "emoji 🙂👩‍👩‍👧 zero\u200bwidth nb\u00a0space \x00\x07control \ufffd",
    "tab\tnew\nline\r\n\u2028 done",
    "x" * 101 + " " + "y" * 100,
    "don't can't -- re-use $5.00 50% e.g. U.S.A. , ' ok '",
    "مرحبا שלום नमस्ते สวัสดี",
    "e\u0301 combining İstanbul ﬁ ligature ½ ①",
    "▁ and ## and Ġ <new> <New>x[extra] [EXTRA]",
    "word " * 40,
]
SENTENCES = [
    "the cat sat on the mat",
    "unbelievable!",
    "a naïve café, don't you think so?",
    "on and on: the 50 cats",
] * 4
MODEL_TYPES = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "distilbert",
    "MPNetTokenizer": "mpnet",
    "RobertaTokenizer": "roberta",
    "XLMRobertaTokenizer": "xlm-roberta",
    "CamembertTokenizer": "camembert",
}


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    """The tokens of the small vocabulary, by their ids."""
    return VOCABULARY


@pytest.fixture(scope="session")
def long_pairs() -> list[tuple[str, str]]:
    """Pairs whose first text, second text or neither is the longer one."""
    return LONG_PAIRS


@pytest.fixture(scope="session")
def odd_texts() -> list[str]:
    """Texts with what tokenizers differ about."""
    return ODD_TEXTS


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


@pytest.fixture(scope="session")
def write_kind() -> Callable[..., Path]:
    """A function of a folder, a class and settings: writes a small tokenizer of that kind, and a config.json."""

    def write(folder: Path, name: str, *, json_file: bool = False, config: Mapping[str, Any] | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        model_type, unigram = MODEL_TYPES[name], name in ("XLMRobertaTokenizer", "CamembertTokenizer")
        (folder / "config.json").write_text(json.dumps({"model_type": model_type, "max_position_embeddings": 100}))
        if config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **config}))
        if not unigram and not json_file:
            write_vocabulary(folder, name)
            return folder
        backend = tokenizers.Tokenizer(unigram_model(name)) if unigram else written_by_huggingface(folder, name)
        if unigram:
            backend.normalizer = normalizers.Sequence(
                [normalizers.Precompiled(TABLE), normalizers.Replace(BLANKS, " ")]
            )
            space = pre_tokenizers.Metaspace()
            backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
            backend.decoder = decoders.Metaspace()
            mask = tokenizers.AddedToken("<mask>", lstrip=True, special=True)
            backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", mask])
        backend.save(str(folder / "tokenizer.json"))
        return folder

    return write


BLANKS = tokenizers.Regex(" {2,}")


def table_of_characters() -> bytes:
    """A table as sentencepiece writes it, a double array of 512 units: "Q" becomes "zz"."""
    units = [0] * 512
    units[0] = 256 << 10
    units[256 ^ ord("Q")] = ord("Q") | 1 << 8 | 1 << 10
    return struct.pack("<I", 4 * len(units)) + struct.pack("<512I", *units) + b"zz\0"


TABLE = table_of_characters()


def write_vocabulary(folder: Path, name: str) -> None:
    """The files of a vocabulary alone: vocab.txt, or vocab.json and merges.txt."""
    if name == "RobertaTokenizer":
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=letters)
        backend.train_from_iterator(SENTENCES, trainer)
        backend.add_special_tokens(["<mask>"])
        backend.model.save(str(folder))
        vocab = backend.get_vocab()  # with the mask, which is the last
        (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    else:
        mpnet = ["<s>", "<pad>", "</s>", "<unk>", *VOCABULARY[5:], "[UNK]", "<mask>"]
        tokens = mpnet if name == "MPNetTokenizer" else VOCABULARY
        (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def written_by_huggingface(folder: Path, name: str) -> tokenizers.Tokenizer:
    """The tokenizer.json that transformers makes of a vocabulary's files, which are deleted."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    write_vocabulary(folder, name)
    backend = getattr(transformers, name).from_pretrained(str(folder)).backend_tokenizer
    for file in ("vocab.txt", "vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    found: tokenizers.Tokenizer = backend
    return found


def unigram_model(name: str) -> models.Unigram:
    """A model trained on SENTENCES, its special tokens as XLM-RoBERTa and CamemBERT order them."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    pieces = [tuple(piece) for piece in json.loads(backend.to_str())["model"]["vocab"] if piece[0] != "<unk>"]
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    if name == "CamembertTokenizer":
        first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    return models.Unigram([*((token, 0.0) for token in first), *pieces, ("<mask>", 0.0)], unk_id=3)
