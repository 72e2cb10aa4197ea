"""The command ``predict``: labels for rows that are given, or for a split of the run's tasks."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.cli.output import (
    STANDARD_STREAM,
    check_output,
    check_predict_files,
    open_output,
    write_predictions,
    write_split,
)
from multitask.cli.running import load_run, prints_aside
from multitask.cli.scores import counted
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import listed
from multitask.settings.task import FILES

if TYPE_CHECKING:
    from multitask.data.examples import BadRow
    from multitask.run import Prediction, Run
    from multitask.settings.task import Task

__all__ = ["predict"]


def predict(args: argparse.Namespace) -> None:
    """Label a split of the run's tasks, or rows, one line of TSV for each, in their order.

    Memory does not grow with the number of rows that are given.
    """
    if args.split is not None:
        _predict_split(args)
        return
    if args.data is not None:
        raise ConfigError(f"--data must be left out without --split, got {args.data}")
    args.input = STANDARD_STREAM if args.input is None else args.input
    check_predict_files(args.input, args.output, args.run)
    from multitask.data.examples import iter_examples
    from multitask.data.long_texts import cut_note
    from multitask.distributed import is_main, size

    if size() > 1 and (args.input == STANDARD_STREAM or not Path(args.input).is_file()):
        raise ConfigError(f"--input must be a file, which {size()} processes can all read, got {args.input}")
    with prints_aside():
        run = load_run(args)
    task = _chosen_task(run, args.task)
    tally = Tally()
    with open_output(args.output if is_main() else os.devnull) as sink, prints_aside():
        source = sys.stdin.buffer if args.input == STANDARD_STREAM else Path(args.input)
        examples = iter_examples(source, task, labelled=False, bad_rows=args.bad_rows, skipped=tally)
        write_predictions(sink, task, tally.counted(run.predict_stream(task.name, examples)))
        if tally.first is not None and not tally.answered:
            raise DataError(
                f"--input {args.input} must have a usable row for task {task.name}, got none: {tally.first}"
            )
    if not is_main():
        return
    # Always print: the output is incomplete.
    if tally.left_out:
        print(f"left out {counted(tally.left_out)} of {tally.rows}, the first: {tally.first}", file=sys.stderr)
    if tally.cut:
        print(cut_note(task.name, task.long, tally.cut, tally.rows, run.model.max_length), file=sys.stderr)


def _predict_split(args: argparse.Namespace) -> None:
    """Label the rows of a split of the run's tasks, in one table."""
    if args.input is not None:
        raise ConfigError(f"--split and --input must not both be given, got {args.split} and {args.input}")
    from multitask.data.long_texts import cut_note
    from multitask.distributed import is_main
    from multitask.run import read_config

    config = read_config(args.run)
    config = config if args.data is None else config.with_data(args.data)
    files = {f"tasks.{task.name}.{split}": getattr(task, split) for task in config.tasks for split in FILES}
    check_output(args.output, args.run, {name: file for name, file in files.items() if file is not None})
    with prints_aside():
        run = load_run(args)
        rows = run.read_split(args.split, task=args.task, data=args.data, bad_rows=args.bad_rows)
        answers = {name: list(run.predict_stream(name, dataset.examples)) for name, dataset in rows.items()}
    if not is_main():
        return
    tasks = {task.name: task for task in run.config.tasks}
    with open_output(args.output) as sink:
        write_split(sink, tasks, answers)
    # Always print: the output is incomplete.
    for name, dataset in rows.items():
        if bad := dataset.skipped:
            of = len(bad) + len(dataset)
            print(f"{name}: left out {counted(len(bad))} of {of}, the first: {bad[0]}", file=sys.stderr)
        if cut := sum(answer.truncated for answer in answers[name]):
            print(cut_note(name, tasks[name].long, cut, len(dataset), run.model.max_length), file=sys.stderr)


class Tally:
    """Counts rows as they pass: those answered, those cut for being too long, those left out."""

    def __init__(self) -> None:
        self.answered = self.cut = self.left_out = 0
        self.first: BadRow | None = None

    @property
    def rows(self) -> int:
        """All rows so far."""
        return self.answered + self.left_out

    def append(self, row: "BadRow", /) -> None:
        """Count a row that is left out."""
        self.left_out += 1
        self.first = self.first or row

    def counted(self, predictions: Iterable["Prediction"]) -> Iterator["Prediction"]:
        """Pass the predictions on."""
        for prediction in predictions:
            self.answered += 1
            self.cut += prediction.truncated
            yield prediction


def _chosen_task(run: "Run", name: str | None) -> "Task":
    """Return the run's task of that name; without a name, its only one."""
    tasks = {task.name: task for task in run.config.tasks}
    if name is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    if name is None:
        raise ConfigError(f"--task must be one of {listed(tasks)}, got none")
    if name not in tasks:
        raise ConfigError(f"--task must be one of {listed(tasks)}, got {name!r}")
    return tasks[name]
