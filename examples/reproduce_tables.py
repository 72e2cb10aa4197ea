r"""Rebuild the published tables: train each row, keep its result as a file, and print ours beside the published scores.

    python examples/reproduce_tables.py --data data

Trains what examples/results/plan.toml lists and has no result yet, hours in all; a run that was stopped goes on where
it was. With --print it trains nothing. The published setting itself, on a GPU:

    python examples/reproduce_tables.py --weights bert-base-uncased --device cuda --results bert --runs runs/bert \
        --only slt slt-concat mtl-clb-sep mtl-clb-concat mtl-slb-concat mtl-slb-concat-attn

The data are the course's three: multitask fetch data --quora small writes them.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from reproduction import check_job, check_result, predictions_of, read_dev, run_job
from reproduction_plan import (
    COURSE,
    TASKS,
    Claim,
    Job,
    Planned,
    Result,
    held_out_mean,
    jobs_of,
    read_plan,
    read_result,
    sets_of,
)

from minbert import MinbertError
from minbert.errors import listed
from multitask.comparison import Resampled, difference_of, mean_of, resampled_scores

HERE = Path(__file__).parent / "results"
Sides = dict[str, dict[str, Resampled]]  # by task, or "mean", and row


def resample(rows: Mapping[str, Sequence[Result]], data: Path) -> Sides:
    """Score all rows on the same resamples of each dev file, a row's seeds together."""
    sides: Sides = {}
    for number, (task, (*_, metric)) in enumerate(COURSE.items()):
        _, labels = read_dev(task, data, [result for results in rows.values() for result in results])
        predictions = [np.stack([predictions_of(each, task) for each in results]) for results in rows.values()]
        found = resampled_scores(metric, predictions, labels, (), 2000, np.random.default_rng(number))
        sides[task] = dict(zip(rows, found, strict=True))
    sides["mean"] = {name: mean_of([sides[task][name] for task in TASKS]) for name in rows}
    return sides


def of_seeds(values: Resampled) -> str:
    """Return the mean over seeds, with their standard deviation if there are several."""
    spread = f" ± {values.seeds.std(ddof=1):.3f}" if len(values.seeds) > 1 else ""
    return f"{values.score:.3f}{spread}"


def print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for line in (head, ["---"] * len(head), *lines):
        print("| " + " | ".join(line) + " |")
    print()


def print_scores(plan: Sequence[Planned], sides: Sides) -> None:
    """Print each row's dev scores, with the 95 % interval of their mean, beside the published ones."""
    lines = []
    for row in plan:
        if row.name not in sides["mean"]:
            continue
        low, high = np.percentile(sides["mean"][row.name].draws, [2.5, 97.5])
        ours = [of_seeds(sides[task][row.name]) for task in (*TASKS, "mean")]
        theirs = "" if row.published is None else " ".join(f"{value:.3f}" for value in row.published)
        mean = "" if row.published is None else f"{np.mean(row.published):.3f}"
        seeds = str(len(sides["mean"][row.name].seeds))
        lines.append([row.name, row.about, theirs, mean, seeds, *ours, f"{low:.3f} to {high:.3f}"])
    head = ["row", "what it is", "published", "mean", "seeds", *TASKS, "mean", "95 % interval"]
    print_table(head, lines)


def print_claims(claims: Sequence[Claim], sides: Sides) -> None:
    """Print by how much one row of each claim is above the other, and what that says of the claim."""
    lines = []
    for claim in claims:
        found = sides[claim.task]
        if claim.better not in found or claim.than not in found:
            lines.append([claim.text, claim.better, claim.than, claim.task, "", "", "not run"])
            continue
        result = difference_of(found[claim.than], found[claim.better])
        apart = "confirmed" if result.low > 0 else "the contrary" if result.high < 0 else "undefined"
        verdict = "a tie" if result.tie else apart
        interval = f"{result.low:+.3f} to {result.high:+.3f}"
        lines.append([claim.text, claim.better, claim.than, claim.task, f"{result.difference:+.3f}", interval, verdict])
    print_table(["claim", "row", "against", "score", "difference", "95 % interval", "so"], lines)


def print_screens(plan: Sequence[Planned], results: Path) -> None:
    """Print the screens: scores on the held-out tenth, one seed."""
    names = [(f"{row.name}-lr{rate:g}", row.about) for row in plan for rate in row.rates]
    names += [(row.name, row.about) for row in plan if row.screen]
    lines = []
    for name, about in names:
        path = results / f"{name}-1.json"
        if path.exists():
            result = read_result(path)
            kept = result["epochs"][result["kept"] - 1]
            scores = [f"{kept[task]:.3f}" for task in TASKS]
            lines.append([name, about, *scores, f"{held_out_mean(result):.3f}", f"{result['minutes']:.0f}"])
    print_table(["screen", "what it is", *TASKS, "mean", "minutes"], lines)


def print_best_epochs(rows: Mapping[str, Sequence[Result]]) -> None:
    """Print in which epoch each task's held-out score was best, by seed, of rows with several epochs."""
    lines = []
    for name, seeds in rows.items():
        # A teacher of another seed was trained on the student's held-out rows.
        results = [
            each
            for each in seeds
            if all(run.endswith(f"-{each['seed']}") for run in each.get("distill", {}).get("teachers", ()))
        ]
        if not results or len(results[0]["epochs"]) == 1:
            continue
        best = {
            task: [1 + int(np.argmax([epoch[task] for epoch in result["epochs"]])) for result in results]
            for task in TASKS
        }
        epochs = str(len(results[0]["epochs"]))
        lines.append([name, epochs, *(", ".join(map(str, best[task])) for task in TASKS)])
    print_table(["row", "epochs", *TASKS], lines)


def check(plan: Sequence[Planned], chosen: Sequence[Planned], args: argparse.Namespace) -> None:
    """Hold results against the plan, and what is to be trained against the settings there are, before hours."""
    for row in plan:
        for job in jobs_of(row, plan, args.results, args.weights):
            if (place := args.results / job.file).exists():
                check_result(read_result(place), job, place, args.data)
        if row in chosen and not all((args.results / f"{row.name}-{seed}.json").exists() for seed in row.seeds):
            sets = sets_of(row, args.weights)  # its rate may not be known yet
            check_job(Job(row.name, row.preset, sets, 1, row.screen, row.predict, False, row.select, row.distill), args)


def print_tables(plan: Sequence[Planned], claims: Sequence[Claim], results: Path, data: Path) -> None:
    """Print all that there is a result of."""
    rows = {}
    for row in plan:
        paths = [results / f"{row.name}-{seed}.json" for seed in row.seeds]
        found = [read_result(path) for path in paths if path.exists()]
        if found and not row.screen:
            rows[row.name] = found
    if rows:
        sides = resample(rows, data)
        print_scores(plan, sides)
        print_claims(claims, sides)
        print_best_epochs(rows)
    print_screens(plan, results)


def main(argv: list[str] | None = None) -> int:
    """Train what has no result yet, and print the tables.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Rebuild the published tables.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the course's files (%(default)s)")
    parser.add_argument("--plan", type=Path, default=HERE / "plan.toml", help="the trainings (%(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "tables", help="folder of result files (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"), help="where runs are trained (%(default)s)")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="instead of the published ones (%(default)s)")
    parser.add_argument("--device", default="auto", help="where to compute (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="rows of the plan (all)")
    parser.add_argument("--print", action="store_true", help="train nothing")
    args = parser.parse_args(argv)
    plan, claims = read_plan(args.plan)
    names = [row.name for row in plan]
    unknown = [name for name in args.only or () if name not in names]
    if unknown:
        parser.error(f"--only must be rows of {args.plan}, {listed(names)}, got {listed(unknown)}")
    chosen = [row for row in plan if not args.print and (args.only is None or row.name in args.only)]
    check(plan, chosen, args)
    for row in chosen:
        for job in jobs_of(row, plan, args.results, args.weights):
            run_job(job, plan, args)
    print_tables(plan, claims, args.results, args.data)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (MinbertError, OSError) as error:
        sys.exit(f"error: {error}")
