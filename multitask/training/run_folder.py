"""What a run folder holds while it is trained: logs that can be cut back, a lock, and signals taken between rounds."""

import fcntl
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from multitask.distributed import size, totals_over_ranks
from multitask.errors import RunError, StoppedError

__all__ = ["JsonLines", "NoLines", "Signals", "locked", "replace_best"]


class JsonLines:
    """A log of one JSON object a line, flushed as it goes so that a killed run keeps what it did.

    :param length: bytes of an existing file to keep; what a killed run wrote after them is cut off.
    :raises RunError: for a file that can't be written, or is shorter than ``length``.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise RunError(f"{path}: can't be written ({error.strerror})") from None
        size = os.fstat(self._file.fileno()).st_size
        if size < length:
            raise RunError(f"{path}: must have at least {length} bytes, as when the checkpoint was saved, got {size}")
        self._file.truncate(length)

    def write(self, **values: Any) -> None:
        """Append one object; RunError if the disk refuses."""
        try:
            self._file.write(json.dumps(values, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise RunError(f"{self._file.name}: can't be written ({error.strerror})") from None

    def length(self) -> int:
        """Count the bytes written so far, safe on disk when this returns."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NoLines:
    """The log of a process that is not the run's main one: nothing."""

    def write(self, **values: Any) -> None:
        """Write nothing."""

    def length(self) -> int:
        """Count nothing."""
        return 0

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock dies with it. RunError if another process has it."""
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{folder / '.lock'}: can't be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another process is training into it; name a new folder, or wait") from None
        yield


class Signals:
    """Notes SIGTERM, SIGINT and a callback's wish, and does not act on them, so that a round is never cut in two."""

    def __init__(self) -> None:
        self._caught: int | None = None
        self._callback: str | None = None
        self._agreed = False

    def stop(self, callback: str) -> None:
        """Note that a callback wants the run to stop."""
        self._callback = callback

    def agree(self) -> bool:
        """Return whether any of the run's processes is to stop; all of them get the same answer."""
        if any(totals_over_ranks([self._caught is not None or self._callback is not None])):
            self._agreed = True
        return self._agreed

    def check(self) -> None:
        """Raise StoppedError if that was agreed on."""
        if self._agreed:
            number = self._caught or signal.SIGTERM
            raise StoppedError(number, self._callback if self._caught is None else None)

    @contextmanager
    def noted(self) -> Iterator["Signals"]:
        """Note the signals within; a second one acts at once, except with several processes: torchrun sends its own.

        Does nothing outside the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def note(number: int, frame: FrameType | None) -> None:
            self._caught = number
            for each, handler in before.items() if size() == 1 else ():
                signal.signal(each, handler)

        try:
            for number in before:
                signal.signal(number, note)
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def replace_best(out: Path, save: Callable[[Path], None]) -> None:
    """Let ``save`` write a model beside ``best/`` and swap the two, so that no mixture of epochs is ever there."""
    best, new, old = (out / name for name in ("best", ".best.new", ".best.old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    save(new)
    if best.exists():
        best.rename(old)
    new.rename(best)
    shutil.rmtree(old, ignore_errors=True)
