"""The checks of a task's settings: each takes key and value, returns the tidied value and raises ConfigError."""

import os
import re
from functools import partial
from typing import Any

from multitask.errors import ConfigError
from multitask.settings.checks import check_integer, check_number, check_string, shown

__all__ = [
    "check_column",
    "check_columns",
    "check_count",
    "check_list",
    "check_name",
    "check_path",
    "check_rate",
    "check_weights",
    "check_words",
]

# Names become keys of state dictionaries, of TOML and of --set: a dot would cut them in two.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

check_rate = partial(check_number, high=1.0, open_high=True)
check_count = partial(check_integer, low=1)


def check_name(key: str, value: Any) -> str:
    """Check a task's or an encoder's name."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ConfigError(f"{key} must be letters, digits, '_' and '-', a letter first, got {shown(value)}")
    return value


def check_column(key: str, value: Any) -> str:
    """Check a column's name, or its number from 1, which is kept as a string."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(check_integer(key, value, low=1))
    return check_string(key, value)


def check_columns(key: str, value: Any) -> tuple[str, ...]:
    """Check the column of a text, or the two of a pair."""
    # Typed as a tuple, but TOML and users also give a single name or a list.
    columns = value if isinstance(value, tuple | list) else (value,)
    fine = all(isinstance(column, str | int) and column and not isinstance(column, bool) for column in columns)
    if len(columns) not in (1, 2) or not fine:
        raise ConfigError(f"{key} must name one column or two, got {shown(value)}")
    return tuple(check_column(key, column) for column in columns)


def check_list(key: str, value: Any) -> tuple[Any, ...]:
    """Check a list or tuple."""
    if not isinstance(value, tuple | list):
        raise ConfigError(f"{key} must be a list, got {shown(value)}")
    return tuple(value)


def check_weights(key: str, value: Any) -> tuple[float, ...]:
    """Check the factors of a loss, of which one at least is not zero."""
    weights = tuple(check_number(key, weight) for weight in check_list(key, value))
    if not any(weights):
        raise ConfigError(f"{key} must not all be zero, got {shown(value)}")
    return weights


def check_words(key: str, value: Any) -> tuple[str, ...]:
    """Check a list of words, each without blanks around it."""
    return tuple(check_string(key, word.strip() if isinstance(word, str) else word) for word in check_list(key, value))


def check_path(key: str, value: Any) -> str:
    """Check a path, and make it absolute."""
    # A Path is welcome from Python; config.json holds strings. A run must find its files from any folder.
    return os.path.abspath(check_string(key, str(value) if hasattr(value, "__fspath__") else value))
