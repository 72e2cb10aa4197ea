"""Read the files of a BERT tokenizer: tokenizer.json, vocab.txt, tokenizer_config.json."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from minbert.errors import WeightsError
from minbert.files.storage import make_folder, write_json, write_text

__all__ = ["read_tokenizer", "write_tokenizer"]

DEFAULT_MAX_LENGTH = 512

DEFAULT_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Read a folder's tokenizer.

    :return: the arguments of BertTokenizer: backend, special_tokens, model_max_length and name.
    :raises WeightsError: for a folder with neither tokenizer.json nor vocab.txt, or with one that can't be read.
    """
    settings = read_json(folder / "tokenizer_config.json")
    special_tokens = special_tokens_of({**read_json(folder / "special_tokens_map.json"), **settings})
    json_file, vocab_file = folder / "tokenizer.json", folder / "vocab.txt"
    if json_file.is_file():
        source, backend = json_file, read_tokenizer_json(json_file)
    elif vocab_file.is_file():
        source, backend = vocab_file, read_vocab(vocab_file, special_tokens)
    else:
        raise WeightsError(f"{folder}: must hold tokenizer.json or vocab.txt, found neither")
    if isinstance(backend.normalizer, normalizers.BertNormalizer):
        backend.normalizer = bert_normalizer(backend.normalizer, settings)
    limit = positive_int(read_json(folder / "config.json").get("max_position_embeddings"), DEFAULT_MAX_LENGTH)
    # HuggingFace writes 1e30 for "unknown": the model's own positions are the limit then.
    max_length = min(positive_int(settings.get("model_max_length"), limit), limit)
    return {
        "backend": backend,
        "special_tokens": special_tokens,
        "model_max_length": max_length,
        "name": str(source),
    }


def write_tokenizer(folder: Path, backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Write tokenizer.json, tokenizer_config.json and vocab.txt, as transformers.AutoTokenizer reads them.

    :param settings: of tokenizer_config.json, beside those of the backend's normalizer.
    :raises WeightsError: if the disk refuses.
    """
    make_folder(folder)
    written: dict[str, Any] = {"tokenizer_class": "BertTokenizer"}
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        written["do_lower_case"] = normalizer.lowercase
        written["strip_accents"] = normalizer.strip_accents
        written["tokenize_chinese_chars"] = normalizer.handle_chinese_chars
    write_text(folder / "tokenizer.json", backend.to_str(pretty=False))
    write_json(folder / "tokenizer_config.json", {**written, **settings})
    vocab = backend.get_vocab(with_added_tokens=True)
    if sorted(vocab.values()) == list(range(len(vocab))):  # in vocab.txt a token's id is its line's number
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)))


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in `file`, an empty one if there is no such file.

    :raises WeightsError: if the file is not a JSON object.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{file}: must be valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: must be a JSON object, got {type(content).__name__}")
    return content


def special_tokens_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what the settings call [UNK], [SEP], [PAD], [CLS] and [MASK], by role (`unk_token`, ...)."""
    tokens = {}
    for role, default in DEFAULT_SPECIAL_TOKENS.items():
        token = settings.get(role)
        # Either the text itself or a serialized AddedToken that holds it.
        token = token.get("content") if isinstance(token, dict) else token
        tokens[role] = token if isinstance(token, str) else default
    return tokens


def positive_int(value: object, default: int) -> int:
    """Return `value` as an int if it is a finite number of at least 1, else `default`."""
    return int(value) if isinstance(value, int | float) and 1 <= value < math.inf else default


def read_tokenizer_json(file: Path) -> Tokenizer:
    """Return the tokenizer that tokenizer.json describes.

    :raises WeightsError: if the library can't read it.
    """
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no error class of its own
        raise WeightsError(
            f"{file}: can't be read by the installed tokenizers {tokenizers.__version__} ({error})"
        ) from None


def read_vocab(file: Path, special_tokens: Mapping[str, str]) -> Tokenizer:
    """Return BERT's uncased tokenizer over a vocab.txt: one token a line, its id the number of the line from 0.

    :raises WeightsError: if the file is not UTF-8.
    """
    try:
        # Not models.WordPiece.read_file, which strips tokens, nor str.splitlines: only "\n" ends a token.
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise WeightsError(f"{file}: must be UTF-8 text ({error})") from None
    if lines[-1] == "":
        lines.pop()
    vocab = {token: index for index, token in enumerate(lines)}
    backend = Tokenizer(models.WordPiece(vocab, unk_token=special_tokens["unk_token"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    # Only those that the vocabulary has: an added one would have an id without an embedding.
    backend.add_special_tokens([token for token in special_tokens.values() if token in vocab])
    return backend


def bert_normalizer(current: normalizers.BertNormalizer, settings: Mapping[str, Any]) -> normalizers.BertNormalizer:
    """Return `current` with the settings of tokenizer_config.json put over its own."""
    return normalizers.BertNormalizer(
        clean_text=current.clean_text,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", current.handle_chinese_chars),
        strip_accents=settings.get("strip_accents", current.strip_accents),
        lowercase=settings.get("do_lower_case", current.lowercase),
    )
