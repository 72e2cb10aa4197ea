"""Scores of predictions, their 95 % bootstrap intervals, and what guessing would score.

Correlations and their resamples come from scipy.stats, which is imported on first use.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from minbert.errors import InputError
from multitask.settings.task import Task

__all__ = [
    "METRICS",
    "Score",
    "accuracy",
    "baseline_score",
    "bootstrap_score",
    "macro_f1",
    "pearson",
    "spearman",
]

Values = Sequence[float] | npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
# Values of resamples that scipy holds at once: few enough for the processor's cache, and for memory.
BATCH_VALUES = 200_000
# Stands for an undefined correlation among resamples: scipy's bootstrap warns of NaN. No correlation is above 1.
UNDEFINED = 2.0


@dataclass(frozen=True)
class Score:
    """A score with the bounds of its 95 % interval; NaN where it is undefined.

    :param n: rows that were scored.
    :param macro_f1: reported beside the accuracy of a classification; else None.
    :param left_out: rows of the file that could not be used.
    :param cut: rows longer than the encoder takes.
    """

    value: float
    low: float
    high: float
    n: int
    metric: str
    macro_f1: float | None = None
    left_out: int = 0
    cut: int = 0


def accuracy(predictions: Values, labels: Values) -> float:
    """Return the share of rows whose prediction is the label; NaN without rows."""
    predicted, wanted = _pair(predictions, labels)
    return float(np.mean(predicted == wanted)) if len(predicted) else float("nan")


def macro_f1(predictions: Values, labels: Values) -> float:
    """Return the mean F1 over the classes that occur among predictions or labels; NaN without rows."""
    predicted, wanted = _pair(predictions, labels)
    return float(_macro_f1(_confusion(predicted, wanted)[None])[0]) if len(predicted) else float("nan")


def pearson(predictions: Values, labels: Values) -> float:
    """Return the linear correlation; NaN below two rows, for a constant side and for values that are not finite."""
    return _correlation("pearson", *_pair(predictions, labels))


def spearman(predictions: Values, labels: Values) -> float:
    """Return Pearson's correlation of the ranks, where ties share their mean rank; NaN where pearson's is.

    No task is scored by it; use it to compare with published STS figures.
    """
    return _correlation("spearman", *_pair(predictions, labels))


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "pearson": pearson,
    "spearman": spearman,
}


def bootstrap_score(metric: str, predictions: Values, labels: Values, *, seed: int = 0, resamples: int = 1000) -> Score:
    """Score predictions, with the percentile interval (2.5 % to 97.5 %) over resamples of the rows.

    The model is fixed: the interval says how much other rows would change the score, nothing about other seeds.

    :param metric: one of METRICS.
    :param seed: of the resamples; the same seed gives the same interval.
    :param resamples: how many; those for which the metric is undefined (all values equal) are left out.
    :raises InputError: for an unknown metric, fewer than one resample, or inputs that differ in length.
    """
    if metric not in METRICS:
        raise InputError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    predicted, wanted = _pair(predictions, labels)
    value = METRICS[metric](predicted, wanted)
    if not len(predicted) or not np.isfinite(value):
        return Score(value, float("nan"), float("nan"), len(predicted), metric)
    values = RESAMPLERS[metric](predicted, wanted, np.random.default_rng(seed), resamples)
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return Score(value, float(low), float(high), len(predicted), metric)


def baseline_score(task: Task, train_labels: Values, dev_labels: Values) -> Score:
    """Score a constant on the dev rows: the training rows' most frequent class (the first of several) or mean.

    A constant's Pearson correlation is undefined; it counts as 0 here, so that scores can be compared with it.

    :raises InputError: for a classification without training labels.
    """
    dev = np.asarray(dev_labels, dtype=np.float64)
    if task.metric == "pearson":
        return Score(0.0, 0.0, 0.0, len(dev), "pearson")
    if not len(np.asarray(train_labels)):
        raise InputError("train_labels must hold at least one label, got none")
    classes, counts = np.unique(np.asarray(train_labels), return_counts=True)
    return bootstrap_score("accuracy", np.full(len(dev), float(classes[counts.argmax()])), dev)


def _pair(predictions: Values, labels: Values) -> tuple[Floats, Floats]:
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != wanted.shape:
        raise InputError(
            f"predictions and labels must be of one length, got shapes {predicted.shape} and {wanted.shape}"
        )
    return predicted, wanted


def _confusion(predicted: Floats, wanted: Floats) -> Floats:
    """Count the rows of each label and prediction: (labels, predictions) over the classes that occur."""
    classes = np.unique(np.concatenate([predicted, wanted]))
    cells = np.searchsorted(classes, wanted) * len(classes) + np.searchsorted(classes, predicted)
    counts = np.bincount(cells, minlength=len(classes) ** 2)
    return counts.reshape(len(classes), len(classes)).astype(np.float64)


def _macro_f1(confusion: Floats) -> Floats:
    """Average F1 over classes: (resamples,) from (resamples, labels, predictions)."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    total = confusion.sum(1) + confusion.sum(2)  # Twice the hits, misses and false alarms of each class.
    there = total > 0
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=there)
    return np.asarray(f1.sum(1) / there.sum(1), dtype=np.float64)


def _correlation(metric: str, predicted: Floats, wanted: Floats) -> float:
    if len(predicted) < 2 or not (np.isfinite(predicted).all() and np.isfinite(wanted).all()):
        return float("nan")
    prepare, correlate = CORRELATIONS[metric]
    value = float(correlate(prepare(predicted)[None], prepare(wanted)[None])[0])
    return float("nan") if value == UNDEFINED else value


def _scaled(values: Floats) -> Floats:
    """Multiply by a power of two, which is exact, so that sums neither overflow nor lose tiny values."""
    _, exponent = np.frexp(np.abs(values).max())
    scaled: Floats = np.ldexp(values, 900 - exponent)
    return scaled


def _pearson(predicted: Floats, wanted: Floats, axis: int = -1) -> Floats:
    """Correlate each resample: (resamples,) from two (resamples, rows); UNDEFINED where a side is constant."""
    from scipy.stats import pearsonr

    result = np.full(len(predicted), UNDEFINED)
    varied = (np.ptp(predicted, axis) > 0) & (np.ptp(wanted, axis) > 0)
    # Centred here, since pearsonr warns of values that differ little for their mean.
    x, y = (values[varied] - values[varied].mean(axis, keepdims=True) for values in (predicted, wanted))
    result[varied] = pearsonr(x, y, axis=axis).statistic
    return result


def _dense_ranks(values: Floats) -> npt.NDArray[np.unsignedinteger]:
    """Replace values by their dense ranks, in as few bytes as hold them: numpy sorts 16 bits several times faster."""
    from scipy.stats import rankdata

    ranks = rankdata(values, method="dense")
    return np.asarray(ranks, dtype=np.min_scalar_type(ranks.max()))


def _spearman(predicted: Floats, wanted: Floats, axis: int = -1) -> Floats:
    """Correlate the ranks within each resample; shapes as in _pearson."""
    from scipy.stats import rankdata

    return _pearson(rankdata(predicted, axis=axis), rankdata(wanted, axis=axis), axis)


# What is done to all values once, and the correlation of their resamples.
CORRELATIONS: dict[str, tuple[Callable[[Floats], Any], Callable[..., Floats]]] = {
    "pearson": (_scaled, _pearson),
    "spearman": (_dense_ranks, _spearman),
}


def _resample_accuracy(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    # Drawing n rows and counting the right ones is a binomial draw.
    return generator.binomial(len(predicted), accuracy(predicted, wanted), resamples) / len(predicted)


def _resample_f1(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    # Drawing n rows and counting them in the confusion matrix is a multinomial draw.
    confusion = _confusion(predicted, wanted)
    shares = confusion.ravel() / confusion.sum()
    counts = generator.multinomial(len(predicted), shares, resamples)
    return _macro_f1(counts.reshape(resamples, *confusion.shape).astype(np.float64))


def _resample_correlation(
    metric: str, predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int
) -> Floats:
    from scipy.stats import bootstrap

    prepare, correlate = CORRELATIONS[metric]
    values = bootstrap(
        (prepare(predicted), prepare(wanted)),
        correlate,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=max(2, resamples),  # of a single one scipy can't give its standard error, and warns
        batch=max(1, BATCH_VALUES // len(predicted)),
        rng=generator,
    ).bootstrap_distribution[:resamples]
    return np.asarray(values[values != UNDEFINED], dtype=np.float64)


RESAMPLERS: dict[str, Callable[[Floats, Floats, np.random.Generator, int], Floats]] = {
    "accuracy": _resample_accuracy,
    "macro_f1": _resample_f1,
    "pearson": partial(_resample_correlation, "pearson"),
    "spearman": partial(_resample_correlation, "spearman"),
}
