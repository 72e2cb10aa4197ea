"""Checks of single settings: each returns the value, tidied, or raises ConfigError with key, limits and value."""

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from minbert.errors import listed
from multitask.errors import ConfigError

__all__ = [
    "OWN_PART",
    "check_choice",
    "check_flag",
    "check_integer",
    "check_known",
    "check_number",
    "check_string",
    "listed",
    "shown",
]


# Ends a message about a name that a user's file might have registered.
OWN_PART = "; one of your own has to be loaded first (--plugin FILE.py)"


def shown(value: object, limit: int = 80) -> str:
    """Return the value as a message quotes it: its repr, cut when it is very long."""
    text = repr(value).replace("\n", " ")  # that of an array or a Series has lines
    return text if len(text) <= limit else text[:limit] + "..."


def check_number(
    key: str,
    value: Any,
    *,
    low: float = 0.0,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Check a finite int or float in [low, high].

    :param open_low: exclude ``low`` itself.
    :param open_high: exclude ``high`` itself.
    :return: the value as a float.
    :raises ConfigError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if not math.isfinite(number) or below or above:
        bounds = f"{'above' if open_low else 'at least'} {low:g}"
        if high != math.inf:
            bounds += f" and {'below' if open_high else 'at most'} {high:g}"
        raise ConfigError(f"{key} must be finite and {bounds}, got {shown(value)}")
    return number


def check_integer(key: str, value: Any, *, low: int = 0, high: int | None = None) -> int:
    """Check a whole number in [low, high].

    :return: the value.
    :raises ConfigError: for anything else, 3.0 and True included.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} must be a whole number, got {shown(value)}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" + (f" and at most {high}" if high is not None else "")
        raise ConfigError(f"{key} must be {bounds}, got {shown(value)}")
    return value


def check_flag(key: str, value: Any) -> bool:
    """Check a bool.

    :return: the value.
    :raises ConfigError: for anything but True and False.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, got {shown(value)}")
    return value


def check_string(key: str, value: Any) -> str:
    """Check a string of at least one character.

    :return: the value.
    :raises ConfigError: for anything else.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a non-empty string, got {shown(value)}")
    return value


def check_choice(key: str, value: Any, choices: Collection[str]) -> str:
    """Check one of the words in ``choices``.

    :return: the value.
    :raises ConfigError: for anything else.
    """
    if not isinstance(value, str) or value not in choices:
        # A tuple of words is all there is; to a registry a user may add.
        hint = "" if isinstance(choices, tuple) else OWN_PART
        raise ConfigError(f"{key} must be one of {listed(choices)}, got {shown(value)}{hint}")
    return value


def check_known(what: str, names: Iterable[object], known: Collection[str]) -> None:
    """Check that every name is one of ``known``.

    :param what: what a name is called in messages.
    :raises ConfigError: for the first that is not; it lists some and suggests the nearest.
    """
    for name in names:
        if name in known:
            continue
        near = get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"{what} must be one of {listed(known)}, got {shown(name)}{hint}")
