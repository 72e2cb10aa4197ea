"""What each command does: it reads its arguments, calls the library and prints."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable

from multitask.cli.compare import compare
from multitask.cli.inspect import inspect
from multitask.cli.predict import predict
from multitask.cli.pretrain import pretrain
from multitask.cli.running import load_run, prints_aside
from multitask.cli.scores import print_scores, scores_as_json
from multitask.cli.sweep import sweep
from multitask.cli.train import train

__all__ = ["run"]


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
    "distill": train,
    "sweep": sweep,
    "evaluate": evaluate,
    "compare": compare,
    "predict": predict,
    "inspect": inspect,
    "pretrain": pretrain,
    "fetch": fetch,
    "presets": presets,
}
# What several processes do together.
TOGETHER = ("train", "distill", "sweep", "evaluate", "compare", "predict")


def run(args: argparse.Namespace) -> None:
    """Run the command of ``args``; where torchrun started this process, together with the others."""
    command = COMMANDS[args.command]
    _load_plugins(args)
    if args.command in TOGETHER and int(os.environ.get("WORLD_SIZE", "1")) > 1:
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
