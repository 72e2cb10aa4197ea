"""Errors of the multi-task package, beside those of minbert."""

from collections.abc import Sequence

from minbert.errors import MinbertError

__all__ = ["ConfigError", "DataError", "NonFiniteError", "RunError", "StoppedError"]


class ConfigError(MinbertError):
    """A preset, TOML key, ``--set`` value or combination of settings is not allowed."""


class DataError(MinbertError):
    """A data file or a row of it can't be used; the message names file and line."""


class RunError(MinbertError):
    """A run folder can't be written, read or resumed."""


class NonFiniteError(RunError):
    """A loss or a gradient's norm is NaN or infinite. ``tasks``: whose; ``what``: which, and what to do."""

    def __init__(self, tasks: Sequence[str], what: str) -> None:
        super().__init__(f"task {' + '.join(tasks)}: {what}")
        self.tasks, self.what = tuple(tasks), what


class StoppedError(RunError):
    """A training was stopped by a signal or a callback, after its state was saved.

    :param signum: the signal's number; SIGTERM's after a callback.
    :param callback: the callback's name, if one stopped it.
    :param how: how it goes on, if not as a run does.
    """

    def __init__(self, signum: int, callback: str | None = None, how: str | None = None) -> None:
        by, resume = (f"signal {signum}", "--resume") if callback is None else (callback, "resume=True")
        super().__init__(f"stopped by {by}; {how or f'{resume} continues from the last checkpoint'}")
        self.signum, self.callback = signum, callback
