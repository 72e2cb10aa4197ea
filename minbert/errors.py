"""The package's own errors: each is one sentence that a command line can show as it stands."""

__all__ = ["InputError", "MinbertError", "WeightsError"]


class MinbertError(Exception):
    """Base of every error that is the user's to mend, not a bug of the package."""


class InputError(MinbertError, ValueError):
    """An argument is outside what is allowed; the message names the argument, the value and the limit."""


class WeightsError(MinbertError):
    """A file of weights, a configuration or a download can't be used; the message names the file."""
