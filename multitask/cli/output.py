"""Where predictions are written: standard output, or a file that appears under its name only when it is whole."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from multitask.errors import ConfigError, DataError, RunError

if TYPE_CHECKING:
    from multitask.run import Prediction
    from multitask.settings.task import Task

__all__ = [
    "STANDARD_STREAM",
    "Output",
    "check_output",
    "check_predict_files",
    "open_output",
    "write_predictions",
    "write_split",
]

STANDARD_STREAM = "-"


class Output:
    """A place for rows: ``write`` takes text. What the disk refuses is a RunError that names the output."""

    def __init__(self, name: str, file: IO[str]) -> None:
        self.name = name
        self.file = file

    def write(self, text: str) -> int:
        """Write text; return the number of its characters."""
        with _disk_errors(self.name):
            return self.file.write(text)


@contextmanager
def _disk_errors(output: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # not trouble: the reader has enough
        raise
    except OSError as error:
        raise RunError(f"--output {output} can't be written: {error.strerror}") from error


@contextmanager
def open_output(output: str) -> Iterator[Output]:
    """Open standard output for ``-``; else a file that appears under its name only when it is whole.

    Rows go to a file beside it, renamed at the end and removed if anything fails. Devices and pipes are
    written to directly.
    """
    if output == STANDARD_STREAM:
        yield Output("-", sys.stdout)
        with _disk_errors(output):
            sys.stdout.flush()
        return
    path = Path(output).resolve()  # through a symbolic link: its target is replaced, not the link
    direct = path.exists() and not path.is_file()
    partial = path if direct else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _disk_errors(output):
            file = partial.open("w", encoding="utf-8", newline="")
        try:
            yield Output(output, file)
        finally:
            with _disk_errors(output):  # closing writes what is still held
                file.close()
        if not direct:
            with _disk_errors(output):
                partial.replace(path)
    finally:
        if not direct:
            partial.unlink(missing_ok=True)


def check_predict_files(source: str, output: str, run: Path) -> None:
    """Refuse, before a model is loaded, what would end in a lost file or an error at the first row."""
    if source == STANDARD_STREAM:
        if sys.stdin.isatty():
            print("reading rows from standard input; end with Ctrl-D", file=sys.stderr)
    elif not Path(source).exists():
        raise DataError(f"--input {source}: there is no such file")
    elif Path(source).is_dir():
        raise DataError(f"--input must be a file of rows, got the folder {source}")
    check_output(output, run, {} if source == STANDARD_STREAM else {"--input": source})


def check_output(output: str, run: Path, sources: Mapping[str, str]) -> None:
    """Refuse an output that can't be written, or would overwrite the run or a file of rows.

    :param sources: files of rows, by what messages call them.
    """
    if output == STANDARD_STREAM:
        return
    path = Path(output)
    if path.is_dir():
        raise ConfigError(f"--output must be the file to write, got the folder {output}")
    if not path.parent.is_dir():
        raise ConfigError(f"--output {output}: there is no folder {path.parent}")
    for name, source in sources.items():
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise ConfigError(f"--output must be another file than {name}, got {output} for both")
    if path.is_file() and run.resolve() in path.resolve().parents and path.suffix != ".tsv":
        raise ConfigError(f"--output must not be a file of the run itself, got {output}")


def write_predictions(sink: Output, task: "Task", predictions: Iterable["Prediction"]) -> None:
    """Write the header and a row for each prediction; fields are quoted the csv way where they must be.

    The labels of a multilabel task are written as its files have them: with its separator, which alone stands for none,
    or as a JSON list.
    """
    writer = csv.writer(sink, delimiter="\t", lineterminator="\n")
    writer.writerow(["id", "prediction", *(f"p_{label}" for label in task.classes)])
    for prediction in predictions:
        shown = _spelled(task, prediction.label)
        writer.writerow([prediction.id, shown, *(f"{p:.6f}" for p in prediction.probabilities or ())])


def write_split(
    sink: Output | IO[str], tasks: Mapping[str, "Task"], predictions: Mapping[str, Sequence["Prediction"]]
) -> None:
    """Write one table of all tasks' predictions, without probabilities; labels as in write_predictions."""
    writer = csv.writer(sink, delimiter="\t", lineterminator="\n")
    writer.writerow(["task", "id", "prediction"])
    for name, answers in predictions.items():
        writer.writerows([name, answer.id, _spelled(tasks[name], answer.label)] for answer in answers)


def _spelled(task: "Task", label: str | float | tuple[str, ...]) -> str:
    """Return a predicted label as it is written."""
    if isinstance(label, tuple) and task.label_separator is not None:
        return task.label_separator.join(label) or task.label_separator
    if isinstance(label, tuple):
        return json.dumps(label, ensure_ascii=False)
    return repr(round(label, 6)) if isinstance(label, float) else label
