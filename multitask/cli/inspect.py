"""The command ``inspect``: what a file of rows seems to be, as a TOML file whose comments say the rest."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from multitask.errors import DataError
from multitask.settings.format import Format
from multitask.settings.toml import assignments

if TYPE_CHECKING:
    from multitask.inspection.report import Lengths, Report

__all__ = ["inspect", "lines_of"]

SHOWN_LABELS, SHOWN_ROWS = 10, 5
BAR = 40


def inspect(args: argparse.Namespace) -> None:
    """Look at a file, and print the report and the task."""
    from multitask.inspection.report import inspect_file  # brings torch

    try:
        report = inspect_file(
            args.file,
            dev=args.dev,
            text=args.text,
            label=args.label,
            kind=args.kind,
            format=Format.from_dict("--format", dict(assignments(args.format, {}, option="--format"))),
            weights=args.weights,
        )
    except DataError as error:
        raise DataError(_as_option(str(error))) from error
    if args.json:
        print(json.dumps(asdict(report), indent=2, ensure_ascii=False))
        return
    for line in lines_of(report):
        # A name or label may hold what would end a comment, or what a terminal obeys.
        print("# " + "".join(sign if sign.isprintable() else "?" for sign in _as_option(line)))
    if report.toml:
        print(f"\n{report.toml}", end="")


def _as_option(text: str) -> str:
    """Return a message with the keys of a format as the command line has them."""
    return text.replace("--format.", "--format ")


def lines_of(report: "Report") -> Iterator[str]:
    """Yield the report's lines."""
    guess = report.guess
    yield f"{report.path}: {report.dialect}"
    uses = dict.fromkeys(guess.group, "group?") | dict.fromkeys(guess.other_texts, "text, too")
    uses |= dict.fromkeys(guess.other_labels, "label, too")
    uses |= dict.fromkeys([guess.id] if guess.id is not None else [], "id") | dict.fromkeys(guess.text, "text")
    uses |= dict.fromkeys([guess.label] if guess.label else [], "label")
    yield "columns    " + ", ".join(
        f"{name or '(no name)'}" + (f" [{uses[name]}]" if name in uses else "") for name in report.columns
    )
    bad = f", {len(report.bad)} that can't be used" if report.bad else ""
    yield f"rows       {report.rows}{bad}" + (f"; {report.dev_rows} dev rows" if report.dev_rows else "")
    if report.toml:
        yield f"labels     {_labels(report)}"
        yield f"repeated   {report.duplicates} copies of earlier rows; {_conflicts(report)}"
        if report.dev_rows:
            yield f"overlap    {report.overlap} dev rows have the texts of a training row"
        if report.lengths is not None:
            yield from _lengths(report.lengths)
    yield from (f"left out   {row}" for row in report.bad[:SHOWN_ROWS])
    if len(report.bad) > SHOWN_ROWS:
        yield f"left out   and {len(report.bad) - SHOWN_ROWS} more"
    yield from (f"note       {' '.join(note.split())}" for note in report.notes)


def _labels(report: "Report") -> str:
    if not report.has_classes:
        return ", ".join(f"{name} {value:g}" for name, value in report.labels.items())
    shown = [f"{name} {count:g}" for name, count in report.labels.items()]
    more = len(shown) - SHOWN_LABELS
    return f"{len(shown)}: " + ", ".join([*shown[:SHOWN_LABELS], *([f"{more} more"] if more > 0 else [])])


def _conflicts(report: "Report") -> str:
    lines = ", ".join(f"{one} and {other}" for one, other in report.conflicting_lines)
    return f"{report.conflicts} with equal texts but another label" + (f" (such as lines {lines})" if lines else "")


def _lengths(lengths: "Lengths") -> Iterator[str]:
    yield (
        f"tokens     median {lengths.median}, most {lengths.longest}; {lengths.cut} of {lengths.rows} rows have more"
        f" than the encoder's {lengths.most}" + (" and are cut" if lengths.cut else "")
    )
    least, highest = 1, max(lengths.histogram.values())
    for bound, count in lengths.histogram.items():
        yield f"  {least:>6} to {bound:<6} {count:>7} {'#' * round(BAR * count / highest)}".rstrip()
        least = bound + 1
