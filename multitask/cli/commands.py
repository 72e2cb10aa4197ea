"""What each command does: it reads its arguments, calls the library and prints."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from multitask.cli.compare import compare
from multitask.cli.inspect import inspect
from multitask.cli.predict import predict
from multitask.cli.pretrain import pretrain
from multitask.cli.running import DATA_FOLDER, load_run, prints_aside, require_files, use_threads
from multitask.cli.scores import print_scores, scores_as_json
from multitask.cli.sweep import sweep
from multitask.errors import ConfigError

if TYPE_CHECKING:
    from multitask.settings.config import RunConfig

__all__ = ["run"]


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
    require_files(config, "" if args.tasks or base else "; `multitask fetch data` downloads the course's files")
    # Brings torch, so not before the settings are known to be right.
    from multitask.distributed import is_main
    from multitask.training.train import train as train_run

    use_threads(args.threads)
    with prints_aside():
        run = train_run(
            config,
            args.out,
            from_run=args.from_run,
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


def _settings_to_go_on_with(args: argparse.Namespace) -> "RunConfig":
    """Return the settings of the run that ``--from`` names."""
    from multitask.training.origin import base_config  # brings torch

    if args.out is None:
        raise ConfigError("--out must be the folder of the new run where --from is given alone, got none")
    return base_config(args.from_run, args.out, args.resume)


def evaluate(args: argparse.Namespace) -> None:
    """Score a run on labelled rows: print a table, or one JSON object."""
    with prints_aside():
        run = load_run(args)
        scores = run.evaluate(args.split, data=args.data, bad_rows=args.bad_rows)
    from multitask.distributed import is_main

    if not is_main():
        return
    if args.json:
        print(json.dumps(scores_as_json(scores, split=args.split), indent=2))
    else:
        print_scores(scores, run)


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
    "sweep": sweep,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "inspect": inspect,
    "pretrain": pretrain,
    "fetch": fetch,
    "presets": presets,
}


def run(args: argparse.Namespace) -> None:
    """Run the command of ``args``; where torchrun started this process, together with the others."""
    command = COMMANDS[args.command]
    _load_plugins(args)
    if (
        args.command in ("train", "sweep", "evaluate", "compare", "predict")
        and int(os.environ.get("WORLD_SIZE", "1")) > 1
    ):
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
        with prints_aside():
            load_plugin(path)
        if not registered_by(path) and not args.quiet:
            print(f"--plugin {path} registers nothing", file=sys.stderr)
