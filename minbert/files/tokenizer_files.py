"""Read and write the files of a tokenizer: tokenizer.json, vocabularies, tokenizer_config.json, added tokens."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers

from minbert.errors import WeightsError
from minbert.families.bert import BERT
from minbert.families.family import Family
from minbert.families.members import MEMBERS
from minbert.files.added_tokens import REQUIRED, SpecialTokens, add_tokens
from minbert.files.storage import make_folder, read_json, write_json, write_text
from minbert.files.tokenizer_kinds import AS_IT_IS, KINDS, Kind, foreign_rule, kind_of, set_layout, set_rules

__all__ = ["read_tokenizer", "write_tokenizer"]

DEFAULT_MAX_LENGTH = 512


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Read a folder's tokenizer, as transformers.AutoTokenizer does.

    :return: the arguments of BertTokenizer.
    :raises WeightsError: for a folder without a vocabulary, or with one that can't be read; for a tokenizer of another
        kind, and for settings or files that contradict each other.
    """
    settings, config = read_json(folder / "tokenizer_config.json"), read_json(folder / "config.json")
    kind = kind_of(settings, config, folder)
    source = folder / "tokenizer.json"
    found = read_tokenizer_json(source) if source.is_file() else None
    tokens = SpecialTokens.of(folder, settings, kind, found)
    if found is not None:
        backend = found if kind.name == AS_IT_IS else _rebuilt(found, source, kind, settings, tokens)
    else:
        source, backend = read_vocabulary(folder, kind, tokens.named)
        set_rules(backend, kind, settings)
    add_tokens(backend, tokens, source)
    if kind.name == AS_IT_IS:
        tokens.guess(backend)
        _check_as_it_is(backend, source, settings, tokens.named)
    elif all(backend.token_to_id(tokens.named[role]) is not None for role in REQUIRED):
        try:
            set_layout(backend, kind, tokens.named, settings)
        except Exception as error:  # a token with a colon or a blank, which the library's templates can't hold
            raise WeightsError(f"{source}: texts can't be laid out with these special tokens ({error})") from None
    unknown = getattr(backend.model, "unk_token", None)
    # One that is missing throughout is named by BertTokenizer; with this one, the library fails in the middle of a run.
    if unknown is not None and backend.model.token_to_id(unknown) is None and backend.token_to_id(unknown) is not None:
        raise WeightsError(f"{source}: the vocabulary must hold {unknown}, got it as an added token")
    backend.encode_special_tokens = settings.get("split_special_tokens", False)
    family = MEMBERS.get(str(config.get("model_type", "bert")), BERT)
    limit = _most_tokens(config, family)
    return {
        "backend": backend,
        "special_tokens": tokens.named,
        # HuggingFace writes 1e30 for "unknown": the model's own positions are the limit then.
        "model_max_length": min(positive_int(settings.get("model_max_length"), limit), limit),
        "name": str(source),
        "tokenizer_class": kind.name,
        "token_types": kind.types and family.fixed.get("type_vocab_size") != 0,
        "clean_up": bool(settings.get("clean_up_tokenization_spaces", False)) and not _is_bpe(backend),
    }


def write_tokenizer(folder: Path, backend: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Write tokenizer.json, tokenizer_config.json and a vocab.txt, as transformers.AutoTokenizer reads them.

    :param settings: of tokenizer_config.json, beside those of the backend's rules; without a tokenizer_class it is
        BERT's where its class would build the same rules, else the one that takes a tokenizer.json as it is.
    :raises WeightsError: if the disk refuses.
    """
    make_folder(folder)
    written = dict(settings)
    if "tokenizer_class" not in written:
        bert, layout = KINDS["BertTokenizer"], [settings[role] for role in ("cls_token", "sep_token", "sep_token")]
        fits = not foreign_rule(backend, bert, settings["unk_token"]) and backend.encode("", "").tokens == layout
        written["tokenizer_class"] = bert.name if fits else AS_IT_IS
    normalizer, splitter = (
        {} if part is None else json.loads(part.__getstate__()) for part in (backend.normalizer, backend.pre_tokenizer)
    )
    if normalizer.get("type") == "BertNormalizer":
        written["do_lower_case"] = normalizer["lowercase"]
        written["strip_accents"] = normalizer["strip_accents"]
        written["tokenize_chinese_chars"] = normalizer["handle_chinese_chars"]
    steps = [splitter, *splitter.get("pretokenizers", [])]
    for step in steps:
        if step.get("type") == "ByteLevel":
            written["add_prefix_space"] = step["add_prefix_space"]
        elif step.get("type") == "Metaspace":
            written["add_prefix_space"] = step["prepend_scheme"] != "never"
    if backend.encode_special_tokens:
        written["split_special_tokens"] = True
    write_text(folder / "tokenizer.json", backend.to_str(pretty=False))
    write_json(folder / "tokenizer_config.json", written)
    vocab = backend.get_vocab(with_added_tokens=True)
    in_order = sorted(vocab.values()) == list(range(len(vocab)))  # in vocab.txt a token's id is its line's number
    if in_order and isinstance(backend.model, models.WordPiece):
        write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)))


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


def read_vocabulary(folder: Path, kind: Kind, tokens: Mapping[str, str]) -> tuple[Path, Tokenizer]:
    """Return a kind's tokenizer without rules over its vocabulary's files, and the first of them.

    :raises WeightsError: if they are missing or can't be read.
    """
    if kind.algorithm == "WordPiece" and (file := folder / "vocab.txt").is_file():
        return file, Tokenizer(models.WordPiece(read_lines(file), unk_token=tokens["unk_token"]))
    file, merges = folder / "vocab.json", folder / "merges.txt"
    if kind.algorithm == "BPE" and file.is_file() and merges.is_file():
        try:
            return file, Tokenizer(models.BPE.from_file(str(file), str(merges)))
        except Exception as error:  # the library has no error class of its own
            raise WeightsError(f"{file}: can't be read with merges.txt ({error})") from None
    if (model := folder / "sentencepiece.bpe.model").is_file():
        raise WeightsError(
            f"{model}: can't be read; write a tokenizer.json beside it once, with transformers and sentencepiece"
            " installed: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    beside = {"WordPiece": " or vocab.txt, found neither", "BPE": " or vocab.json and merges.txt, found neither"}
    raise WeightsError(f"{folder}: must hold tokenizer.json{beside.get(kind.algorithm, '')}")


def read_lines(file: Path) -> dict[str, int]:
    """Return the vocabulary of a vocab.txt: one token a line, its id the number of the line from 0.

    :raises WeightsError: if the file is not UTF-8.
    """
    try:
        # Not models.WordPiece.read_file, which strips tokens, nor str.splitlines: only "\n" ends a token.
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise WeightsError(f"{file}: must be UTF-8 text ({error})") from None
    if lines[-1] == "":
        lines.pop()
    return {token: index for index, token in enumerate(lines)}


def _rebuilt(found: Tokenizer, file: Path, kind: Kind, settings: Mapping[str, Any], tokens: SpecialTokens) -> Tokenizer:
    """Return the vocabulary of a tokenizer.json with the rules of its kind's class."""
    fault = foreign_rule(found, kind, tokens.named["unk_token"])
    if fault:
        raise WeightsError(
            f"{file}: {fault}, as transformers' {kind.name} builds it; to take the file as it is, write"
            f' "tokenizer_class": "{AS_IT_IS}" into tokenizer_config.json'
        )
    backend = Tokenizer(found.model)
    if isinstance(backend.model, models.WordPiece):
        backend.model.unk_token = tokens.named["unk_token"]
    set_rules(backend, kind, settings, found.normalizer)
    return backend


def _check_as_it_is(backend: Tokenizer, file: Path, settings: Mapping[str, Any], tokens: Mapping[str, str]) -> None:
    """Refuse a tokenizer.json whose rows are not ``[CLS] a [SEP]``, or whose settings contradict it."""
    splitter = backend.pre_tokenizer
    if isinstance(splitter, pre_tokenizers.ByteLevel) and "add_prefix_space" in settings:
        own = splitter.add_prefix_space
        if settings["add_prefix_space"] != own:  # version 4 of transformers takes the one, 5 the other
            raise WeightsError(f"{file}: add_prefix_space must be that of tokenizer_config.json, got {own}")
    cls, sep = (backend.token_to_id(tokens[role]) for role in ("cls_token", "sep_token"))
    if None in (cls, sep):
        return  # BertTokenizer names those that are missing
    for added, row in ((2, backend.encode("")), (3, backend.encode("", ""))):
        if row.ids[:1] != [cls] or row.ids[-1:] != [sep] or not added <= len(row.ids) <= 2 * added - 2:
            raise WeightsError(
                f"{file}: post_processor must lay out texts as {tokens['cls_token']} a {tokens['sep_token']}, got"
                f" {' '.join(row.tokens) or 'nothing'} around {'one text' if added == 2 else 'a pair'}"
            )


def _most_tokens(config: Mapping[str, Any], family: Family) -> int:
    """Return the most tokens that the encoder of a config.json has positions for."""
    limit = positive_int(config.get("max_position_embeddings"), DEFAULT_MAX_LENGTH)
    if not family.positions_from_ids:
        return limit
    pad = family.read_config(config, ["pad_token_id"])["pad_token_id"]
    return max(1, limit - pad - 1) if isinstance(pad, int) else limit


def _is_bpe(backend: Tokenizer) -> bool:
    return isinstance(backend.model, models.BPE)
