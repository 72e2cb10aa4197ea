"""Runs compared on the same rows: each one's scores, and the differences to the first by the paired bootstrap."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minbert.errors import listed
from multitask.comparison import (
    RESAMPLES,
    Difference,
    Resampled,
    difference_of,
    generator_of,
    mean_of,
    resampled_scores,
)
from multitask.data.batches import EncodedTexts, label_tensor
from multitask.data.examples import Dataset, OnBad
from multitask.errors import ConfigError, RunError
from multitask.evaluation import outputs_of
from multitask.metrics import METRICS
from multitask.model.losses import predicted_values
from multitask.run import Run, read_config, read_rows
from multitask.settings.checks import shown
from multitask.settings.config import RunConfig

__all__ = ["Compared", "Comparison", "Member", "compare", "compare_sides", "read_member", "refuse_other_rows"]

AnyRun = str | Path | Run
# By task its sets of rows, each with the numbers of the seeds that are scored on it, by side.
Parts = dict[str, list[list[list[int]]]]


@dataclass(frozen=True)
class Compared:
    """The scores of one task, or the plain mean of several.

    :param metric: None of a mean.
    :param rows: that were scored; of seeds with rows of their own, all of them.
    :param scores: by side and seed; NaN where undefined, which counts as 0 in a mean.
    :param differences: of each side but the first, to the first.
    :param left_out: rows of the files that could not be used.
    """

    metric: str | None
    rows: int
    scores: tuple[tuple[float, ...], ...]
    differences: tuple[Difference, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Comparison:
    """Sides that were scored on the same rows.

    :param names: of the sides.
    :param mean: None of a single task, and where a task is scored by an error.
    :param partial: by name of a task that not all sides have, and so is left out, those that have it.
    """

    names: tuple[str, ...]
    split: str
    tasks: Mapping[str, Compared]
    mean: Compared | None
    partial: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Member:
    """One run of a side, or what is to become one, with its rows.

    :param run: None before it is trained.
    """

    name: str
    config: RunConfig
    rows: Mapping[str, Dataset]
    run: AnyRun | None = None


def compare(
    runs: Sequence[AnyRun | Sequence[AnyRun]],
    *,
    split: str = "dev",
    data: str | Path | Mapping[str, Any] | None = None,
    bad_rows: OnBad = "missing",
    device: str = "auto",
    precision: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Score runs on the same rows, and compare each with the first by the paired bootstrap.

    :param runs: folders or runs; or lists of them, which are the seeds of one setting, whose scores are averaged. Where
        the seeds held out rows of their own, the first seeds of all settings are compared, the second ones, and so on.
    :param split: train, dev or test.
    :param data: a folder or rows, as in Run.evaluate, for all runs.
    :param bad_rows: as in ``train``.
    :param device: of runs that are loaded from folders, and ``precision``, as in Run.load.
    :param resamples: of the rows, and ``seed`` theirs.
    :return: by task, and of their plain mean, each side's score and its difference to the first side's.
    :raises ConfigError: for fewer than two runs, and whatever is no list of them.
    :raises DataError: for files and rows that can't be used.
    :raises RunError: where runs have no task in common, or differ in a task's metric, labels or rows; it says in what.
    """
    sides: list[Any] = [[side] if isinstance(side, AnyRun) else side for side in runs] if _is_list(runs) else [runs]
    if not all(_is_list(side) and all(isinstance(run, AnyRun) for run in side) for side in sides):
        raise ConfigError(f"runs must be a list of folders or runs, or of lists of them, got {shown(runs)}")
    if len(sides) < 2 or not all(sides):
        raise ConfigError(f"runs must be at least two, got {len(sides) if all(sides) else 'an empty list'}")
    read = [[read_member(run, split, data=data, bad_rows=bad_rows) for run in side] for side in sides]
    names = [side[0].name + (f" and {len(side) - 1} more" if len(side) > 1 else "") for side in read]
    return compare_sides(names, read, split, device=device, precision=precision, resamples=resamples, seed=seed)


def compare_sides(
    names: Sequence[str],
    sides: Sequence[Sequence[Member]],
    split: str,
    *,
    device: str = "auto",
    precision: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Do what compare does for sides, of which there may be one, whose rows have been read."""
    parts, generator = refuse_other_rows(sides, split), generator_of(seed)
    predicted: dict[tuple[int, int, str], np.ndarray] = {}  # by side, seed and task
    for place, number, member in _all(sides):  # one model at a time
        assert member.run is not None
        run = member.run if isinstance(member.run, Run) else Run.load(member.run, device=device, precision=precision)
        predicted |= {(place, number, name): _predictions(run, name, member.rows[name]) for name in parts}
    tasks: dict[str, Compared] = {}
    scores: dict[str, list[Resampled]] = {}
    for name, of_task in zip(parts, generator.spawn(len(parts)), strict=True):
        task, drawn, datasets = sides[0][0].config.task(name), [], []
        for part, own in zip(parts[name], of_task.spawn(len(parts[name])), strict=True):
            datasets.append(rows := sides[0][part[0][0]].rows[name])
            seeds = [np.stack([predicted[place, number, name] for number in of]) for place, of in enumerate(part)]
            labels = label_tensor(task, rows.labels).numpy()
            classes = task.classes if task.rules.has_classes else ()
            drawn.append(resampled_scores(task.scored_by, seeds, labels, classes, resamples, own))
        scores[name] = [_joined(side) for side in zip(*drawn, strict=True)]
        left_out = sum(len(dataset.skipped) for dataset in datasets)
        tasks[name] = _compared(task.scored_by, sum(map(len, datasets)), scores[name], left_out)
    mean = None
    if len(tasks) > 1 and all(METRICS.greater_is_better(str(task.metric)) for task in tasks.values()):
        means = [mean_of(side) for side in zip(*scores.values(), strict=True)]
        mean = _compared(None, sum(task.rows for task in tasks.values()), means)
    partial = {
        name: tuple(side for side, members in zip(names, sides, strict=True) if all(name in m.rows for m in members))
        for _, _, member in _all(sides)
        for name in member.rows
        if name not in parts
    }
    return Comparison(tuple(names), split, tasks, mean, partial)


def refuse_other_rows(sides: Sequence[Sequence[Member]], split: str, advice: str | None = None) -> Parts:
    """Check that sides can be compared: in each task that all have they have the same metric, labels and rows.

    :param advice: ends the message where rows differ.
    :return: one set of rows for all seeds, or one for the first seed of each side, one for the second and so on.
    :raises RunError: naming what differs.
    """
    members, first = [member for _, _, member in _all(sides)], sides[0][0]
    common = [name for name in first.rows if all(name in member.rows for member in members)]
    if not common:
        have = [f"{member.name} has {listed(list(member.rows))}" for member in members]
        raise RunError(f"runs must have a task in common, got none: {listed(have, join='; ')}")
    together: list[list[list[int]]] = [[list(range(len(side))) for side in sides]]
    apart = [[[number]] * len(sides) for number in range(len(sides[0]))]
    by_seed = len(sides[0]) > 1 and len({len(side) for side in sides}) == 1
    result: Parts = {}
    for name in common:
        for other in members:
            _refuse_other_task(name, first, other)
        if all(_same(name, first, other) for other in members):
            result[name] = together
            continue
        for one, *others in zip(*sides, strict=True) if by_seed else [members]:
            for other in others:
                if not _same(name, one, other):
                    raise RunError(_other_rows(name, one, other, split, advice))
        result[name] = apart
    return result


def read_member(
    run: AnyRun, split: str, *, data: str | Path | Mapping[str, Any] | None = None, bad_rows: OnBad = "missing"
) -> Member:
    """Read a run's settings and rows, not yet its model; parameters as in compare."""
    if isinstance(run, Run):
        folder, config, given = run.folder, run.config, run.given
    else:
        folder, given = Path(run), None
        config = read_config(folder)
    return Member(str(folder), config, read_rows(folder, config, split, data=data, bad_rows=bad_rows, given=given), run)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _all(sides: Sequence[Sequence[Member]]) -> Iterator[tuple[int, int, Member]]:
    """Yield each member with the numbers of its side and of its seed."""
    for place, side in enumerate(sides):
        for number, member in enumerate(side):
            yield place, number, member


def _predictions(run: Run, name: str, rows: Dataset) -> np.ndarray:
    """Return predicted classes or numbers (rows,), or sets of classes (rows, classes)."""
    task = run.model.tasks[name]
    texts = EncodedTexts(task, [row.texts for row in rows.examples], run.tokenizer, run.model.max_length)
    outputs = outputs_of(run.model, name, texts, device=run.device, dtype=run.dtype)
    return predicted_values(task, outputs)[0].numpy()


def _joined(parts: Sequence[Resampled]) -> Resampled:
    """Return one side's scores of all its seeds, which were scored on one set of rows or on as many of their own."""
    return Resampled(np.concatenate([part.seeds for part in parts]), np.concatenate([part.drawn for part in parts]))


def _compared(metric: str | None, rows: int, sides: Sequence[Resampled], left_out: int = 0) -> Compared:
    differences = tuple(difference_of(sides[0], side) for side in sides[1:])
    return Compared(metric, rows, tuple(tuple(side.seeds.tolist()) for side in sides), differences, left_out)


def _same(name: str, one: Member, other: Member) -> bool:
    return one is other or _content(one.rows[name]) == _content(other.rows[name])


def _content(rows: Dataset) -> list[Any]:
    """Return what must be the same of rows: a line or an id may differ."""
    return [(row.texts, row.label) for row in rows.examples]


def _refuse_other_task(name: str, one: Member, other: Member) -> None:
    tasks = one.config.task(name), other.config.task(name)
    pairs: dict[str, list[Any]] = {"metric": [task.scored_by for task in tasks]}
    pairs["labels"] = [task.classes if task.rules.has_classes else () for task in tasks]
    for key, (first, second) in pairs.items():
        if first != second:
            raise RunError(
                f"tasks.{name}.{key} must be the same in all runs, got {shown(first)} in {one.name} and"
                f" {shown(second)} in {other.name}"
            )


def _other_rows(name: str, one: Member, other: Member, split: str, advice: str | None) -> str:
    """Say that two members have other rows of a task, and what to do."""
    first, second = (_content(member.rows[name]) for member in (one, other))
    line = next((number for number, (a, b) in enumerate(zip(first, second, strict=False), 1) if a != b), 0)
    how = f"{len(first):,} and {len(second):,} rows" if len(first) != len(second) else f"others from row {line} on"
    said = f"task {name}: the {split} rows of {one.name} and {other.name} must be the same, got {how}"
    holding = [member for member in (one, other) if split != "test" and member.config.task(name).dev is None]
    if not holding:
        return said + ("; --data DIR has all runs read the files of one folder" if advice is None else advice)
    seeds = listed([member.config.train.seed for member in holding], join=" and ")
    whose = "each holds" if len(holding) > 1 else f"{holding[0].name} holds"
    usual = "; --split test compares runs on rows that none was trained on (--data DIR: on the files of another folder)"
    return (
        f"{said}, as {whose} out its own of the training rows (train.seed {seeds}){usual if advice is None else advice}"
    )
