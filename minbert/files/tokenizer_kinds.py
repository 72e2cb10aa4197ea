"""Kinds of tokenizers: what the tokenizer_class of a folder decides, as transformers' class of that name does.

Each class builds the splitting rules itself; of a tokenizer.json it takes the vocabulary and the added tokens. Only
PreTrainedTokenizerFast takes the file as it is. Where a tokenizer.json has rules that its class would not build,
versions 4 and 5 of transformers give different ids, so the folder is refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors

from minbert.errors import WeightsError

__all__ = ["AS_IT_IS", "KINDS", "Kind", "foreign_rule", "kind_of", "set_layout", "set_rules"]

# Settings that would change ids, or the places of padding, with the values that all versions agree on.
_ONLY: dict[str, tuple[Any, ...]] = {
    "do_basic_tokenize": (True, None),
    "never_split": (None, []),
    "padding_side": ("right", None),
    "truncation_side": ("right", None),
    "auto_map": (None,),
    "fast_tokenizer_files": (None, []),
}
_SWITCHES = ("do_lower_case", "tokenize_chinese_chars", "add_prefix_space", "split_special_tokens")
AS_IT_IS = "PreTrainedTokenizerFast"
_BYTES = pre_tokenizers.ByteLevel.alphabet()  # the characters that stand for the 256 bytes
_UNKNOWN = "\U0010ffff"  # never a character, so in no vocabulary
_SPACE = "▁"  # how Unigram vocabularies write the space before a word


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is known of one of transformers' classes.

    :param algorithm: of the vocabulary; empty where tokenizer.json decides.
    :param tokens: special tokens by role, where a folder does not name them.
    :param flags: of a role's token that is named by its text alone; others are special and nothing else.
    :param extra: further tokens that transformers adds unless the folder names others.
    :param types: whether the second text of a pair has token type 1.
    :param separators: how many there are between the texts of a pair.
    """

    name: str
    algorithm: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    types: bool = False
    separators: int = 1

    def token(self, role: str, text: str) -> str | AddedToken:
        """Return the token that the kind's class makes of a text."""
        return AddedToken(text, **self.flags[role]) if role in self.flags else text


_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
# Two classes read the space before a mask as a part of it. MPNet's makes tokens special only when it adds them.
_CAMEMBERT = {"mask_token": {"lstrip": True, "special": True}}
_MPNET: dict[str, dict[str, bool]] = {**{role: {} for role in _ROBERTA}, "mask_token": {"lstrip": True}}

KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="BertTokenizer", algorithm="WordPiece", tokens=_BERT, types=True),
        Kind(name="DistilBertTokenizer", algorithm="WordPiece", tokens=_BERT),
        Kind(
            name="MPNetTokenizer",
            algorithm="WordPiece",
            tokens={**_ROBERTA, "unk_token": "[UNK]"},
            flags=_MPNET,
            separators=2,
        ),
        Kind(name="RobertaTokenizer", algorithm="BPE", tokens=_ROBERTA, separators=2),
        Kind(name="XLMRobertaTokenizer", algorithm="Unigram", tokens=_ROBERTA, separators=2),
        Kind(
            name="CamembertTokenizer",
            algorithm="Unigram",
            tokens=_ROBERTA,
            flags=_CAMEMBERT,
            extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
            separators=2,
        ),
        Kind(name=AS_IT_IS, types=True),
    )
}
_BY_MODEL_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}


def kind_of(settings: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> Kind:
    """Return the kind that a folder's tokenizer_config.json, else its config.json, names.

    :raises WeightsError: for a class of another kind, and for a setting that its kind can't keep to.
    """
    file = folder / "tokenizer_config.json"
    for key, allowed in _ONLY.items():
        if settings.get(key) not in allowed:
            raise WeightsError(f"{file}: {key} must be {allowed[0]!r} or left out, got {settings[key]!r}")
    for key in _SWITCHES:
        if not isinstance(settings.get(key, True), bool):
            raise WeightsError(f"{file}: {key} must be true or false, got {settings[key]!r}")
    if not isinstance(settings.get("strip_accents"), bool | None):
        raise WeightsError(f"{file}: strip_accents must be true, false or null, got {settings['strip_accents']!r}")
    model_type = config.get("model_type")
    for source, name in (
        (file, settings.get("tokenizer_class")),
        (folder / "config.json", config.get("tokenizer_class")),
    ):
        if name is None:
            continue
        stem = str(name).removesuffix("Fast") if name != AS_IT_IS else AS_IT_IS
        stem = AS_IT_IS if stem == "TokenizersBackend" else stem
        if stem not in KINDS:
            raise WeightsError(f"{source}: tokenizer_class must be one of {', '.join(KINDS)}, got {name!r}")
        # What a DistilBERT's folder has been saved with; the two differ in the token types alone.
        return KINDS["DistilBertTokenizer" if (stem, model_type) == ("BertTokenizer", "distilbert") else stem]
    if model_type is not None:
        if not isinstance(model_type, str) or model_type not in _BY_MODEL_TYPE:
            raise WeightsError(
                f"{folder / 'config.json'}: model_type must be one of {', '.join(_BY_MODEL_TYPE)} for a folder whose"
                f" tokenizer_config.json names no tokenizer_class, got {model_type!r}"
            )
        return KINDS[_BY_MODEL_TYPE[model_type]]
    # AutoTokenizer reads no such folder: a tokenizer.json says all, a vocab.txt is BERT's.
    return KINDS[AS_IT_IS if (folder / "tokenizer.json").is_file() else "BertTokenizer"]


def set_rules(
    backend: Tokenizer, kind: Kind, settings: Mapping[str, Any], old: normalizers.Normalizer | None = None
) -> None:
    """Give a backend the normalizer, the pre-tokenizer and the decoder that the kind's class builds.

    :param settings: of tokenizer_config.json.
    :param old: the normalizer of the folder's tokenizer.json, which holds sentencepiece's table of characters.
    """
    if kind.algorithm == "WordPiece":
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
            strip_accents=settings.get("strip_accents"),
            lowercase=settings.get("do_lower_case", True),
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
    elif kind.algorithm == "BPE":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False))
        backend.decoder = decoders.ByteLevel()
    else:
        table = [part for part in _parts(old) if isinstance(part, normalizers.Precompiled)]
        if table:
            backend.normalizer = table[0]
        scheme = "always" if settings.get("add_prefix_space", True) else "never"
        space = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), space])
        backend.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme=scheme)


def set_layout(backend: Tokenizer, kind: Kind, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Give a backend the special tokens around texts: ``[CLS] a [SEP] b [SEP]``, or ``<s> a </s></s> b </s>``.

    :param tokens: special tokens by role, each of them known to the backend.
    """
    # XLM-RoBERTa's and CamemBERT's classes take these; the tokens are the same unless a folder says otherwise.
    roles = ("bos_token", "eos_token") if kind.algorithm == "Unigram" else ("cls_token", "sep_token")
    known: list[tuple[str, Any]] = [(tokens[role], backend.token_to_id(tokens[role])) for role in roles]
    cls, sep = known
    if kind.algorithm == "BPE":
        trim, prefix = settings.get("trim_offsets", True), settings.get("add_prefix_space", False)
        backend.post_processor = processors.RobertaProcessing(sep, cls, trim, prefix)
        return
    second = int(kind.types)
    between = " ".join([f"{sep[0]}:0"] * kind.separators)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls[0]}:0 $A:0 {sep[0]}:0",
        pair=f"{cls[0]}:0 $A:0 {between} $B:{second} {sep[0]}:{second}",
        special_tokens=[cls, sep],
    )


def foreign_rule(backend: Tokenizer, kind: Kind, unk_token: str) -> str:
    """Say which rule of a tokenizer.json the kind's class would not build: "normalizer must be ..."; empty if none."""
    model = backend.model
    if type(model).__name__ != kind.algorithm:
        return f"model must be {kind.algorithm}, got {type(model).__name__}"
    return _FOREIGN[kind.algorithm](backend, kind, unk_token)


def _foreign_to_wordpiece(backend: Tokenizer, kind: Kind, unk_token: str) -> str:
    model = backend.model
    if (model.continuing_subword_prefix, model.max_input_chars_per_word) != ("##", 100):
        return (
            "continuing_subword_prefix and max_input_chars_per_word must be '##' and 100, got"
            f" {model.continuing_subword_prefix!r} and {model.max_input_chars_per_word}"
        )
    return _unlike("normalizer", backend.normalizer, type="BertNormalizer", clean_text=True) or _unlike(
        "pre_tokenizer", backend.pre_tokenizer, type="BertPreTokenizer"
    )


def _foreign_to_bpe(backend: Tokenizer, kind: Kind, unk_token: str) -> str:
    model = backend.model
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if getattr(model, key):
            return f"{key} must be none, got {getattr(model, key)!r}"
    if model.unk_token is not None and any(model.token_to_id(byte) is None for byte in _BYTES):
        return f"unk_token must be none for a vocabulary that lacks bytes, got {model.unk_token!r}"
    if backend.normalizer is not None:
        return f"normalizer must be none, got {_state(backend.normalizer)['type']}"
    return _unlike("pre_tokenizer", backend.pre_tokenizer, type="ByteLevel", use_regex=True)


def _foreign_to_unigram(backend: Tokenizer, kind: Kind, unk_token: str) -> str:
    first, *others = backend.model.tokenize(_UNKNOWN)
    if others:
        return "byte_fallback must be false, got true"
    unknown = first.id
    known = 3 if kind.name == "XLMRobertaTokenizer" else backend.model.token_to_id(unk_token)  # 3 is in that class
    if unknown != known:
        return f"unk_id must be {3 if known == 3 else f'that of {unk_token}'}, got {unknown}"
    # sentencepiece's table; and blanks, which the class drops with the split at white space.
    allowed = ("Precompiled", "Strip")
    for part in _parts(backend.normalizer):
        state = _state(part)
        blanks = state["type"] == "Replace" and state["pattern"] in ({"Regex": " {2,}"}, {"Regex": r"\s{2,}"})
        if state["type"] not in allowed and not blanks:
            return f"normalizer must be of {' and '.join(allowed)}, got {state['type']}"
    steps = [backend.pre_tokenizer] if backend.pre_tokenizer is not None else []
    if steps and _state(steps[0])["type"] == "Sequence":
        steps = list(steps[0])
    names = [_state(step)["type"] for step in steps]
    if names not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        return f"pre_tokenizer must be WhitespaceSplit and Metaspace, got {' and '.join(names) or 'none'}"
    return _unlike("pre_tokenizer", steps[-1], type="Metaspace", replacement=_SPACE)


_FOREIGN: dict[str, Callable[[Tokenizer, Kind, str], str]] = {
    "WordPiece": _foreign_to_wordpiece,
    "BPE": _foreign_to_bpe,
    "Unigram": _foreign_to_unigram,
}


def _unlike(name: str, part: Any, **wanted: Any) -> str:
    found = {"type": "none"} if part is None else _state(part)
    for key, value in wanted.items():
        if found.get(key, value) != value:
            return f"{name}{'' if key == 'type' else '.' + key} must be {value}, got {found[key]}"
    return ""


def _state(part: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _parts(normalizer: normalizers.Normalizer | None) -> list[normalizers.Normalizer]:
    if normalizer is None:
        return []
    if isinstance(normalizer, normalizers.Sequence):
        return list(normalizer)  # type: ignore[call-overload,no-any-return]  # the library's stubs lack its iteration
    return [normalizer]
