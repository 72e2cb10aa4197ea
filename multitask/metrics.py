"""Scores of predictions, their 95 % bootstrap intervals, and what guessing would score. All in numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
# Rows of resamples that are held at once: bounds the memory at some 30 MB for any number of predictions.
CHUNK = 1_000_000


@dataclass(frozen=True)
class Score:
    """A score over n rows with the bounds of its 95 % interval; nan where it is not defined.

    macro_f1 stands beside the accuracy of a classification; None elsewhere. left_out: rows of the file that could not
    be used; cut: rows longer than the encoder takes.
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
    """Share of rows whose prediction is the label; nan without rows."""
    predicted, wanted = _pair(predictions, labels)
    return float(np.mean(predicted == wanted)) if len(predicted) else float("nan")


def macro_f1(predictions: Values, labels: Values) -> float:
    """Mean F1 over the classes that occur among predictions or labels; nan without rows."""
    predicted, wanted = _pair(predictions, labels)
    return float(_macro_f1(_confusion(predicted, wanted)[None])[0]) if len(predicted) else float("nan")


def pearson(predictions: Values, labels: Values) -> float:
    """Linear correlation; nan below two rows, where a side is constant or anything is not finite."""
    predicted, wanted = _pair(predictions, labels)
    return float(_pearson(predicted[None], wanted[None])[0])


def spearman(predictions: Values, labels: Values) -> float:
    """Pearson's correlation of the ranks, ties having their mean rank; nan where pearson's is.

    No task is scored by it: it is for comparison with figures of STS that others give.
    """
    predicted, wanted = _pair(predictions, labels)
    if not (np.isfinite(predicted).all() and np.isfinite(wanted).all()):
        return float("nan")
    return float(_pearson(_ranks(predicted)[None], _ranks(wanted)[None])[0])


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "pearson": pearson,
    "spearman": spearman,
}


def bootstrap_score(metric: str, predictions: Values, labels: Values, *, seed: int = 0, resamples: int = 1000) -> Score:
    """The metric with the percentile interval (2.5 % to 97.5 %) over resamples of the rows.

    Of a fixed model: it says how much other rows would change the score, nothing about other seeds.
    Resamples on which the metric is not defined (one value only) are left out.
    """
    if metric not in METRICS:
        raise InputError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    predicted, wanted = _pair(predictions, labels)
    value = METRICS[metric](predicted, wanted)
    generator = np.random.default_rng(seed)
    if not len(predicted) or not np.isfinite(value):
        return Score(value, float("nan"), float("nan"), len(predicted), metric)
    values = RESAMPLERS[metric](predicted, wanted, generator, resamples)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return Score(value, float(low), float(high), len(predicted), metric)


def baseline_score(task: Task, train_labels: Values, dev_labels: Values) -> Score:
    """What a constant scores on dev: the training rows' most frequent class (the first of several) or mean.

    A constant has no Pearson correlation; it counts as 0 here, so that a table can stand beside it.
    """
    dev = np.asarray(dev_labels, dtype=np.float64)
    if task.metric == "pearson":
        return Score(0.0, 0.0, 0.0, len(dev), "pearson")
    if not len(np.asarray(train_labels)):
        raise InputError("train_labels must hold at least one label for a baseline")
    classes, counts = np.unique(np.asarray(train_labels), return_counts=True)
    return bootstrap_score("accuracy", np.full(len(dev), float(classes[counts.argmax()])), dev)


def _pair(predictions: Values, labels: Values) -> tuple[Floats, Floats]:
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predicted.ndim != 1 or predicted.shape != wanted.shape:
        raise InputError(
            f"predictions and labels must be of one length, not of shapes {predicted.shape}, {wanted.shape}"
        )
    return predicted, wanted


def _confusion(predicted: Floats, wanted: Floats) -> Floats:
    """Counts (labels, predictions) over the classes that occur."""
    classes = np.unique(np.concatenate([predicted, wanted]))
    cells = np.searchsorted(classes, wanted) * len(classes) + np.searchsorted(classes, predicted)
    counts = np.bincount(cells, minlength=len(classes) ** 2)
    return counts.reshape(len(classes), len(classes)).astype(np.float64)


def _macro_f1(confusion: Floats) -> Floats:
    """(resamples,) from (resamples, labels, predictions)."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    total = confusion.sum(1) + confusion.sum(2)  # Twice the hits, misses and false alarms of each class.
    there = total > 0
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=there)
    return np.asarray(f1.sum(1) / there.sum(1), dtype=np.float64)


def _pearson(predicted: Floats, wanted: Floats) -> Floats:
    """(resamples,) from two (resamples, rows)."""
    result = np.full(len(predicted), np.nan)
    if predicted.shape[1] < 2:
        return result
    fine = np.isfinite(predicted).all(1) & np.isfinite(wanted).all(1)
    fine &= (predicted.max(1) > predicted.min(1)) & (wanted.max(1) > wanted.min(1))
    # Centred and scaled before any square, so that neither tiny nor huge values run out of float64's range.
    x, y = (_standard(values[fine]) for values in (predicted, wanted))
    norm = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    products = (x * y).sum(1)
    result[fine] = np.clip(np.divide(products, norm, out=np.full_like(norm, np.nan), where=norm > 0), -1, 1)
    return result


def _standard(values: Floats) -> Floats:
    values = values / np.abs(values).max(1, keepdims=True)
    values = values - values.mean(1, keepdims=True)
    largest = np.abs(values).max(1, keepdims=True)
    return np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def _resample_accuracy(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    # Drawing n rows and counting the right ones is a binomial draw.
    return generator.binomial(len(predicted), accuracy(predicted, wanted), resamples) / len(predicted)


def _resample_f1(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    # Drawing n rows and counting them in the confusion matrix is a multinomial draw.
    confusion = _confusion(predicted, wanted)
    shares = confusion.ravel() / confusion.sum()
    counts = generator.multinomial(len(predicted), shares, resamples)
    return _macro_f1(counts.reshape(resamples, *confusion.shape).astype(np.float64))


def _resample_pearson(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    count, parts = len(predicted), []
    step = max(1, CHUNK // count)
    for start in range(0, resamples, step):
        rows = generator.integers(0, count, (min(step, resamples - start), count))
        parts.append(_pearson(predicted[rows], wanted[rows]))
    return np.concatenate(parts)


def _resample_spearman(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    draws = (generator.integers(0, len(predicted), len(predicted)) for _ in range(resamples))
    return np.array([spearman(predicted[rows], wanted[rows]) for rows in draws])


RESAMPLERS: dict[str, Callable[[Floats, Floats, np.random.Generator, int], Floats]] = {
    "accuracy": _resample_accuracy,
    "macro_f1": _resample_f1,
    "pearson": _resample_pearson,
    "spearman": _resample_spearman,
}
