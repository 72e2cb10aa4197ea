"""What each command does: it reads its arguments, calls the library and prints."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.cli.inspect import inspect
from multitask.cli.output import STANDARD_STREAM, check_predict_files, open_output, write_predictions
from multitask.cli.scores import counted, print_scores, scores_as_json
from multitask.errors import ConfigError, DataError
from multitask.settings.checks import listed
from multitask.settings.fields import settings_of

if TYPE_CHECKING:
    from multitask.data.examples import BadRow
    from multitask.run import Prediction, Run
    from multitask.settings.config import RunConfig
    from multitask.settings.distillation import Distillation
    from multitask.settings.task import Task

__all__ = ["run"]

DATA_FOLDER = Path("data")  # where `fetch data` writes unless told


def train(args: argparse.Namespace) -> None:
    """Train a run and print its dev scores."""
    from multitask.settings.config import OPTIONS, build_config

    preset = {} if args.preset is None else {"preset": args.preset}
    base = None
    if args.from_run is not None and args.preset is None and args.tasks is None:
        base = _settings_to_go_on_with(args)
    config = build_config(
        **preset,
        tasks_file=args.tasks,
        sets=args.sets,
        data=args.data or (DATA_FOLDER if base is None else None),
        base=base,
        **{name: getattr(args, name) for name in OPTIONS},
    )
    for task in config.tasks:
        if task.train is not None and not Path(task.train).exists():
            hint = "" if args.tasks or base else "; `multitask fetch data` downloads the course's files"
            raise DataError(f"tasks.{task.name}.train: {task.train} does not exist{hint}")
    distillation = _distillation(args) if args.command == "distill" else None
    # Brings torch, so not before the settings are known to be right.
    from multitask.distributed import is_main
    from multitask.training.train import train as train_run

    _use_threads(args.threads)
    with _prints_aside():
        run = train_run(
            config,
            args.out,
            from_run=args.from_run,
            distillation=distillation,
            device=args.device,
            select=args.select,
            limit=args.limit,
            bad_rows=args.bad_rows,
            resume=args.resume,
            save_every=args.save_every,
            keep=args.keep,
            keep_optimizer=args.keep_optimizer,
            progress=not args.quiet,
        )
        record = json.loads((run.folder / "record.json").read_text(encoding="utf-8"))
        scored = any(task["dev_rows"] for task in record["tasks"].values())
        scores = run.evaluate("dev", bad_rows=args.bad_rows) if scored else {}
    if is_main():
        print_scores(scores, run, crossed=record["cross_validated"], said=not args.quiet)
        for name, count in record.get("skipped_steps", {}).items():
            print(f"{name}: skipped {count} steps whose loss or gradient was not finite", file=sys.stderr)
        first = config.tasks[0].name
        folder = shlex.quote(str(run.folder))
        print(f"The run is in {run.folder}. Next: multitask predict {folder} --task {first} --input F --output G")


def _distillation(args: argparse.Namespace) -> "Distillation":
    """Return what the options of distill say of the teachers."""
    from multitask.settings.distillation import Distillation

    told = {name: value for name in settings_of(Distillation) if (value := getattr(args, name)) is not None}
    files: dict[str, str] = {}
    for text in args.unlabelled:
        name, equals, file = text.partition("=")
        if not equals or not file or name in files:
            raise ConfigError(f"--unlabelled must be TASK=FILE, once a task, got {text!r}")
        files[name] = file
    return Distillation(teachers=args.teachers, unlabelled=files, **told)


def _settings_to_go_on_with(args: argparse.Namespace) -> "RunConfig":
    """Return the settings of the run that ``--from`` names."""
    from multitask.training.origin import base_config  # brings torch

    if args.out is None:
        raise ConfigError("--out must be the folder of the new run where --from is given alone, got none")
    return base_config(args.from_run, args.out, args.resume)


def evaluate(args: argparse.Namespace) -> None:
    """Score a run on labelled rows: print a table, or one JSON object."""
    with _prints_aside():
        run = _load(args)
        scores = run.evaluate(args.split, data=args.data, bad_rows=args.bad_rows)
    from multitask.distributed import is_main

    if not is_main():
        return
    if args.json:
        print(json.dumps(scores_as_json(scores, split=args.split), indent=2))
    else:
        print_scores(scores, run)


def predict(args: argparse.Namespace) -> None:
    """Label rows, one line of TSV for each, in their order; memory does not grow with their number."""
    check_predict_files(args.input, args.output, args.run)
    from multitask.data.examples import iter_examples
    from multitask.data.long_texts import cut_note
    from multitask.distributed import is_main, size

    if size() > 1 and (args.input == STANDARD_STREAM or not Path(args.input).is_file()):
        raise ConfigError(f"--input must be a file, which {size()} processes can all read, got {args.input}")
    with _prints_aside():
        run = _load(args)
    task = _chosen_task(run, args.task)
    tally = Tally()
    with open_output(args.output if is_main() else os.devnull) as sink, _prints_aside():
        source = sys.stdin.buffer if args.input == STANDARD_STREAM else Path(args.input)
        examples = iter_examples(source, task, labelled=False, on_bad=args.bad_rows, skipped=tally)
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


def fetch(args: argparse.Namespace) -> None:
    """Download weights into the cache, or the course's data into a folder."""
    if args.kind == "weights":
        from minbert.files.registry import resolve

        print(resolve(args.name, progress=not args.quiet))
    else:
        from multitask.data.course import fetch_data

        fetch_data(args.out, quora=args.quora, progress=not args.quiet)
        print(f"The data is in {args.out}. Next: multitask train --data {shlex.quote(str(args.out))}")


def presets(args: argparse.Namespace) -> None:
    """Print the presets with their hyper-parameters."""
    from multitask.settings.presets import describe_presets

    print(describe_presets())


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "distill": train,
    "evaluate": evaluate,
    "predict": predict,
    "inspect": inspect,
    "fetch": fetch,
    "presets": presets,
}


def run(args: argparse.Namespace) -> None:
    """Run the command of ``args``; where torchrun started this process, together with the others."""
    command = COMMANDS[args.command]
    _load_plugins(args)
    if args.command in ("train", "distill", "evaluate", "predict") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from multitask.distributed import process_group

        with process_group():
            command(args)
    else:
        command(args)


def _load_plugins(args: argparse.Namespace) -> None:
    """Load what ``--plugin`` names, before any setting is read; say which of them registers nothing."""
    if not getattr(args, "plugins", None):
        return
    from multitask.plugins import load_plugin, registered_by

    for path in args.plugins:
        with _prints_aside():
            load_plugin(path)
        if not registered_by(path) and not args.quiet:
            print(f"--plugin {path} registers nothing", file=sys.stderr)


def _prints_aside() -> AbstractContextManager[object]:
    """Send what a part of a user's own prints to standard error: standard output is rows or JSON for other programs."""
    return redirect_stdout(sys.stderr)


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _load(args: argparse.Namespace) -> "Run":
    from multitask.distributed import is_main
    from multitask.run import Run

    _use_threads(args.threads)
    run = Run.load(args.run, device=args.device, precision=args.precision)
    if not args.quiet and is_main():
        print(f"precision {run.precision}", file=sys.stderr)
    return run


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
