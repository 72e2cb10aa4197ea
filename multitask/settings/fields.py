"""A setting stands once: a dataclass field whose metadata holds its help, its check and its choices.

Key lists, command-line options, what "none" may unset and the tables of docs/settings.md are derived from these fields.
"""

from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from types import NoneType, UnionType
from typing import Any, get_args

from multitask.settings.checks import check_choice

__all__ = ["Setting", "check_settings", "setting", "settings_of"]

Check = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Setting:
    """What is known of a field.

    :param help: one phrase for people, as docs/settings.md and ``--help`` show it.
    :param check: takes key and value, returns the tidied value, raises ConfigError.
    :param choices: the words it may be; empty where it is no choice.
    :param option: whether ``multitask train`` has an option of its own for it, beside ``--set``.
    :param default: MISSING where it has to be given.
    :param types: the types it may have; None's among them if it may be unset, which "none" does in TOML and ``--set``.
    """

    help: str
    check: Check
    choices: Collection[str]
    option: bool
    default: Any
    types: tuple[Any, ...]

    @property
    def optional(self) -> bool:
        """Whether None is allowed."""
        return NoneType in self.types


def setting(
    help: str,
    check: Check | None = None,
    *,
    default: Any = MISSING,
    choices: Collection[str] = (),
    option: bool = False,
) -> Any:
    """Return a dataclass field with a setting's metadata; the parameters are those of ``Setting``.

    :param check: may be left out with ``choices``.
    """
    checked = check or partial(check_choice, choices=choices)
    metadata = {"help": help, "check": checked, "choices": choices, "option": option}
    return field(default=default, metadata=metadata)


def settings_of(table: Any) -> dict[str, Setting]:
    """Return the settings of a dataclass (or an instance) by name, in its order; plain fields are left out."""
    return {
        each.name: Setting(**each.metadata, default=each.default, types=_types(each.type))
        for each in fields(table)
        if each.metadata
    }


def _types(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def check_settings(table: Any, prefix: str) -> None:
    """Check every setting of a dataclass instance, and put the tidied values in their places.

    :param prefix: what stands before the dot in messages' keys.
    :raises ConfigError: for the first that is not allowed.
    """
    for name, known in settings_of(table).items():
        value = getattr(table, name)
        if value is not None or not known.optional:
            # Frozen for users; construction itself may still tidy up.
            object.__setattr__(table, name, known.check(f"{prefix}.{name}", value))
