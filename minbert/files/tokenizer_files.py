"""Read the files of a BERT tokenizer: tokenizer.json, vocab.txt, tokenizer_config.json."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from minbert.errors import WeightsError

__all__ = [
    "bert_normalizer",
    "positive_int",
    "read_json",
    "read_tokenizer_json",
    "read_vocab",
    "special_tokens_of",
    "with_same_rules",
]

DEFAULT_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


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


def with_same_rules(backend: Tokenizer) -> Tokenizer:
    """Return a backend with the same rules and no truncation or padding, in microseconds.

    The two share the model with its vocabulary, which neither changes.
    """
    own = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (rule := getattr(backend, part)) is not None:
            setattr(own, part, rule)
    added = backend.get_added_tokens_decoder()
    own.add_tokens([added[token_id] for token_id in sorted(added)])  # in order of their ids, as from a file
    own.encode_special_tokens = backend.encode_special_tokens
    return own
