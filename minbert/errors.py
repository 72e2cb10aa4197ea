"""Define the package's own errors: each is one sentence that a command line can show as it is."""

from collections.abc import Iterable

__all__ = ["InputError", "MinbertError", "WeightsError", "listed"]


class MinbertError(Exception):
    """Base of every error that the user can mend, rather than a bug of the package."""


class InputError(MinbertError, ValueError):
    """An argument has a value that is not allowed; the message names the argument, the limit and the value."""


class WeightsError(MinbertError):
    """A file of weights, a configuration or a download can't be used; the message names the file."""


def listed(values: Iterable[object], most: int = 5, *, join: str = ", ") -> str:
    """Return values as a message lists them, "a, b, c, d, e and 37 more"; "none" where there are none."""
    names = [str(value) for value in values]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (join.join(names[:most]) or "none") + more
