"""The command ``compare``, and how a comparison is shown: a line for each task and side, or JSON."""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitask.cli.options import add_bad_rows, add_machine, add_setting
from multitask.cli.running import note_unfinished, prints_aside, use_threads
from multitask.cli.scores import counted
from multitask.settings.checks import listed
from multitask.settings.tables import TrainConfig
from multitask.settings.task import FILES

if TYPE_CHECKING:
    from multitask.studies.compare_runs import Compared, Comparison

__all__ = ["add_compare", "compare", "print_comparison"]


def add_compare(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "compare",
        help="compare runs on the same rows",
        description="Score runs on the same rows, and show how each differs from the first, with the 95 % interval of"
        " the paired bootstrap. Where it includes 0 the two tie.",
        epilog="Tasks that not all runs have are left out. The interval is over rows: it says nothing of other seeds.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders that train wrote, two or more")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the data files (where train found them)")
    parser.add_argument("--split", default="dev", choices=list(FILES), help="which rows (dev)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    add_bad_rows(parser, "missing")
    add_setting(parser, TrainConfig, "precision")
    add_machine(parser)


def compare(args: argparse.Namespace) -> None:
    """Compare runs, and print the comparison."""
    from multitask.studies.compare_runs import compare as compare_runs  # brings torch

    use_threads(args.threads)
    with prints_aside():
        found = compare_runs(
            args.runs,
            split=args.split,
            data=args.data,
            bad_rows=args.bad_rows,
            device=args.device,
            precision=args.precision,
        )
    for run in dict.fromkeys(args.runs):
        note_unfinished(args, run)
    print_comparison(found, what="run", as_json=args.json)


def print_comparison(found: "Comparison", *, what: str, as_json: bool) -> None:
    """Print a comparison; what was left out of it is said on standard error.

    :param what: what its sides are called.
    """
    from multitask.distributed import is_main

    if not is_main():
        return
    for task, having in found.partial.items():
        whose = (
            f"only {listed(having)} {'has' if len(having) == 1 else 'have'} it" if having else f"no {what} has it whole"
        )
        print(f"{task}: left out, as {whose}", file=sys.stderr)
    for task, compared in found.tasks.items():
        if compared.left_out:
            print(f"{task}: left out {counted(compared.left_out)}", file=sys.stderr)
    if as_json:
        print(json.dumps(_as_json(found, what), indent=2))
    else:
        print("\n".join(_lines(found, what)))


def _lines(found: "Comparison", what: str) -> Iterator[str]:
    tasks = {**found.tasks, **({} if found.mean is None else {"mean": found.mean})}
    spread = any(len(seeds) > 1 for compared in tasks.values() for seeds in compared.scores)
    wide = [max(map(len, column)) + 2 for column in (["task", *tasks], ["metric", *_metrics(found)])]
    side = max(len(what), *map(len, found.names)) + 2
    scores = f"{'score':>7}" + (f"{'sd':>7}{'seeds':>7}" if spread else "")
    yield f"{'task':<{wide[0]}}{'metric':<{wide[1]}}{'rows':>6}  {what:<{side}}{scores}  difference  95 % interval"
    for name, compared in tasks.items():
        first = f"{name:<{wide[0]}}{compared.metric or '':<{wide[1]}}{compared.rows:>6}  "
        for place, seeds in enumerate(compared.scores):
            line = f"{first}{found.names[place]:<{side}}{statistics.fmean(seeds):>7.3f}"
            if spread:
                line += f"{_deviation(seeds):>7.3f}{len(seeds):>7}"
            if place:
                other = compared.differences[place - 1]
                line += f"  {other.difference:>+10.3f}  {other.low:+.3f} .. {other.high:+.3f}"
                line += "  tie" if other.tie else ""
            yield line


def _metrics(found: "Comparison") -> list[str]:
    return [str(compared.metric) for compared in found.tasks.values()]


def _deviation(seeds: tuple[float, ...]) -> float:
    """Return the standard deviation of a sample; NaN of a single seed, or where a score is undefined."""
    return statistics.stdev(seeds) if len(seeds) > 1 and all(map(math.isfinite, seeds)) else math.nan


def _as_json(found: "Comparison", what: str) -> dict[str, Any]:
    def of(compared: "Compared") -> dict[str, Any]:
        sides = []
        for place, (name, seeds) in enumerate(zip(found.names, compared.scores, strict=True)):
            side: dict[str, Any] = {
                what: name,
                "score": _number(statistics.fmean(seeds)),
                "sd": _number(_deviation(seeds)),
            }
            side["seeds"] = list(map(_number, seeds))
            if place:
                other = compared.differences[place - 1]
                side |= {key: _number(getattr(other, key)) for key in ("difference", "low", "high")}
                side["tie"] = other.tie
            sides.append(side)
        return {"metric": compared.metric, "rows": compared.rows, "left_out": compared.left_out, f"{what}s": sides}

    return {
        "split": found.split,
        "tasks": {name: of(compared) for name, compared in found.tasks.items()},
        "mean": None if found.mean is None else of(found.mean),
        "not_in_all": {name: list(having) for name, having in found.partial.items()},
    }


def _number(value: float) -> float | None:
    """Return a number as JSON has it: None for what is not finite."""
    return value if math.isfinite(value) else None
