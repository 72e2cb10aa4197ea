"""Define the package's own errors: each is one sentence that a command line can show as it is."""

__all__ = ["InputError", "MinbertError", "WeightsError"]


class MinbertError(Exception):
    """Base of every error that the user can mend, rather than a bug of the package."""


class InputError(MinbertError, ValueError):
    """An argument has a value that is not allowed; the message names the argument, the limit and the value."""


class WeightsError(MinbertError):
    """A file of weights, a configuration or a download can't be used; the message names the file."""
