"""Checks of single settings, shared by the configurations: errors name key, value and what is allowed."""

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from multitask.errors import ConfigError

__all__ = [
    "check_choice",
    "check_flag",
    "check_integer",
    "check_known",
    "check_number",
    "check_string",
    "shown",
]


def shown(value: object, limit: int = 80) -> str:
    """The value as a message quotes it: its repr, cut when it is very long."""
    text = repr(value)
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
    """A finite int or float in [low, high], as a float; ``open_...`` leaves that bound itself out."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key} must be a number, not {shown(value)}")
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
        raise ConfigError(f"{key} must be finite and {bounds}, not {shown(value)}")
    return number


def check_integer(key: str, value: Any, *, low: int = 0, high: int | None = None) -> int:
    """A whole number in [low, high]; 3.0 and True are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{key} must be a whole number, not {shown(value)}")
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" + (f" and at most {high}" if high is not None else "")
        raise ConfigError(f"{key} must be {bounds}, not {shown(value)}")
    return value


def check_flag(key: str, value: Any) -> bool:
    """True or False and nothing else."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {shown(value)}")
    return value


def check_string(key: str, value: Any) -> str:
    """A text of at least one character."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key} must be a text that is not empty, not {shown(value)}")
    return value


def check_choice(key: str, value: Any, choices: Sequence[str]) -> str:
    """One of the words in ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{key} must be one of {', '.join(choices)}, not {shown(value)}")
    return value


def check_known(what: str, names: Iterable[object], known: Sequence[str]) -> None:
    """Every name is one of ``known``; the error suggests the nearest and lists them all."""
    for name in names:
        if name in known:
            continue
        near = get_close_matches(str(name), known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ConfigError(f"{what} {shown(name)} is unknown{hint}: known are {', '.join(known) or 'none'}")
