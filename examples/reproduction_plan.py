"""What reproduce_tables.py trains: the plan's rows, and the trainings of each."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minbert.errors import listed
from multitask import DataError

# Of the course's tasks: the file's stem, the columns of texts and label, and the metric.
COURSE = {
    "sst": ("ids-sst", ("sentence",), "sentiment", "accuracy"),
    "para": ("quora", ("sentence1", "sentence2"), "is_duplicate", "accuracy"),
    "sts": ("sts", ("sentence1", "sentence2"), "similarity", "pearson"),
}
TASKS = tuple(COURSE)
PUBLISHED_WEIGHTS = "bert-base-uncased"
OURS = ("minilm", "mpnet")  # presets with weights of their own
Result = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A row of the plan; see plan.toml."""

    name: str
    about: str
    preset: str
    seeds: Sequence[int]
    set: Sequence[str] = ()
    epochs: int | None = None
    published: Sequence[float] | None = None
    screen: bool = False
    rates: Sequence[float] = ()
    rate_of: str | None = None
    predict: bool = False
    log_conflict: bool = False
    select: str = "auto"
    distill: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Claim:
    """Two rows of the plan that are to be compared, and what is claimed of them.

    :param better: the name of one, ``than`` that of the other.
    :param task: whose scores; "mean" for the mean of all three.
    """

    text: str
    better: str
    than: str
    task: str


@dataclass(frozen=True)
class Job:
    """One training.

    :param name: of its result, which is NAME-SEED.json.
    :param sets: settings that differ from the preset's, as --set takes them.
    """

    name: str
    preset: str
    sets: tuple[str, ...]
    seed: int
    screen: bool
    predict: bool = False
    log_conflict: bool = False
    select: str = "auto"
    distill: Mapping[str, Any] | None = None

    @property
    def file(self) -> str:
        """The name of its result file."""
        return f"{self.name}-{self.seed}.json"


def read_plan(path: Path) -> tuple[list[Planned], list[Claim]]:
    """Read a plan file: its runs and its claims; DataError for what can't be one."""
    try:
        plan = tomllib.loads(path.read_text("utf-8"))
        rows, claims = [Planned(**row) for row in plan["run"]], [Claim(**claim) for claim in plan.get("claim", [])]
        runs = [[f"{row.name}-{seed:d}" for seed in row.seeds] for row in rows]
        teachers = [row.distill["teachers"] if row.distill else [] for row in rows]
        lists = [given for row in rows for given in (row.set, row.rates) if not isinstance(given, list | tuple)]
        if lists:
            raise TypeError(f"set and rates must be lists, got {lists[0]!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} must be a plan, with [[run]] and [[claim]] ({error})") from None
    names = [row.name for row in rows]
    for place, row in enumerate(rows):
        if row.name in names[:place]:
            raise DataError(f"{path}: a row's name must be its own, got {row.name} twice")
        if row.screen and list(row.seeds) != [1]:
            raise DataError(f"{path}: a screen's seeds must be [1], got {list(row.seeds)} for {row.name}")
        if row.rates and row.rate_of is not None:
            raise DataError(f"{path}: a row must have rates or rate_of, got both for {row.name}")
    tuned = [row.name for row in rows if row.rates]
    named = [("rate_of", row.rate_of, tuned) for row in rows if row.rate_of is not None]
    named += [("a claim's row", name, names) for claim in claims for name in (claim.better, claim.than)]
    for place, of_row in enumerate(teachers):
        named += [("a teacher, of a row above,", name, sum(runs[:place], [])) for name in of_row]
    for what, name, known in named:
        if name not in known:
            raise DataError(f"{path}: {what} must be one of {listed(known)}, got {name}")
    for claim in claims:
        if claim.task not in (*TASKS, "mean"):
            raise DataError(f"{path}: a claim's task must be one of {listed((*TASKS, 'mean'))}, got {claim.task}")
    return rows, claims


def rate_sets(rate: float) -> tuple[str, ...]:
    """Set one learning rate for all tasks."""
    return tuple(f"tasks.{name}.lr={rate:g}" for name in TASKS)


def jobs_of(row: Planned, plan: Sequence[Planned], results: Path, weights: str) -> Iterator[Job]:
    """Give a row's trainings, among them the screens that choose its rate; those after them only with their results.

    :param weights: take the place of the published ones.
    """
    sets = sets_of(row, weights)
    tuned = next((other for other in plan if other.name == row.rate_of), row)
    screens = [
        Job(f"{tuned.name}-lr{rate:g}", tuned.preset, sets_of(tuned, weights) + rate_sets(rate), 1, True)
        for rate in tuned.rates
    ]
    yield from screens
    if screens:
        found = [results / screen.file for screen in screens]
        if not all(path.exists() for path in found):
            return
        means = [held_out_mean(read_result(path)) for path in found]
        sets += rate_sets(tuned.rates[means.index(max(means))])
    for seed in row.seeds:
        predict = row.predict and seed == row.seeds[0]
        log_conflict = row.log_conflict and seed == row.seeds[-1]
        yield Job(row.name, row.preset, sets, seed, row.screen, predict, log_conflict, row.select, row.distill)


def sets_of(row: Planned, weights: str) -> tuple[str, ...]:
    """Return what a row changes of its preset, on these weights."""
    if row.preset in OURS or weights == PUBLISHED_WEIGHTS:
        return tuple(row.set)
    # With the published weights, also from a folder of theirs, the preset's epochs count.
    cut = row.epochs is not None and Path(weights).name != PUBLISHED_WEIGHTS
    return (f"encoder.weights={weights}", *row.set, *([f"train.epochs={row.epochs}"] if cut else []))


def read_result(path: Path) -> Result:
    """Read a result file."""
    try:
        result: Result = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path} must be a result file ({error})") from None
    return result


def held_out_mean(result: Result) -> float:
    """Return the mean score of the epoch that was kept, on the held-out rows."""
    return float(result["epochs"][result["kept"] - 1]["mean"])
