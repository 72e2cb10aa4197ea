"""The command line's parser: every command and its options, most of them made from the settings' own fields.

Imports no torch, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from multitask.data.examples import ON_BAD
from multitask.errors import ConfigError
from multitask.settings.checks import check_integer
from multitask.settings.distillation import Distillation
from multitask.settings.fields import settings_of
from multitask.settings.tables import EncoderConfig, TrainConfig
from multitask.settings.task import FILES

__all__ = ["PROGRAM", "USAGE_ERROR", "build_parser"]

PROGRAM = "multitask"
USAGE_ERROR = 2
_ORDER = "A preset is overridden by --tasks, that by --set and the options of this command."


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all others here."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2."""
        print(f"{PROGRAM}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)


def _checked(check: Callable[[str, Any], Any], read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Return the argument type of what ``check`` lets through, once ``read``; argparse itself names the argument."""

    def argument(text: str) -> Any:
        try:
            value = read(text)
        except ValueError:
            value = text
        try:
            return check("", value)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return argument


def _at_least(low: int, high: int = 2**63 - 1) -> Callable[[str], Any]:
    """Return the argument type of a whole number from ``low`` to ``high``."""
    return _checked(partial(check_integer, low=low, high=high), int)


def _add_setting(group: argparse._ActionsContainer, table: type, name: str) -> None:
    """Add the option of a setting, as its field describes it."""
    known = settings_of(table)[name]
    option = f"--{name.replace('_', '-')}"
    if known.choices:
        group.add_argument(option, choices=list(known.choices), help=known.help)
    elif known.types == (bool,):
        group.add_argument(option, action="store_const", const=True, help=known.help)  # None is not given
    else:
        kind = _checked(known.check, known.types[0])
        number = int in known.types or float in known.types
        group.add_argument(option, type=kind, metavar="N" if number else "NAME", help=known.help)


def build_parser() -> _Parser:
    """Build the parser of all commands; the chosen command's name ends up in ``args.command``."""
    parser = _Parser(
        prog=PROGRAM, description="Fine-tune one BERT on several tasks at once, score it, predict with it."
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_train(commands)
    _add_distill(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_inspect(commands)
    _add_fetch(commands)
    commands.add_parser("presets", help="list the presets and their hyper-parameters", allow_abbrev=False)
    return parser


def _add_train(commands: "argparse._SubParsersAction[_Parser]") -> None:
    train = commands.add_parser(
        "train",
        help="fine-tune on the tasks of a preset or of your own TOML file",
        description="Fine-tune, score the dev rows after each epoch, keep one epoch (see --select) in the run folder.",
        epilog=_ORDER,
        allow_abbrev=False,
    )
    _add_training(train)


def _add_distill(commands: "argparse._SubParsersAction[_Parser]") -> None:
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
        _add_setting(distill, Distillation, name)
    _add_training(distill)


def _add_training(train: _Parser) -> None:
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
                _add_setting(train, table, name)
    train.add_argument(
        "--limit", type=_at_least(1), metavar="ROWS", help="use this many rows of each task, drawn by the seed"
    )
    _add_bad_rows(train, "missing")
    train.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, such as tasks.sst.lr=3e-5 or train.update=pcgrad; may be repeated",
    )
    train.add_argument(
        "--select",
        default="auto",
        metavar="last|mean|TASK[.METRIC]",
        help="whose dev score picks the epoch that is kept, of equal ones the last; or last"
        " (mean, but last where a task has fewer than 100 dev rows)",
    )
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    train.add_argument(
        "--save-every", type=_at_least(1), default=100, metavar="N", help="rounds between checkpoints (100)"
    )
    train.add_argument("--keep", type=_at_least(1), default=1, metavar="N", help="checkpoints to keep (1)")
    train.add_argument("--keep-optimizer", action="store_true", help="keep the optimizers' moments in the run")
    _add_machine(train)


def _add_evaluate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score a run on labelled rows",
        description="Score a run, with 95 % bootstrap intervals and macro-F1.",
        allow_abbrev=False,
    )
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder that train wrote")
    evaluate.add_argument("--data", type=Path, metavar="DIR", help="folder of the data files (where train found them)")
    evaluate.add_argument("--split", default="dev", choices=list(FILES), help="which rows (dev)")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    _add_bad_rows(evaluate, "missing")
    _add_setting(evaluate, TrainConfig, "precision")
    _add_machine(evaluate)


def _add_predict(commands: "argparse._SubParsersAction[_Parser]") -> None:
    predict = commands.add_parser(
        "predict",
        help="label rows with a run",
        description="Write a TSV: id, prediction, then a probability per class, in the order of the rows.",
        epilog="Input is CSV, TSV or JSON lines with the task's columns, or plain text, one sentence a line"
        " (pairs: a tab between the two). A pipe works at either end.",
        allow_abbrev=False,
    )
    predict.add_argument("run", type=Path, metavar="RUN", help="folder that train wrote")
    predict.add_argument("--task", metavar="NAME", help="the task to predict (may be left out if the run has one)")
    predict.add_argument("--input", default="-", metavar="FILE", help="rows to label, - for standard input (-)")
    predict.add_argument("--output", default="-", metavar="FILE", help="where to write, - for standard output (-)")
    _add_bad_rows(predict, "error")
    _add_setting(predict, TrainConfig, "precision")
    _add_machine(predict)


def _add_inspect(commands: "argparse._SubParsersAction[_Parser]") -> None:
    inspect = commands.add_parser(
        "inspect",
        help="look at a file of labelled rows, and get the TOML to train on it",
        description="Guess a file's columns and kind, and count what is odd. The output is a TOML file for train"
        " --tasks, with all else as comments.",
        allow_abbrev=False,
    )
    inspect.add_argument("file", type=Path, metavar="FILE", help="CSV, TSV, JSON, parquet or an Excel sheet")
    inspect.add_argument("--dev", type=Path, metavar="FILE", help="the dev rows, to be compared with the others")
    inspect.add_argument(
        "--text", action="append", metavar="COLUMN", help="the text's column; twice for a pair (guessed)"
    )
    inspect.add_argument("--label", metavar="COLUMN", help="the label's column (guessed)")
    inspect.add_argument("--kind", metavar="NAME", help="the kind of task (guessed)")
    inspect.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="how the file is written, such as separator=; or encoding=cp1252 (found by looking); may be repeated",
    )
    inspect.add_argument(
        "--weights",
        default=settings_of(EncoderConfig)["weights"].default,
        metavar="NAME",
        help="whose tokens are counted (all-minilm-l6-v2)",
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")


def _add_bad_rows(command: _Parser, default: str) -> None:
    missing = "missing: leave out those without text or label, and stop at others; " if default == "missing" else ""
    command.add_argument(
        "--bad-rows",
        default=default,
        choices=[word for word in ON_BAD if word != "missing" or default == "missing"],
        help=f"rows that can't be used: {missing}error: stop; skip: leave them out, and count them ({default})",
    )


def _add_machine(command: _Parser) -> None:
    command.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="a file that registers parts of your own, to be run as Python; may be repeated",
    )
    group = command.add_argument_group("machine")
    group.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="where to compute")
    group.add_argument("--threads", type=_at_least(1, 1024), metavar="N", help="CPU threads (torch's own choice)")
    group.add_argument("--quiet", action="store_true", help="no progress bars and notes")


def _add_fetch(commands: "argparse._SubParsersAction[_Parser]") -> None:
    fetch = commands.add_parser("fetch", help="download weights or the course's data", allow_abbrev=False)
    kinds = fetch.add_subparsers(dest="kind", metavar="weights|data", required=True)
    weights = kinds.add_parser("weights", help="an encoder's weights, into the cache", allow_abbrev=False)
    weights.add_argument("name", metavar="NAME", help="all-minilm-l6-v2, all-mpnet-base-v2 ... or a hub id")
    weights.add_argument("--quiet", action="store_true", help="no progress bars")
    data = kinds.add_parser("data", help="the course's files, checked by their hashes", allow_abbrev=False)
    data.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="folder to write to (data)")
    data.add_argument(
        "--quora",
        default="full",
        choices=["full", "small"],
        help="full: the course's own split; small: 14,214 / 3,000 / 3,000 pairs cut from its dev file",
    )
    data.add_argument("--quiet", action="store_true", help="no progress bars")
