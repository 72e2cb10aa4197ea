"""The paired bootstrap against scipy's, against a plain loop, and against hand-made cases."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from minbert.errors import InputError
from multitask import Difference, paired_difference
from multitask.comparison import Pair, paired_mean_difference, resampled_scores
from multitask.metrics import METRICS, bootstrap_score, compute_metric
from multitask.resampling import Draws, row_scorer


def classes_of(generator: np.random.Generator, rows: int, right: float, labels: np.ndarray, count: int) -> np.ndarray:
    """Predictions of which so large a share is right, beyond what guessing is."""
    return np.where(generator.random(rows) < right, labels, generator.integers(0, count, rows))


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sides that share most of their errors, and labels."""
    generator = np.random.default_rng(1)
    labels, shared = generator.normal(size=(2, 400))
    first, second = (labels + shared + 0.3 * generator.normal(size=400) for _ in range(2))
    return first, second, labels


def scipys(metric: str, first: Any, second: Any, labels: Any) -> tuple[float, float]:
    """The percentile interval of the difference by scipy.stats.bootstrap, which knows nothing of our resampling."""

    def difference(a: Any, b: Any, y: Any) -> float:
        return compute_metric(metric, b, y) - compute_metric(metric, a, y)

    found = bootstrap(
        (first, second, labels), difference, paired=True, vectorized=False, method="percentile", rng=0, n_resamples=1500
    ).confidence_interval
    return found.low, found.high


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "f1", "mcc"])
def test_the_interval_of_classes_is_scipys(metric: str) -> None:
    generator = np.random.default_rng(0)
    count = 2 if metric == "f1" else 4
    labels = generator.integers(0, count, 300)
    first = classes_of(generator, 300, 0.5, labels, count)
    second = np.where(generator.random(300) < 0.3, labels, first)  # right where the first is, and more
    found = paired_difference(metric, first, second, labels, resamples=4000)
    assert found.difference == compute_metric(metric, second, labels) - compute_metric(metric, first, labels)
    assert [found.low, found.high] == pytest.approx(scipys(metric, first, second, labels), abs=0.01)
    assert not found.tie


@pytest.mark.parametrize("metric", ["macro_f1", "mcc"])
def test_many_classes_are_resampled_a_few_matrices_at_a_time(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix of 150 classes for each of 2,000 resamples would be 360 MB."""
    generator = np.random.default_rng(0)
    labels, found = generator.integers(0, 150, (2, 1000))
    rows = Draws(generator.integers(0, 1000, (50, 1000)))
    at_once = row_scorer(metric, METRICS[metric], 1, found, labels)(rows)
    whole = bootstrap_score(metric, found, labels, resamples=50)
    monkeypatch.setattr("multitask.resampling.BATCH_VALUES", 3 * 150**2)
    assert np.array_equal(row_scorer(metric, METRICS[metric], 1, found, labels)(rows), at_once)
    assert bootstrap_score(metric, found, labels, resamples=50) == whole


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mae"])
def test_the_interval_of_numbers_is_scipys(metric: str, numbers: tuple[np.ndarray, ...]) -> None:
    first, second, labels = numbers
    found = paired_difference(metric, first, second, labels)
    assert [found.low, found.high] == pytest.approx(scipys(metric, first, second, labels), abs=0.006)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc", "f1", "pearson", "spearman", "mae", "micro_f1"])
def test_each_resample_has_the_metrics_own_score_of_its_rows(metric: str) -> None:
    generator, shape = np.random.default_rng(2), (40, 3) if metric == "micro_f1" else (40,)
    top = 2 if metric in ("f1", "micro_f1") else 4
    labels, predictions = generator.integers(0, top, (2, *shape)).astype(float)
    (side,) = resampled_scores(metric, [predictions], labels, (), 7, np.random.default_rng(5))
    drawn = np.random.default_rng(5).integers(0, 40, (7, 40))
    wanted = [compute_metric(metric, predictions[rows], labels[rows]) for rows in drawn]
    assert side.draws == pytest.approx(wanted, abs=1e-13)


def test_the_pairing_makes_the_interval_narrow(numbers: tuple[np.ndarray, ...]) -> None:
    first, second, labels = numbers
    paired = paired_difference("pearson", first, second, labels)
    draws = [
        resampled_scores("pearson", [side], labels, (), 2000, np.random.default_rng(number))[0].draws
        for number, side in enumerate((first, second))
    ]
    low, high = np.percentile(draws[1] - draws[0], [2.5, 97.5])
    assert paired.high - paired.low < 0.5 * (high - low)


def test_of_equal_sides_the_interval_is_zero_and_a_tie(numbers: tuple[np.ndarray, ...]) -> None:
    first, _, labels = numbers
    assert paired_difference("pearson", first, first, labels) == Difference(0, 0, 0)
    assert Difference(0, 0, 0).tie


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_scores_that_differ_by_rounding_alone_tie(metric: str, numbers: tuple[np.ndarray, ...]) -> None:
    first, _, labels = numbers
    for second in (first / 3 + 0.1, 7.7 * first - 0.3):  # of equal correlation
        found = paired_difference(metric, first, second, labels)
        assert (found.low, found.high, found.tie) == (0, 0, True)
    two = paired_difference("pearson", [1.0, 2.3], [0.1, 1.7], [3.0, 1.0])
    assert (two.low, two.high, two.tie) == (0, 0, True)


@pytest.mark.parametrize(
    ("low", "high", "tie"), [(-0.1, 0.1, True), (0, 0.1, True), (0.01, 0.1, False), (-0.2, -0.1, False)]
)
def test_an_interval_with_zero_in_it_is_a_tie(low: float, high: float, tie: bool) -> None:
    assert Difference((low + high) / 2, low, high).tie is tie


def test_scores_of_several_seeds_are_averaged_within_each_resample() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 120)
    first = np.stack([classes_of(generator, 120, 0.5, labels, 3) for _ in range(3)])
    second = np.stack([classes_of(generator, 120, 0.6, labels, 3) for _ in range(2)])
    found = paired_difference("macro_f1", first, second, labels, resamples=60, seed=4)
    drawn = np.random.default_rng(4).integers(0, 120, (60, 120))

    def mean(side: np.ndarray, rows: np.ndarray) -> float:
        return float(np.mean([compute_metric("macro_f1", seed[rows], labels[rows]) for seed in side]))

    differences = [mean(second, rows) - mean(first, rows) for rows in drawn]
    everything = np.arange(120)
    assert found.difference == pytest.approx(mean(second, everything) - mean(first, everything), abs=1e-15)
    assert [found.low, found.high] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-13)
    one = paired_difference("accuracy", first[0], second[0], labels)
    assert paired_difference("accuracy", first[:1], second[:1], labels) == one


def test_sets_of_classes_have_seeds_too() -> None:
    generator = np.random.default_rng(0)
    labels, first, second = generator.integers(0, 2, (3, 50, 4))
    plain = paired_difference("micro_f1", first, second, labels)
    assert paired_difference("micro_f1", first[None], second[None], labels) == plain
    assert plain.low < plain.difference < plain.high


def test_the_mean_over_tasks_draws_each_tasks_rows_on_their_own(numbers: tuple[np.ndarray, ...]) -> None:
    first, second, labels = numbers
    one = Pair("pearson", first, second, labels)
    single = paired_mean_difference([one])
    twice = paired_mean_difference([one, one])
    assert single.difference == twice.difference == paired_difference("pearson", first, second, labels).difference
    # Of two independent draws the mean's spread is that of one by the root of two.
    assert (twice.high - twice.low) / (single.high - single.low) == pytest.approx(math.sqrt(0.5), rel=0.08)


def test_an_undefined_score_is_nan_and_counts_as_nothing_in_the_mean(numbers: tuple[np.ndarray, ...]) -> None:
    first, second, labels = numbers
    constant = np.ones_like(first)
    found = paired_difference("pearson", constant, second, labels)
    assert all(math.isnan(value) for value in (found.difference, found.low, found.high))
    assert not found.tie
    mean = paired_mean_difference([Pair("pearson", constant, second, labels), Pair("pearson", first, first, labels)])
    assert mean.difference == pytest.approx(compute_metric("pearson", second, labels) / 2)
    # Of two seeds one: the other's score stays, in the mean and in its interval.
    half = paired_mean_difference([Pair("pearson", [first, constant], [first, first], labels)])
    assert half.difference == pytest.approx(compute_metric("pearson", first, labels) / 2)
    assert half.low < half.difference < half.high


def test_undefined_resamples_are_left_out() -> None:
    # One row of five differs: a third of the resamples lack it, and have no correlation.
    first, second = np.array([0.0, 0, 0, 0, 1]), np.array([0.0, 1, 2, 3, 4])
    labels = np.array([0.0, 1, 2, 4, 3])
    sides = resampled_scores("pearson", [first, second], labels, (), 500, np.random.default_rng(0))
    assert 0.2 < np.isnan(sides[0].draws).mean() < 0.45
    found = paired_difference("pearson", first, second, labels, resamples=500)
    both = sides[1].draws - sides[0].draws
    assert [found.low, found.high] == pytest.approx(np.nanpercentile(both, [2.5, 97.5]), abs=1e-12)


def test_values_far_from_zero_keep_their_correlation() -> None:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=50)
    near = labels + generator.normal(size=50)
    plain = paired_difference("pearson", near, labels, labels)
    for predictions in (1e6 + near, 1e300 * near, 1e-300 * near):
        found = paired_difference("pearson", predictions, labels, labels)
        assert [found.low, found.high] == pytest.approx([plain.low, plain.high], abs=1e-8)


def test_a_metric_of_ones_own_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_entries", "_origins", "_lower", "_labels"):
        monkeypatch.setattr(METRICS, name, type(getattr(METRICS, name))(getattr(METRICS, name)))
    METRICS.register("mine")(lambda predictions, labels: float(np.mean(predictions == labels)))
    METRICS.register("never")(lambda predictions, labels: math.inf)
    generator = np.random.default_rng(6)
    labels, first, second = generator.integers(0, 3, (3, 80))
    found, wanted = (paired_difference(metric, first, second, labels, resamples=200) for metric in ("mine", "accuracy"))
    assert [found.low, found.high] == pytest.approx([wanted.low, wanted.high], abs=1e-15)
    assert math.isnan(paired_difference("never", first, second, labels).difference)


def test_what_can_not_be_compared_is_refused() -> None:
    for count in (0, 2.5):
        with pytest.raises(InputError, match=f"resamples must be a whole number of at least 1, got {count}"):
            paired_difference("accuracy", [1], [1], [1], resamples=count)  # type: ignore[arg-type]
    for seed in (-1, "x"):
        with pytest.raises(InputError, match=f"seed must be a whole number of at least 0, got {seed!r}"):
            paired_difference("accuracy", [1], [1], [1], seed=seed)  # type: ignore[arg-type]
    for bad in (["good", "bad"], [[1, 0], [1]], iter([1, 0])):
        with pytest.raises(InputError, match=r"predictions must be an array of numbers, .* got "):
            paired_difference("accuracy", [1, 0], bad, [1, 0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"labels must be an array of numbers, .* got \['good', 'bad'\]"):
        paired_difference("accuracy", [1, 0], [1, 0], ["good", "bad"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="predictions and labels must be of one length"):
        paired_difference("accuracy", [1, 0], [1], [1, 0])
    with pytest.raises(InputError, match="predictions must be of at least one seed, got none"):
        paired_difference("accuracy", np.zeros((0, 2)), [1, 0], [1, 0])
    with pytest.raises(InputError, match="metric must be one of accuracy"):
        paired_difference("exactness", [1], [1], [1])
    with pytest.raises(InputError, match="tasks must be some, .* got mae"):
        paired_mean_difference([Pair("mae", [1.0], [1.0], [1.0])])
    with pytest.raises(InputError, match="tasks must be some, .* got none"):
        paired_mean_difference([])
    one, two = Pair("accuracy", [1], [1], [1]), Pair("accuracy", [1], [[1], [0]], [1])
    with pytest.raises(InputError, match="second must have equally many seeds in all tasks, got 1 and 2"):
        paired_mean_difference([one, two])
