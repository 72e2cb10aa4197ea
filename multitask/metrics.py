"""Scores of predictions, their 95 % bootstrap intervals, and what guessing would score.

A metric is a function (predictions, labels) -> float over numpy arrays (rows,): numbers, or indices of classes. Where
a row may have any number of classes, they are (rows, classes), of 0 and 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from minbert.errors import InputError, listed
from multitask.errors import ConfigError
from multitask.resampling import (
    CORRELATIONS,
    UNDEFINED,
    Draws,
    Floats,
    confusion_of,
    f1_of,
    macro_f1_of,
    mcc_of,
    resample,
    row_scorer,
    sets_counts,
    sets_f1_of,
)
from multitask.settings.choices import METRICS
from multitask.settings.kinds import label_key
from multitask.settings.task import Task

__all__ = [
    "METRICS",
    "Score",
    "accuracy",
    "baseline_score",
    "bootstrap_score",
    "compute_metric",
    "f1",
    "macro_f1",
    "mae",
    "mcc",
    "micro_f1",
    "pearson",
    "scorer",
    "spearman",
]

Values = Sequence[float] | npt.NDArray[np.generic]


@dataclass(frozen=True)
class Score:
    """A score with the bounds of its 95 % interval; NaN where it is undefined.

    :param n: rows that were scored.
    :param macro_f1: reported beside the accuracy of a classification, or a multilabel task's micro F1; else None.
    :param left_out: rows of the file that could not be used.
    :param cut: rows longer than the encoder takes.
    :param others: values of metrics that were asked for beside the task's own, by name.
    """

    value: float
    low: float
    high: float
    n: int
    metric: str
    macro_f1: float | None = None
    left_out: int = 0
    cut: int = 0
    others: Mapping[str, float] = field(default_factory=dict)

    def defined(self) -> dict[str, float | None]:
        """Return the score and the others by metric, None for those that are not finite."""
        values = {self.metric: self.value, **self.others}
        return {metric: value if math.isfinite(value) else None for metric, value in values.items()}


def accuracy(predictions: Values, labels: Values) -> float:
    """Return the share of rows whose prediction is the label; NaN without rows."""
    predicted, wanted = _pair(predictions, labels)
    return float(np.mean(predicted == wanted)) if len(predicted) else float("nan")


def macro_f1(predictions: Values, labels: Values) -> float:
    """Return the mean F1 over the classes that occur among predictions or labels; NaN without rows."""
    if np.ndim(predictions) == 2:
        return _of_sets(False, predictions, labels)
    return _of_confusion(macro_f1_of, predictions, labels)


def micro_f1(predictions: Values, labels: Values) -> float:
    """Return F1 over all classes of all rows (rows, classes) at once, 2 hits / (2 hits + misses + false alarms).

    :return: 0 where there are neither predictions nor labels; NaN without rows.
    """
    return _of_sets(True, predictions, labels)


def f1(predictions: Values, labels: Values, positive: int = 1) -> float:
    """Return F1 of one class, 2 hits / (2 hits + misses + false alarms).

    :param positive: the class's index; of two classes the second is the positive one.
    :return: 0 where the class is neither predicted nor a label; NaN without rows.
    """
    return _of_confusion(partial(f1_of, positive), predictions, labels)


def mcc(predictions: Values, labels: Values) -> float:
    """Return Matthews' correlation of any number of classes; 0 where a side is constant, NaN without rows."""
    return _of_confusion(mcc_of, predictions, labels)


def pearson(predictions: Values, labels: Values) -> float:
    """Return the linear correlation; NaN below two rows, for a constant side and for values that are not finite."""
    return _correlation("pearson", *_pair(predictions, labels))


def spearman(predictions: Values, labels: Values) -> float:
    """Return Pearson's correlation of the ranks, where ties share their mean rank; NaN where pearson's is."""
    return _correlation("spearman", *_pair(predictions, labels))


def mae(predictions: Values, labels: Values) -> float:
    """Return the mean absolute error, of which less is better; NaN without rows."""
    predicted, wanted = _pair(predictions, labels)
    return float(np.mean(np.abs(predicted - wanted))) if len(predicted) else float("nan")


def compute_metric(metric: str, predictions: Values, labels: Values, *, classes: Sequence[str] = ()) -> float:
    """Score predictions by the name of a metric.

    :param metric: one of METRICS, or ``f1:LABEL``.
    :param classes: the classes as they are spelled, in the order of their indices, for ``f1:LABEL``.
    :raises InputError: for an unknown metric or label, or inputs that differ in length.
    :raises ConfigError: for a metric of one's own that returns no number.
    """
    function, _ = _resolve(metric, classes)
    return function(*_prepared(metric, predictions, labels))


def bootstrap_score(
    metric: str,
    predictions: Values,
    labels: Values,
    *,
    classes: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 1000,
) -> Score:
    """Score predictions, with the percentile interval (2.5 % to 97.5 %) over resamples of the rows.

    The model is fixed: the interval says how much other rows would change the score, nothing about other seeds.

    :param metric: as in compute_metric, and ``classes``.
    :param seed: of the resamples; the same seed gives the same interval.
    :param resamples: how many; those for which the metric is undefined (all values equal) are left out.
    :raises InputError: for an unknown metric, fewer than one resample, or inputs that differ in length.
    """
    function, positive = _resolve(metric, classes)
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    predicted, wanted = _prepared(metric, predictions, labels)
    value = function(predicted, wanted)
    if not len(predicted) or not np.isfinite(value):
        return Score(value, float("nan"), float("nan"), len(predicted), metric)
    name = metric.partition(":")[0]
    generator = np.random.default_rng(seed)
    values = resample(name, function, positive, predicted, wanted, generator, resamples)
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return Score(value, float(low), float(high), len(predicted), metric)


def scorer(
    metric: str, predictions: Values, labels: Values, classes: Sequence[str] = ()
) -> tuple[float, Callable[[Draws], Floats] | None]:
    """Return the score of predictions, and the function of draws that scores their rows; None for an undefined score.

    Parameters and errors as in compute_metric.
    """
    function, positive = _resolve(metric, classes)
    predicted, wanted = _prepared(metric, predictions, labels)
    value = function(predicted, wanted)
    if not len(predicted) or not math.isfinite(value):
        return math.nan, None
    return value, row_scorer(metric.partition(":")[0], function, positive, predicted, wanted)


def baseline_score(task: Task, train_labels: Values, dev_labels: Values) -> Score:
    """Score a constant on the dev rows by the task's metric.

    The constant is the training rows' most frequent class (the first of several), for ``f1`` its class; of numbers the
    mean, for ``mae`` the median, which is best by it; of sets of classes the one whose micro F1 on the training rows is
    highest, as many of the most frequent classes as that takes. Where the metric is undefined for a constant, as
    correlations are, it counts as 0, so that scores can be compared with it.

    :param train_labels: as a Dataset has them, or an array as metrics take it.
    :raises InputError: without training labels.
    """
    train, dev = (_array(task, labels) for labels in (train_labels, dev_labels))
    if not len(train):
        raise InputError("train_labels must hold at least one label, got none")
    metric = task.scored_by
    constant: Any
    if metric.partition(":")[0] == "f1":
        constant = _resolve(metric, task.classes)[1]
    elif task.rules.many:
        constant = _best_set(train)
    elif task.rules.has_classes:
        classes, counts = np.unique(train, return_counts=True)
        constant = classes[counts.argmax()]
    else:
        constant = np.median(train) if metric == "mae" else train.mean()
    score = bootstrap_score(metric, np.full(dev.shape, constant), dev, classes=task.classes)
    return score if np.isfinite(score.value) else Score(0.0, 0.0, 0.0, len(dev), metric)


def _resolve(metric: str, classes: Sequence[str]) -> tuple[Callable[[Any, Any], float], int]:
    """Return a metric's function, and for f1 the index of its class, else 1."""
    name, colon, label = metric.partition(":")
    if name not in METRICS or (colon and name != "f1"):
        raise InputError(f"metric must be one of {listed(METRICS)}, got {metric!r}")
    if not colon:
        return partial(_number, name, METRICS[name]), 1
    keys = [label_key(each) for each in classes]
    if label_key(label) not in keys:
        raise InputError(f"metric must be f1: and one of the classes {listed(classes)}, got {metric!r}")
    positive = keys.index(label_key(label))
    return partial(f1, positive=positive), positive


def _number(name: str, function: Callable[[Any, Any], Any], predicted: Any, wanted: Any) -> float:
    value = function(np.array(predicted), np.array(wanted))  # copies: one of a user's own may write to them
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"the metric {name} must return a number, got {value!r}") from None


def _prepared(metric: str, predictions: Values, labels: Values) -> tuple[Any, Any]:
    """Return both as arrays: of float64 for built-in metrics, of their own type for others."""
    predicted, wanted = _pair(predictions, labels, dimensions=2 if np.ndim(predictions) == 2 else 1)
    if METRICS.origin(metric) is None:
        return predicted, wanted
    return np.asarray(predictions), np.asarray(labels)


def _pair(predictions: Values, labels: Values, dimensions: int = 1) -> tuple[Floats, Floats]:
    predicted, wanted = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    what = "of one length" if dimensions == 1 else "of one shape (rows, classes)"
    if predicted.ndim != dimensions or predicted.shape != wanted.shape:
        raise InputError(f"predictions and labels must be {what}, got shapes {predicted.shape} and {wanted.shape}")
    return predicted, wanted


def _of_confusion(formula: Callable[[Floats, Floats], Floats], predictions: Values, labels: Values) -> float:
    predicted, wanted = _pair(predictions, labels)
    if not len(predicted):
        return float("nan")
    classes, confusion = confusion_of(predicted, wanted)
    return float(formula(classes, confusion[None])[0])


def _of_sets(micro: bool, predictions: Values, labels: Values) -> float:
    predicted, wanted = _pair(predictions, labels, dimensions=2)
    if not len(predicted):
        return float("nan")
    return float(sets_f1_of(micro, sets_counts(predicted, wanted).sum(0)[None])[0])


def _array(task: Task, labels: Any) -> npt.NDArray[Any]:
    """Return labels as metrics take them: of tuples of indices (rows, classes)."""
    if not task.rules.many or isinstance(labels, np.ndarray):
        return np.asarray(labels)
    result = np.zeros((len(labels), len(task.classes)))
    for row, indices in enumerate(labels):
        result[row, list(indices)] = 1
    return result


def _best_set(train: Floats) -> Floats:
    """Return the set (classes,) whose micro F1 is highest if each row of ``train`` (rows, classes) is given it."""
    counts = train.sum(0)
    order = np.argsort(-counts, kind="stable")
    scores = 2 * counts[order].cumsum() / (np.arange(1, len(order) + 1) * len(train) + counts.sum())
    result = np.zeros(len(order))
    result[order[: scores.argmax() + 1]] = 1
    return result


def _correlation(metric: str, predicted: Floats, wanted: Floats) -> float:
    if len(predicted) < 2 or not (np.isfinite(predicted).all() and np.isfinite(wanted).all()):
        return float("nan")
    prepare, correlate = CORRELATIONS[metric]
    value = float(correlate(prepare(predicted)[None], prepare(wanted)[None])[0])
    return float("nan") if value == UNDEFINED else value
