"""Whether one set of predictions is better than another on the same rows: the paired bootstrap.

Each resample draws rows once, and the same rows score both sides, so that what makes a row hard for both does not
widen the interval of their difference. Sources: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13
(the percentile interval); Berg-Kirkpatrick et al. 2012 (aclanthology.org/D12-1091), the paired bootstrap for NLP.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minbert.errors import InputError, listed
from multitask.metrics import METRICS, Values, scorer
from multitask.resampling import Floats, draw_rows
from multitask.settings.checks import shown

__all__ = [
    "RESAMPLES",
    "Difference",
    "Pair",
    "Resampled",
    "difference_of",
    "generator_of",
    "mean_of",
    "paired_difference",
    "paired_mean_difference",
    "resampled_scores",
]

RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """The second score less the first on the same rows, with its 95 % interval; NaN where a score is undefined.

    The models are fixed: the interval says what other rows would change. Scores averaged over several seeds
    are less subject to the luck of one, but how seeds differ is not in the interval either.
    """

    difference: float
    low: float
    high: float

    @property
    def tie(self) -> bool:
        """Whether the interval includes 0: these rows can't tell the two apart."""
        return self.low <= 0 <= self.high


class Pair(NamedTuple):
    """What two sides predict for the rows of one task; the fields are the parameters of paired_difference."""

    metric: str
    first: Values
    second: Values
    labels: Values
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class Resampled:
    """The scores of one side, and of its resamples; NaN where they are undefined.

    :param seeds: (seeds,).
    :param drawn: (seeds, resamples).
    """

    seeds: Floats
    drawn: Floats

    @property
    def score(self) -> float:
        """The mean over seeds."""
        return float(self.seeds.mean())

    @property
    def draws(self) -> Floats:
        """The mean over seeds of each resample, (resamples,)."""
        return np.asarray(self.drawn.mean(axis=0), dtype=np.float64)


def paired_difference(
    metric: str,
    first: Values,
    second: Values,
    labels: Values,
    *,
    classes: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Compare two sides' predictions for the same rows by the paired bootstrap.

    :param metric: as in compute_metric, and ``classes``; of an error, such as ``mae``, a negative difference is the
        better one.
    :param first: predictions, numbers or class indices, (rows,), or (seeds, rows) of several seeds, whose scores are
        averaged within each resample; for any number of classes a row, (rows, classes) or (seeds, rows, classes).
    :param second: the same, of any number of seeds.
    :param labels: (rows,) or (rows, classes).
    :param resamples: how many; those for which a side is undefined (all values equal) are left out.
    :param seed: of the resamples; the same seed gives the same interval.
    :raises InputError: for an unknown metric, fewer than one resample, or inputs of other shapes.
    """
    return difference_of(*resampled_scores(metric, [first, second], labels, classes, resamples, generator_of(seed)))


def paired_mean_difference(tasks: Sequence[Pair], *, resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """Compare two sides by the plain mean of several tasks' scores; each task's rows are drawn on their own.

    An undefined score, of a resample as well, counts as 0, as in a run's own mean.

    :raises InputError: without tasks, for a metric of which less is better, where a side's tasks have different numbers
        of seeds, and as in paired_difference.
    """
    lower = next((pair.metric for pair in tasks if not METRICS.greater_is_better(pair.metric)), None)
    if not tasks or lower is not None:
        raise InputError(f"tasks must be some, all scored by metrics of which more is better, got {lower or 'none'}")
    generators = generator_of(seed).spawn(len(tasks))
    sides = [
        resampled_scores(pair.metric, [pair.first, pair.second], pair.labels, pair.classes, resamples, generator)
        for pair, generator in zip(tasks, generators, strict=True)
    ]
    for name, seeds in zip(("first", "second"), zip(*sides, strict=True), strict=True):
        counts = list(dict.fromkeys(len(task.seeds) for task in seeds))
        if len(counts) > 1:
            raise InputError(f"{name} must have equally many seeds in all tasks, got {listed(counts, join=' and ')}")
    first, second = (mean_of(side) for side in zip(*sides, strict=True))
    return difference_of(first, second)


def generator_of(seed: int) -> np.random.Generator:
    """Return the generator of resamples; InputError for a seed that is not allowed."""
    if not _is_whole(seed) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, got {shown(seed)}")
    return np.random.default_rng(seed)


def resampled_scores(
    metric: str,
    sides: Sequence[Values],
    labels: Values,
    classes: Sequence[str],
    resamples: int,
    generator: np.random.Generator,
) -> list[Resampled]:
    """Score any number of sides on the same resamples; parameters as in paired_difference.

    :raises InputError: as there.
    """
    if not _is_whole(resamples) or resamples < 1:
        raise InputError(f"resamples must be a whole number of at least 1, got {shown(resamples)}")
    several = _array("labels", labels).ndim + 1
    found = [
        [scorer(metric, row, labels, classes) for row in (side if side.ndim == several else [side])]
        for side in (_array("predictions", side) for side in sides)
    ]
    if not all(found):
        raise InputError("predictions must be of at least one seed, got none")
    drawn = [np.full((len(seeds), resamples), np.nan) for seeds in found]
    # A score that is undefined on all rows (one prediction for all of them) is so on any of them, or by accident.
    defined = [
        (own, score)
        for side, seeds in zip(drawn, found, strict=True)
        for own, (_, score) in zip(side, seeds, strict=True)
        if score is not None
    ]
    start = 0
    for draws in draw_rows(generator, len(labels), resamples) if defined else ():
        end = start + len(draws.rows)
        for own, score in defined:
            own[start:end] = score(draws)
        start = end
    return [Resampled(np.array([value for value, _ in seeds]), own) for seeds, own in zip(found, drawn, strict=True)]


def difference_of(first: Resampled, second: Resampled) -> Difference:
    """Return the second score less the first, with the interval (2.5 % to 97.5 %) over their common resamples."""
    # Scores that differ by rounding alone are equal: else two of 1 would be no tie.
    equal = np.isclose(first.draws, second.draws, rtol=1e-12, atol=1e-12)
    difference, draws = second.score - first.score, np.where(equal, 0.0, second.draws - first.draws)
    draws = draws[np.isfinite(draws)]
    if not len(draws) or not math.isfinite(difference):
        return Difference(difference, math.nan, math.nan)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(difference, float(low), float(high))


def mean_of(tasks: Sequence[Resampled]) -> Resampled:
    """Return the plain mean of one side's scores over tasks, each with the same seeds; undefined ones count as 0."""
    return Resampled(
        np.mean([np.nan_to_num(task.seeds) for task in tasks], axis=0),
        np.mean([np.nan_to_num(task.drawn) for task in tasks], axis=0),
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _array(name: str, values: Values) -> npt.NDArray[Any]:
    try:
        np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # classes as they are spelled, or rows of several lengths
        raise InputError(f"{name} must be an array of numbers, classes by their indices, got {shown(values)}") from None
    return np.asarray(values)
