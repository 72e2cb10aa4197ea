"""Options that several commands share, most of them made from the settings' own fields.

Imports no torch, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from multitask.data.bad_rows import ON_BAD
from multitask.errors import ConfigError
from multitask.settings.checks import check_integer
from multitask.settings.fields import settings_of

__all__ = ["add_bad_rows", "add_limit", "add_machine", "add_save_every", "add_select", "add_setting", "at_least"]


def _checked(check: Callable[[str, Any], Any], read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Return the argument type of what ``check`` lets through, once ``read``; argparse itself names the argument."""

    def argument(text: str) -> Any:
        try:
            value = read(text)
        except ValueError:
            value = text
        try:
            return check("", value)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return argument


def at_least(low: int, high: int = 2**63 - 1) -> Callable[[str], Any]:
    """Return the argument type of a whole number from ``low`` to ``high``."""
    return _checked(partial(check_integer, low=low, high=high), int)


def add_setting(group: argparse._ActionsContainer, table: type, name: str) -> None:
    """Add the option of a setting, as its field describes it."""
    known = settings_of(table)[name]
    option = f"--{name.replace('_', '-')}"
    if known.choices:
        group.add_argument(option, choices=list(known.choices), help=known.help)
    elif known.types == (bool,):
        group.add_argument(option, action="store_const", const=True, help=known.help)  # None is not given
    else:
        kind = _checked(known.check, known.types[0])
        number = int in known.types or float in known.types
        group.add_argument(option, type=kind, metavar="N" if number else "NAME", help=known.help)


def add_bad_rows(command: argparse.ArgumentParser, default: str) -> None:
    """Add ``--bad-rows``; where the default is "error" no row may be left out silently."""
    missing = "missing: leave out those without text or label, and stop at others; " if default == "missing" else ""
    command.add_argument(
        "--bad-rows",
        default=default,
        choices=[word for word in ON_BAD if word != "missing" or default == "missing"],
        help=f"rows that can't be used: {missing}error: stop; skip: leave them out, and count them ({default})",
    )


def add_limit(command: argparse.ArgumentParser, but: str = "") -> None:
    """Add ``--limit``; ``but`` ends its help."""
    command.add_argument(
        "--limit", type=at_least(1), metavar="ROWS", help="use this many rows of each task, drawn by the seed" + but
    )


def add_select(command: argparse.ArgumentParser) -> None:
    """Add ``--select``."""
    command.add_argument(
        "--select",
        default="auto",
        metavar="last|mean|TASK[.METRIC]",
        help="whose dev score picks the epoch that is kept, of equal ones the last; or last"
        " (mean, but last where a task has fewer than 100 dev rows)",
    )


def add_save_every(command: argparse.ArgumentParser) -> None:
    """Add ``--save-every``."""
    command.add_argument(
        "--save-every", type=at_least(1), default=100, metavar="N", help="rounds between checkpoints (100)"
    )


def add_machine(command: argparse.ArgumentParser, *, plugins: bool = True) -> None:
    """Add ``--plugin``, unless the command takes none, and where and how to compute."""
    if plugins:
        command.add_argument(
            "--plugin",
            dest="plugins",
            action="append",
            default=[],
            type=Path,
            metavar="FILE.py",
            help="a file that registers parts of your own, to be run as Python; may be repeated",
        )
    group = command.add_argument_group("machine")
    group.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="where to compute")
    group.add_argument("--threads", type=at_least(1, 1024), metavar="N", help="CPU threads (torch's own choice)")
    group.add_argument("--quiet", action="store_true", help="no progress bars and notes")
