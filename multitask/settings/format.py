"""How a task's files are written, where looking at them is not enough: the table ``[tasks.NAME.format]``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from multitask.errors import ConfigError
from multitask.settings.checks import check_flag, check_known, check_string, shown
from multitask.settings.fields import check_settings, setting, settings_of

__all__ = ["FORMAT_KEYS", "Format", "check_format"]


def _check_separator(key: str, value: Any) -> str:
    if value == "tab":
        return "\t"
    if not isinstance(value, str) or len(value) != 1 or value in '"\r\n\0\ufeff':
        raise ConfigError(f"{key} must be one character, or tab, got {shown(value)}")
    return value


def _check_encoding(key: str, value: Any) -> str:
    name = check_string(key, value)
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        raise ConfigError(f"{key} must be an encoding that Python knows, such as cp1252, got {shown(value)}") from None
    return name


@dataclass(frozen=True, kw_only=True)
class Format:
    """How all files of a task are written; what is left out is found by looking at each file.

    :param key: what messages call it: "tasks.topic.format".
    :raises ConfigError: for a value that is not allowed, with its key and what is.
    """

    separator: str | None = setting("one character between cells, or tab", _check_separator, default=None)
    quoting: str | None = setting(
        "`double`: a cell may stand in double quotes, and go on over lines; `none`: a quote is a character like others",
        choices=("double", "none"),
        default=None,
    )
    decimal: str | None = setting("decimal sign of a regression's labels", choices=(".", ","), default=None)
    header: bool | None = setting(
        "whether the first row names the columns; without it they are numbers, from 1", check_flag, default=None
    )
    encoding: str | None = setting(
        "Python's name of an encoding; unset: UTF-8, or what a byte-order mark says; it is never guessed",
        _check_encoding,
        default=None,
    )
    sheet: str | None = setting("name of an Excel file's sheet; unset: the first", check_string, default=None)
    key: str = field(default="format", compare=False, repr=False)

    def __post_init__(self) -> None:
        check_settings(self, self.key)

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as JSON has them."""
        return {key: getattr(self, key) for key in FORMAT_KEYS}

    @classmethod
    def from_dict(cls, key: str, values: Mapping[str, Any]) -> Self:
        """Build the format of a table; ConfigError for keys that are unknown, naming those that are."""
        check_known(f"a key of {key}", values, FORMAT_KEYS)
        return cls(key=key, **values)


FORMAT_KEYS = tuple(settings_of(Format))


def check_format(key: str, value: Any) -> Format:
    """Check a task's format, a table or a Format, and let it know what it is called."""
    if isinstance(value, Format):
        return replace(value, key=key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} must be a table of {', '.join(FORMAT_KEYS)}, got {shown(value)}")
    return Format.from_dict(key, value)
