"""The metrics' formulas over many resamples of the rows at once, for metrics.py.

Correlations and their resamples come from scipy.stats, which is imported on first use.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "CORRELATIONS",
    "UNDEFINED",
    "Draws",
    "Floats",
    "confusion_of",
    "draw_rows",
    "f1_of",
    "macro_f1_of",
    "mcc_of",
    "resample",
    "row_scorer",
    "sets_counts",
    "sets_f1_of",
]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
# Values of resamples that are held at once: few enough for the processor's cache, and for memory.
BATCH_VALUES = 200_000
# Stands for an undefined correlation among resamples: scipy's bootstrap warns of NaN. No correlation is above 1.
UNDEFINED = 2.0


def confusion_of(predicted: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Count the rows of each label and prediction: the classes that occur, and (labels, predictions) over them."""
    classes, cells = _cells_of(predicted, wanted)
    counts = np.bincount(cells, minlength=len(classes) ** 2)
    return classes, counts.reshape(len(classes), len(classes)).astype(np.float64)


def _cells_of(predicted: Floats, wanted: Floats) -> tuple[Floats, Rows]:
    """Return the classes that occur, and each row's cell of the flattened confusion matrix over them."""
    classes = np.unique(np.concatenate([predicted, wanted]))
    return classes, np.searchsorted(classes, wanted) * len(classes) + np.searchsorted(classes, predicted)


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


def _spearman(predicted: Floats, wanted: Floats, axis: int = -1) -> Floats:
    """Correlate the ranks within each resample; shapes as in _pearson."""
    from scipy.stats import rankdata

    return _pearson(rankdata(predicted, axis=axis), rankdata(wanted, axis=axis), axis)


# What is done to all values once, and the correlation of their resamples.
CORRELATIONS: dict[str, tuple[Callable[[Floats], Any], Callable[..., Floats]]] = {
    "pearson": (_scaled, _pearson),
    # Doubles: with another scipy than ours, correlations of small whole numbers came out in half precision.
    "spearman": (partial(np.asarray, dtype=np.float64), _spearman),
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
    drawn = []
    for start in range(0, resamples, batch := max(1, BATCH_VALUES // confusion.size)):
        counts = generator.multinomial(len(predicted), shares, min(batch, resamples - start)).astype(np.float64)
        drawn.append(formula(classes, counts.reshape(-1, *confusion.shape)))
    return np.concatenate(drawn)


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


_OF_CONFUSIONS: dict[str, Callable[[Floats, Floats], Floats]] = {"macro_f1": macro_f1_of, "mcc": mcc_of}
Resampler = Callable[[Floats, Floats, np.random.Generator, int], Floats]
_RESAMPLERS: dict[str, Resampler] = {
    "accuracy": _resample_accuracy,
    **{name: partial(_resample_confusion, formula) for name, formula in _OF_CONFUSIONS.items()},
    "pearson": partial(_resample_correlation, "pearson"),
    "spearman": partial(_resample_correlation, "spearman"),
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
    score = row_scorer(name, metric, positive, predicted, wanted)
    values: Floats = np.concatenate([score(draws) for draws in draw_rows(generator, len(predicted), resamples)])
    return values[np.isfinite(values)]


class Draws:
    """Rows that were drawn with replacement, ``rows`` of (resamples, rows)."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @cached_property
    def counts(self) -> Floats:
        """How often each row was drawn: (resamples, rows)."""
        return _counted(self.rows, self.rows.shape[1])


def _counted(drawn: Rows, size: int) -> Floats:
    """Count each of the numbers below ``size`` in each resample: (resamples, size) from (resamples, rows)."""
    places = drawn + size * np.arange(len(drawn))[:, None]
    return np.bincount(places.ravel(), minlength=size * len(drawn)).reshape(len(drawn), size).astype(np.float64)


def draw_rows(generator: np.random.Generator, rows: int, resamples: int) -> Iterator[Draws]:
    """Draw as many rows as there are for each resample, and yield a batch of resamples at a time."""
    for start in range(0, resamples, batch := max(1, BATCH_VALUES // rows)):
        yield Draws(generator.integers(0, rows, (min(batch, resamples - start), rows)))


def row_scorer(
    name: str, metric: Callable[[Any, Any], float], positive: int, predicted: Any, wanted: Any
) -> Callable[[Draws], Floats]:
    """Return a function of draws: a metric's values (resamples,), NaN where it is undefined.

    Unlike ``resample`` it lets several predictions be scored on the same rows. Parameters as there.
    """
    formula = partial(f1_of, positive) if name == "f1" else _OF_CONFUSIONS.get(name)
    if np.ndim(predicted) == 2 and name in _SETS_RESAMPLERS:
        counts = sets_counts(predicted, wanted).reshape(len(predicted), -1)
        return lambda draws: sets_f1_of(name == "micro_f1", (draws.counts @ counts).reshape(len(draws.rows), 2, -1))
    if name in ("accuracy", "mae"):
        values = (predicted == wanted).astype(np.float64) if name == "accuracy" else np.abs(predicted - wanted)
        return lambda draws: draws.counts @ values / len(values)
    if name == "pearson":
        return partial(_pearson_of, _scaled(predicted), _scaled(wanted))
    if name in CORRELATIONS:
        prepare, correlate = CORRELATIONS[name]
        ranks = prepare(predicted), prepare(wanted)
        return lambda draws: _as_nan(correlate(*(side[draws.rows] for side in ranks)))
    if formula is not None:
        return partial(_score_confusions, formula, *_cells_of(predicted, wanted))
    return lambda draws: np.array([metric(predicted[rows], wanted[rows]) for rows in draws.rows], dtype=np.float64)


def _score_confusions(
    formula: Callable[[Floats, Floats], Floats], classes: Floats, cells: Rows, draws: Draws
) -> Floats:
    """Apply a formula to the confusion matrices of draws: (resamples,), a batch of them at a time."""
    size, batch = len(classes), max(1, BATCH_VALUES // len(classes) ** 2)
    parts = (cells[draws.rows[start : start + batch]] for start in range(0, len(draws.rows), batch))
    return np.concatenate([formula(classes, _counted(part, size**2).reshape(-1, size, size)) for part in parts])


def _pearson_of(predicted: Floats, wanted: Floats, draws: Draws) -> Floats:
    """Correlate by sums over the counts, several times faster than row by row: (resamples,), NaN where undefined."""
    x, y = (values / np.abs(values).max(initial=1) for values in (predicted, wanted))
    x, y = x - x.mean(), y - y.mean()
    sums = draws.counts @ np.stack([x, y, x * x, y * y, x * y], axis=1) / len(x)
    mean_x, mean_y, square_x, square_y, product = sums.T
    spread_x, spread_y = square_x - mean_x**2, square_y - mean_y**2
    # Where little is left of a difference of sums, a side is constant, or nearly: those few are computed directly.
    exact = (spread_x <= 1e-8 * square_x) | (spread_y <= 1e-8 * square_y)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (product - mean_x * mean_y) / np.sqrt(spread_x * spread_y)
    found[exact] = _as_nan(_pearson(predicted[draws.rows[exact]], wanted[draws.rows[exact]]))
    return found


def _as_nan(correlations: Floats) -> Floats:
    return np.where(correlations == UNDEFINED, np.nan, correlations)
