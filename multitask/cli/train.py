"""The commands ``train``, and ``distill``, which is train with teachers."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitask.cli.options import (
    add_bad_rows,
    add_limit,
    add_machine,
    add_save_every,
    add_select,
    add_setting,
    at_least,
)
from multitask.cli.running import DATA_FOLDER, FETCH_HINT, prints_aside, require_files, use_threads
from multitask.cli.scores import print_scores
from multitask.errors import ConfigError
from multitask.settings.distillation import Distillation
from multitask.settings.fields import settings_of
from multitask.settings.tables import EncoderConfig, TrainConfig

if TYPE_CHECKING:
    from multitask.settings.config import RunConfig

__all__ = ["add_distill", "add_train", "train"]

_ORDER = "A preset is overridden by --tasks, that by --set and the options of this command."


def add_train(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the parser of ``train``."""
    train = commands.add_parser(
        "train",
        help="fine-tune on the tasks of a preset or of your own TOML file",
        description="Fine-tune, score the dev rows after each epoch, keep one epoch (see --select) in the run folder.",
        epilog=_ORDER,
        allow_abbrev=False,
    )
    _add_training(train)


def add_distill(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the parser of ``distill``."""
    distill = commands.add_parser(
        "distill",
        help="train a smaller encoder on what other runs answer",
        description="Train as train does, on labels and on the outputs of other runs, also for rows without labels.",
        epilog=_ORDER,
        allow_abbrev=False,
    )
    distill.add_argument(
        "--teacher",
        dest="teachers",
        action="append",
        required=True,
        type=Path,
        metavar="RUN",
        help="a run that has tasks of this one, with equal labels; may be repeated: their outputs are averaged",
    )
    distill.add_argument(
        "--unlabelled",
        action="append",
        default=[],
        metavar="TASK=FILE",
        help="further rows of a task, without labels, for the teachers to answer; once a task",
    )
    for name in settings_of(Distillation):
        add_setting(distill, Distillation, name)
    _add_training(distill)


def _add_training(train: argparse.ArgumentParser) -> None:
    """Add the options of train."""
    train.add_argument(
        "--preset",
        metavar="NAME",
        help="one of `multitask presets`; without it the one that is tuned for the weights, else the default",
    )
    train.add_argument("--tasks", type=Path, metavar="FILE.toml", help="your own tasks and settings")
    train.add_argument(
        "--from",
        dest="from_run",
        type=Path,
        metavar="RUN",
        help="begin from the epoch that a run kept: its encoders, tokenizer, and decoders of tasks that are the same;"
        " without --preset and --tasks, with its tasks and settings, too",
    )
    train.add_argument("--data", type=Path, metavar="DIR", help="folder of the preset's data files (data)")
    train.add_argument("--out", type=Path, metavar="RUN", help="the run folder to write (runs/PRESET)")
    for table in (EncoderConfig, TrainConfig):
        for name, known in settings_of(table).items():
            if known.option:
                add_setting(train, table, name)
    add_limit(train)
    add_bad_rows(train, "missing")
    train.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as tasks.sst.lr=3e-5 or train.update=pcgrad; may be repeated",
    )
    add_select(train)
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add_save_every(train)
    train.add_argument("--keep", type=at_least(1), default=1, metavar="N", help="checkpoints to keep (1)")
    train.add_argument("--keep-optimizer", action="store_true", help="keep the optimizers' moments in the run")
    add_machine(train)


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
    require_files(config, "" if args.tasks or base else FETCH_HINT)
    distillation = _distillation(args) if args.command == "distill" else None
    # Brings torch, so not before the settings are known to be right.
    from multitask.distributed import is_main
    from multitask.training.train import train as train_run

    use_threads(args.threads)
    with prints_aside():
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


def _distillation(args: argparse.Namespace) -> Distillation:
    """Return what the options of distill say of the teachers."""
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
