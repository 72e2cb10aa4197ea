"""The command line's parser: every command and its options, most of them made from the settings' own fields.

Imports no torch, so that ``--help`` and a mistyped option answer at once.
"""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from multitask.cli.compare import add_compare
from multitask.cli.options import add_bad_rows, add_machine, add_setting
from multitask.cli.pretrain import add_pretrain
from multitask.cli.sweep import add_sweep
from multitask.cli.train import add_distill, add_train
from multitask.settings.fields import settings_of
from multitask.settings.tables import EncoderConfig, TrainConfig
from multitask.settings.task import FILES

__all__ = ["PROGRAM", "USAGE_ERROR", "build_parser"]

PROGRAM = "multitask"
USAGE_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all others here."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2."""
        print(f"{PROGRAM}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)


def build_parser() -> _Parser:
    """Build the parser of all commands; the chosen command's name ends up in ``args.command``."""
    parser = _Parser(
        prog=PROGRAM, description="Fine-tune one BERT on several tasks at once, score it, predict with it."
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    add_train(commands)
    add_distill(commands)
    add_sweep(commands)
    _add_evaluate(commands)
    add_compare(commands)
    _add_predict(commands)
    _add_inspect(commands)
    add_pretrain(commands)
    _add_fetch(commands)
    commands.add_parser("presets", help="list the presets and their hyper-parameters", allow_abbrev=False)
    return parser


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
    add_bad_rows(evaluate, "missing")
    add_setting(evaluate, TrainConfig, "precision")
    add_machine(evaluate)


def _add_predict(commands: "argparse._SubParsersAction[_Parser]") -> None:
    predict = commands.add_parser(
        "predict",
        help="label rows with a run",
        description="Write a TSV: id, prediction, then a probability per class, in the order of the rows; with --split"
        " task, id and prediction, for the files of all tasks.",
        epilog="Input is CSV, TSV or JSON lines with the task's columns, or plain text, one sentence a line"
        " (pairs: a tab between the two). A pipe works at either end. Neither input nor a split's files need labels.",
        allow_abbrev=False,
    )
    predict.add_argument("run", type=Path, metavar="RUN", help="folder that train wrote")
    predict.add_argument(
        "--task", metavar="NAME", help="the task to predict (may be left out if the run has one, and with --split)"
    )
    predict.add_argument("--input", metavar="FILE", help="rows to label, - for standard input (-)")
    predict.add_argument("--split", choices=list(FILES), help="label the rows of the tasks' own files instead")
    predict.add_argument(
        "--data", type=Path, metavar="DIR", help="with --split: folder of the files (where train found them)"
    )
    predict.add_argument("--output", default="-", metavar="FILE", help="where to write, - for standard output (-)")
    add_bad_rows(predict, "error")
    add_setting(predict, TrainConfig, "precision")
    add_machine(predict)


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
        help="full, the default: the course's own split; small: 14,214 / 3,000 / 3,000 pairs cut from its dev file",
    )
    data.add_argument("--quiet", action="store_true", help="no progress bars")
