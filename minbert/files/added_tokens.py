"""Special and added tokens of a tokenizer, from each place where HuggingFace's files have them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken, Tokenizer

from minbert.errors import WeightsError, listed
from minbert.files.storage import read_json
from minbert.files.tokenizer_kinds import AS_IT_IS, KINDS, Kind

__all__ = ["SpecialTokens", "add_tokens"]

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
REQUIRED = ("unk_token", "sep_token", "pad_token", "cls_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
Token = AddedToken | str


@dataclass
class SpecialTokens:
    """What the files of a folder say of tokens beyond the vocabulary's own.

    :param roles: by role (``cls_token``, ...), a folder's own roles (``image_token``) included.
    :param extra: further special tokens, in order.
    :param added: tokens by the ids that files give them.
    :param names_mask: whether a file names the mask, so that it is added where the vocabulary lacks it.
    """

    roles: dict[str, Token]
    extra: list[Token] = field(default_factory=list)
    added: dict[int, AddedToken] = field(default_factory=dict)
    names_mask: bool = False

    @property
    def named(self) -> dict[str, str]:
        """The texts of the special tokens by their seven roles, as far as they are known."""
        return {role: _text(self.roles[role]) for role in ROLES if role in self.roles}

    @classmethod
    def of(cls, folder: Path, settings: Mapping[str, Any], kind: Kind, found: Tokenizer | None) -> Self:
        """Read a folder's tokens: of tokenizer_config.json alone where it has an added_tokens_decoder, else of all.

        In the order of transformers 5: special_tokens_map.json stands over tokenizer_config.json, tokenizer.json over
        added_tokens.json. Where version 4 has another order, contradictions are refused.

        :param found: what tokenizer.json describes.
        :raises WeightsError: for what can't be read as a token, or is not in all files that should have it.
        """
        config, map_file = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
        stored = {} if found is None else found.get_added_tokens_decoder()
        roles, extra = _roles(config, settings, special=False), _extra(config, settings, special=False)
        has_mask = settings.get("mask_token", "") is not None
        if settings.get("added_tokens_decoder") is not None:
            added = _by_id(config, settings["added_tokens_decoder"])
            if kind.name != AS_IT_IS:
                _require(config, "added_tokens_decoder", added.values(), "tokenizer.json", stored.values())
        else:
            mapped = read_json(map_file)
            own, both = mapped.get("extra_special_tokens", []), "additional_special_tokens" in mapped
            if not isinstance(own, list) or (both and "extra_special_tokens" in mapped):
                beside = " without additional_special_tokens beside it" if both else ""
                raise WeightsError(f"{map_file}: extra_special_tokens must be a list{beside}, got {own!r}")
            also = _extra(map_file, mapped, special=True)
            if extra is not None:
                _require(config, "additional_special_tokens", extra, map_file.name, also or [])
            over = _roles(map_file, mapped, special=True)
            roles, extra = {**roles, **over}, also if extra is None else extra
            # Of an added_tokens.json, those are special that are named by their texts alone.
            texts = {token for token in (*roles.values(), *(extra or ())) if isinstance(token, str)}
            special = texts | {_text(token) for token in over.values()}
            added = {**_of_file(folder / "added_tokens.json", special), **stored}
        names_mask = "mask_token" in roles
        # A role's token keeps the flags that it is stored with.
        flags = {token.content: token for token in added.values()}
        roles = {role: flags.get(_text(token), token) for role, token in {**kind.tokens, **roles}.items()}
        roles = {role: kind.token(role, token) if isinstance(token, str) else token for role, token in roles.items()}
        if not has_mask and not names_mask:  # null: the class's own is not meant
            del roles["mask_token"]
        return cls(roles, list(kind.extra if extra is None else extra), added, names_mask)

    def guess(self, backend: Tokenizer) -> None:
        """Fill in the roles that no file names: BERT's tokens, else RoBERTa's, whichever the vocabulary holds."""
        for role in (*REQUIRED, "mask_token"):
            names = [KINDS[name].tokens[role] for name in ("BertTokenizer", "RobertaTokenizer")]
            self.roles.setdefault(
                role, next((name for name in names if backend.token_to_id(name) is not None), names[0])
            )


def add_tokens(backend: Tokenizer, tokens: SpecialTokens, source: Path) -> None:
    """Add what the vocabulary lacks, and mark what it has, as transformers does.

    Of one token that is named with different flags, the last counts. Special tokens that every row needs are not
    added, since they would have ids without embeddings; nor is a mask that no file names.

    :raises WeightsError: for a token that the files give another id than it gets.
    """
    known = list(backend.get_added_tokens_decoder().values())
    by_id = sorted(tokens.added.items())
    new: list[Token] = [token for _, token in by_id if token not in known]
    flagged = {token.content for token in (*known, *tokens.added.values())}
    kept = REQUIRED if tokens.names_mask else (*REQUIRED, "mask_token")
    wanted = {*map(_text, tokens.extra), *(_text(token) for role, token in tokens.roles.items() if role not in kept)}
    by_role = sorted(tokens.roles, key=lambda role: ROLES.index(role) if role in ROLES else len(ROLES))
    for role, token in [*((role, tokens.roles[role]) for role in by_role), *(("", token) for token in tokens.extra)]:
        absent = role in kept and backend.token_to_id(_text(token)) is None and _text(token) not in wanted
        if _text(token) not in flagged and token not in new and not absent:
            new.append(token)
    named = {_text(token) for token in tokens.roles.values()}
    backend.add_tokens([_flagged(token, named) for token in new])
    found = [(token_id, backend.token_to_id(token.content), token.content) for token_id, token in by_id]
    wrong = [f"{text!r} at {own} instead of {token_id}" for token_id, own, text in found if own != token_id]
    if wrong:
        raise WeightsError(f"{source}: added tokens must follow the ids of its vocabulary, got {listed(wrong)}")


def _flagged(token: Token, named: set[str]) -> AddedToken:
    """Return a token as it is added: special if it is named by its text alone, or for a role."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = token.special or token.content in named
    return token


def _text(token: Token) -> str:
    return token if isinstance(token, str) else token.content


def _require(file: Path, key: str, tokens: Iterable[Token], beside: str, stored: Iterable[Token]) -> None:
    """Refuse a file that lacks tokens of the one beside it: versions 4 and 5 of transformers differ about them."""
    known = {_text(token) for token in tokens}
    lacking = [_text(token) for token in stored if _text(token) not in known]
    if lacking:
        raise WeightsError(f"{file}: {key} must have all tokens of {beside}, lacks {listed(lacking)}")


def _roles(file: Path, values: Mapping[str, Any], *, special: bool) -> dict[str, Token]:
    """Return the tokens by role of a tokenizer_config.json or special_tokens_map.json.

    :param special: whether a token that does not say so is special, as for _extra.
    """
    own = values.get("extra_special_tokens")
    roles = {}
    for key, value in {**(own if isinstance(own, dict) else {}), **values}.items():
        is_role = key.endswith("_token") and (key in ROLES or isinstance(value, str | dict))
        if value is not None and (is_role or (isinstance(own, dict) and key in own)):
            roles[key] = _token(file, key, value, special)
    return roles


def _extra(file: Path, values: Mapping[str, Any], *, special: bool) -> list[Token] | None:
    """Return the further special tokens of a tokenizer_config.json or special_tokens_map.json; None if it is silent."""
    own = values.get("extra_special_tokens")
    named = isinstance(own, dict)  # these have roles
    found = (None if named else own) or values.get("additional_special_tokens")
    if found is None:
        return [] if "extra_special_tokens" in values and not named else None
    if not isinstance(found, list):
        raise WeightsError(f"{file}: additional_special_tokens must be a list of tokens, got {found!r}")
    return [_token(file, "additional_special_tokens", value, special) for value in found]


def _of_file(file: Path, special: set[str]) -> dict[int, AddedToken]:
    """Return the tokens of an added_tokens.json, which does not say which are special."""
    added = {}
    for content, token_id in read_json(file).items():
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            raise WeightsError(f"{file}: the id of {content!r} must be a whole number, got {token_id!r}")
        added[token_id] = AddedToken(content, normalized=content not in special, special=content in special)
    return added


def _by_id(file: Path, entries: Any) -> dict[int, AddedToken]:
    """Return the tokens of an added_tokens_decoder."""
    added = {}
    for key, value in entries.items() if isinstance(entries, dict) else [("", entries)]:
        if not key.isdecimal() or not isinstance(value, dict):
            raise WeightsError(f"{file}: added_tokens_decoder must have tokens by their ids, got {key!r}: {value!r}")
        added[int(key)] = _added(file, "added_tokens_decoder", value, special=False)
    return added


def _token(file: Path, key: str, value: Any, special: bool) -> Token:
    """Return a token as a file has it: its text, or an object that holds it."""
    return value if isinstance(value, str) else _added(file, key, value, special)


def _added(file: Path, key: str, value: Any, special: bool) -> AddedToken:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise WeightsError(f"{file}: {key} must be a token or an object with its content, got {value!r}")
    flags = {"special": special, **{name: value[name] for name in _FLAGS if name in value}}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise WeightsError(f"{file}: the flags of {key} must be true or false, got {value!r}")
    return AddedToken(value["content"], **flags)
