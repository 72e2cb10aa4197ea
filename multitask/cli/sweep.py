"""The command ``sweep``: settings over seeds, and one table of them."""

import argparse
import sys
from pathlib import Path
from typing import Any

from multitask.cli.compare import print_comparison
from multitask.cli.options import add_bad_rows, add_limit, add_machine, add_save_every, add_select
from multitask.cli.running import DATA_FOLDER, FETCH_HINT, prints_aside, require_files, use_threads

__all__ = ["add_sweep", "sweep"]


def add_sweep(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "sweep",
        help="train several settings over several seeds, and compare them",
        description="Train each [sweep.settings.NAME] of a file with each of its sweep.seeds into FOLDER/NAME-SEED, as"
        " train --set ... --seed SEED --resume does. Then show each setting's mean and standard deviation over seeds,"
        " and its difference to the first setting with the 95 % interval of the paired bootstrap on the dev rows.",
        epilog="The same command goes on where it was stopped, and trains nothing twice.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="tasks and settings, with a table [sweep]")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder of the run folders")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the preset's data files (data)")
    add_limit(parser, "; the comparison scores all dev rows")
    add_bad_rows(parser, "missing")
    add_select(parser)
    add_save_every(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    add_machine(parser)


def sweep(args: argparse.Namespace) -> None:
    """Train what is left to train, and print the table."""
    from multitask.settings.sweep import read_sweep

    plan = read_sweep(args.file, data=args.data or DATA_FOLDER)
    for config in plan.settings.values():
        require_files(config, "" if plan.own_tasks else FETCH_HINT)
    # Brings torch, so not before the settings are known to be right.
    from multitask.distributed import is_main
    from multitask.studies.sweep import run_sweep

    def say(line: str) -> None:
        if is_main() and not args.quiet:
            print(line, file=sys.stderr)

    use_threads(args.threads)
    with prints_aside():
        found = run_sweep(
            plan,
            args.out,
            device=args.device,
            select=args.select,
            limit=args.limit,
            bad_rows=args.bad_rows,
            save_every=args.save_every,
            progress=not args.quiet,
            say=say,
        )
    print_comparison(found, what="setting", as_json=args.json)
