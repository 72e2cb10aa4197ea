"""Where settings are written down: TOML files and ``--set``; config.py knows what they mean."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multitask.errors import ConfigError
from multitask.settings.checks import shown

__all__ = ["as_table", "assignments", "read_toml"]


def as_table(key: str, value: Any) -> Mapping[str, Any]:
    """Return the value, which has to be a table; ``key`` is what a message calls it."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} must be a table, got {shown(value)}")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Return the contents of a TOML file; a byte-order mark is fine. ConfigError says what is wrong with it."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors.
        raise ConfigError(f"{path} must be a TOML file ({error})") from error


def assignments(sets: Sequence[str], options: Mapping[str, Any], option: str = "--set") -> Iterator[tuple[str, Any]]:
    """Yield keys and values of all ``--set KEY=VALUE`` and then of the options that are given.

    :param option: what messages call ``--set``.
    """
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            example = "train.seed=1" if option == "--set" else "separator=tab"
            raise ConfigError(f"{option} must be KEY=VALUE, such as {example}, got {shown(text)}")
        yield key.strip(), _toml_value(value.strip())
    for key, value in options.items():
        if value is not None:
            yield key, value


def _toml_value(text: str) -> Any:
    """Return the value that TOML reads in ``text``, or ``text`` itself where it is not TOML."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break in the text could smuggle in further keys.
    return parsed["value"] if list(parsed) == ["value"] else text
