"""The metrics' formulas over many resamples of the rows at once, for metrics.py.

Correlations and their resamples come from scipy.stats, which is imported on first use.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CORRELATIONS",
    "UNDEFINED",
    "Floats",
    "confusion_of",
    "f1_of",
    "macro_f1_of",
    "mcc_of",
    "resample",
    "sets_counts",
    "sets_f1_of",
]

Floats = npt.NDArray[np.float64]
# Values of resamples that are held at once: few enough for the processor's cache, and for memory.
BATCH_VALUES = 200_000
# Stands for an undefined correlation among resamples: scipy's bootstrap warns of NaN. No correlation is above 1.
UNDEFINED = 2.0


def confusion_of(predicted: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Count the rows of each label and prediction: the classes that occur, and (labels, predictions) over them."""
    classes = np.unique(np.concatenate([predicted, wanted]))
    cells = np.searchsorted(classes, wanted) * len(classes) + np.searchsorted(classes, predicted)
    counts = np.bincount(cells, minlength=len(classes) ** 2)
    return classes, counts.reshape(len(classes), len(classes)).astype(np.float64)


def _f1_by_class(confusions: Floats) -> tuple[Floats, Floats]:
    """Return F1 of each class and its rows there: (resamples, classes) each, F1 0 where there are none."""
    hits = np.diagonal(confusions, axis1=1, axis2=2)
    total = confusions.sum(1) + confusions.sum(2)  # Twice the hits, misses and false alarms of each class.
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0), total


def macro_f1_of(classes: Floats, confusions: Floats) -> Floats:
    """Average F1 over the classes that occur in each resample: (resamples,) from (resamples, labels, predictions)."""
    f1, total = _f1_by_class(confusions)
    return np.asarray(f1.sum(1) / (total > 0).sum(1), dtype=np.float64)


def f1_of(positive: int, classes: Floats, confusions: Floats) -> Floats:
    """Compute F1 of the class ``positive``; 0 where it is neither label nor prediction. Shapes as in macro_f1_of."""
    f1, _ = _f1_by_class(confusions)
    return np.asarray(f1[:, classes == positive].sum(1), dtype=np.float64)


def mcc_of(classes: Floats, confusions: Floats) -> Floats:
    """Compute Matthews' correlation of any number of classes; 0 where a side is constant. Shapes as in macro_f1_of.

    Source: Gorodkin 2004 (doi 10.1016/j.compbiolchem.2004.09.006), equation 8.
    """
    rows = confusions.sum((1, 2))
    labels, predictions = confusions.sum(2), confusions.sum(1)  # (resamples, classes)
    agreed = np.trace(confusions, axis1=1, axis2=2) * rows - (labels * predictions).sum(1)
    spread = (rows**2 - (labels**2).sum(1)) * (rows**2 - (predictions**2).sum(1))
    zeros = np.zeros_like(agreed)
    return np.asarray(np.divide(agreed, np.sqrt(spread), out=zeros, where=spread > 0), dtype=np.float64)


def sets_f1_of(micro: bool, counts: Floats) -> Floats:
    """Compute F1 over sets of classes, 2 hits / (predicted + wanted): (resamples,) from (resamples, 2, classes).

    :param micro: of all classes' counts together, 0 where there are none; else the mean over the classes that occur.
    :param counts: of each class its hits, and how often it is predicted plus how often it is wanted.
    """
    if micro:
        counts = counts.sum(2, keepdims=True)
    hits, total = counts[:, 0], counts[:, 1]
    f1 = np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(f1.sum(1) / np.maximum((total > 0).sum(1), 1), dtype=np.float64)


def sets_counts(predicted: Floats, wanted: Floats) -> Floats:
    """Return what each row adds to the counts of sets_f1_of: (rows, 2, classes), from (rows, classes) of 0 and 1."""
    return np.stack([predicted * wanted, predicted + wanted], axis=1)


def _resample_sets(
    micro: bool, predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int
) -> Floats:
    # Like rows are drawn together: how often each of them is drawn is a multinomial draw.
    rows = sets_counts(predicted, wanted)
    patterns, times = np.unique(rows.sum(2) if micro else rows.reshape(len(rows), -1), axis=0, return_counts=True)
    drawn = []
    for start in range(0, resamples, batch := max(1, BATCH_VALUES // len(patterns))):
        counts = generator.multinomial(len(rows), times / len(rows), min(batch, resamples - start)) @ patterns
        drawn.append(sets_f1_of(micro, counts.reshape(len(counts), 2, -1)))
    return np.concatenate(drawn)


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
    return generator.binomial(len(predicted), float(np.mean(predicted == wanted)), resamples) / len(predicted)


def _resample_confusion(
    formula: Callable[[Floats, Floats], Floats],
    predicted: Floats,
    wanted: Floats,
    generator: np.random.Generator,
    resamples: int,
) -> Floats:
    # Drawing n rows and counting them in the confusion matrix is a multinomial draw.
    classes, confusion = confusion_of(predicted, wanted)
    shares = confusion.ravel() / confusion.sum()
    counts = generator.multinomial(len(predicted), shares, resamples)
    return formula(classes, counts.reshape(resamples, *confusion.shape).astype(np.float64))


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


def _resample_mae(predicted: Floats, wanted: Floats, generator: np.random.Generator, resamples: int) -> Floats:
    errors, rows = np.abs(predicted - wanted), len(predicted)
    drawn = []
    for start in range(0, resamples, batch := max(1, BATCH_VALUES // rows)):
        drawn.append(errors[generator.integers(0, rows, (min(batch, resamples - start), rows))].mean(1))
    return np.concatenate(drawn)


Resampler = Callable[[Floats, Floats, np.random.Generator, int], Floats]
_RESAMPLERS: dict[str, Resampler] = {
    "accuracy": _resample_accuracy,
    "macro_f1": partial(_resample_confusion, macro_f1_of),
    "mcc": partial(_resample_confusion, mcc_of),
    "pearson": partial(_resample_correlation, "pearson"),
    "spearman": partial(_resample_correlation, "spearman"),
    "mae": _resample_mae,
}
_SETS_RESAMPLERS: dict[str, Resampler] = {
    "micro_f1": partial(_resample_sets, True),
    "macro_f1": partial(_resample_sets, False),
}


def resample(
    name: str,
    metric: Callable[[Any, Any], float],
    positive: int,
    predicted: Any,
    wanted: Any,
    generator: np.random.Generator,
    resamples: int,
) -> Floats:
    """Return a metric's values over resamples of the rows; undefined ones are left out.

    :param name: of a built-in metric, which is computed for many resamples at once; any other calls ``metric``.
    :param positive: the class of ``f1``.
    """
    if np.ndim(predicted) == 2:
        resampler = _SETS_RESAMPLERS.get(name)
    else:
        resampler = partial(_resample_confusion, partial(f1_of, positive)) if name == "f1" else _RESAMPLERS.get(name)
    if resampler is not None:
        return resampler(predicted, wanted, generator, resamples)
    rows = len(predicted)
    drawn = (generator.integers(0, rows, rows) for _ in range(resamples))
    values = np.array([metric(predicted[chosen], wanted[chosen]) for chosen in drawn], dtype=np.float64)
    return values[np.isfinite(values)]
