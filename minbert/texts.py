"""What a tokenizer is given: texts, and how rows are cut and padded; each refusal names the argument and its value."""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Literal

from minbert.errors import InputError

__all__ = ["Padding", "Truncation", "checked_texts", "padding_width", "truncation_strategy"]

Truncation = bool | Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
Padding = bool | Literal["longest", "max_length", "do_not_pad"]


def checked_texts(argument: str, texts: Sequence[str] | str) -> list[str]:
    """Return the texts of an argument, a string as a list of one; InputError for what is not valid Unicode text."""
    if not isinstance(texts, Iterable):
        raise InputError(f"{argument} must be a string or several, got {texts!r}")
    rows = [texts] if isinstance(texts, str) else list(texts)
    for index, text in enumerate(rows):
        if not isinstance(text, str):
            raise InputError(f"{argument}[{index}] must be a string, got {reprlib.repr(text)}")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InputError(f"{argument}[{index}] must be valid Unicode text, got {reprlib.repr(text)}") from None
    return rows


def truncation_strategy(truncation: Truncation) -> str | None:
    """Return the library's name of a truncation, None for no truncation; InputError for any other value."""
    if truncation is False or truncation == "do_not_truncate":
        return None
    if truncation is True:
        return "longest_first"
    if truncation not in ("longest_first", "only_first", "only_second"):
        raise InputError(
            f"truncation must be True, 'longest_first', 'only_first', 'only_second' or False, got {truncation!r}"
        )
    return truncation


def padding_width(padding: Padding, max_length: int) -> int | None:
    """Return the least width of a batch, None where its longest row decides; InputError for any other value."""
    if padding not in (True, False, "longest", "max_length", "do_not_pad"):
        raise InputError(f"padding must be True, 'longest', 'max_length' or False, got {padding!r}")
    return max_length if padding == "max_length" else None
