"""The command ``pretrain``: its options, and what it prints."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.cli.options import add_machine, add_setting, at_least
from multitask.cli.running import use_threads
from multitask.errors import DataError
from multitask.pretraining.settings import PretrainConfig
from multitask.settings.format import Format
from multitask.settings.toml import assignments

if TYPE_CHECKING:
    from typing import Any

__all__ = ["add_pretrain", "pretrain"]

OPTIONS = ("weights", "epochs", "batch_size", "max_length", "lr", "minutes", "seed", "precision")


def add_pretrain(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's parser."""
    command = commands.add_parser(
        "pretrain",
        help="train an encoder further on text without labels",
        description="Train an encoder to fill in masked tokens of your own text, and write a folder for train"
        " --weights. A tenth of the texts is held out; its loss is printed before training and after each epoch.",
        epilog="A file is a table if it is parquet or Excel, if its name ends in csv, tsv, json, jsonl or ndjson (also"
        " .gz), or if its first row names a --text column; any other is plain text, one text a line.",
        allow_abbrev=False,
    )
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="plain text, or tables")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder to write")
    command.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="COLUMN",
        help="a column of the text; may be repeated: each table's cells of those that it has are a text by themselves",
    )
    command.add_argument(
        "--format",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="how the files are written, such as separator=; or encoding=cp1252 (found by looking); may be repeated",
    )
    for name in OPTIONS:
        add_setting(command, PretrainConfig, name)
    command.add_argument("--whole-words", action="store_true", help="mask all pieces of a word together (WordPiece)")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    command.add_argument(
        "--save-every", type=at_least(1), default=100, metavar="N", help="steps between checkpoints (100)"
    )
    add_machine(command, plugins=False)


def pretrain(args: argparse.Namespace) -> None:
    """Pretrain, and print the losses."""
    given = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    settings = PretrainConfig(**given, whole_words=args.whole_words)
    format = Format.from_dict("--format", dict(assignments(args.format, {}, option="--format")))
    # Brings torch, so not before the settings are known to be right.
    from multitask.pretraining.pretrain import pretrain as run

    use_threads(args.threads)
    try:
        done = run(
            args.files,
            args.out,
            text=args.text,
            settings=settings,
            format=format,
            device=args.device,
            resume=args.resume,
            save_every=args.save_every,
            progress=not args.quiet,
        )
    except DataError as error:
        raise DataError(
            str(error).replace("tasks.text.format.", "--format ").replace("--format.", "--format ")
        ) from None
    print("epoch\tloss\tperplexity\taccuracy")
    for epoch, score in enumerate(done.scores):
        print(f"{epoch}\t{score.loss:.3f}\t{score.perplexity:.1f}\t{score.accuracy:.3f}")
    print(f"The weights are in {done.folder}. Next: multitask train --weights {shlex.quote(str(done.folder))}")
