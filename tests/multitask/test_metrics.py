"""Scores against values worked out by hand and by numpy, intervals against the plain bootstrap."""

import math
import operator
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from minbert.errors import InputError
from multitask.errors import ConfigError
from multitask.metrics import (
    METRICS,
    accuracy,
    baseline_score,
    bootstrap_score,
    compute_metric,
    f1,
    macro_f1,
    mae,
    mcc,
    pearson,
    spearman,
)
from multitask.settings.task import Task


def test_accuracy() -> None:
    assert accuracy([0, 1, 2, 2], [0, 1, 1, 2]) == 0.75
    assert math.isnan(accuracy([], []))


def test_macro_f1() -> None:
    # Class 0: 2 hits, 1 false alarm, 0 misses: 4/5. Class 1: 1 hit, 0, 1: 2/3. Class 3: no hit, 1, 1: 0.
    assert macro_f1([0, 0, 0, 1, 3, 2], [0, 0, 1, 1, 2, 3]) == pytest.approx((4 / 5 + 2 / 3 + 0 + 0) / 4, abs=1e-15)
    assert macro_f1([1, 1], [1, 1]) == 1.0
    assert math.isnan(macro_f1([], []))


def test_f1_of_one_class() -> None:
    # Class 1: 1 hit, 1 miss, 1 false alarm; class 0: 2 hits, 1 miss, 1 false alarm.
    predictions, labels = [0, 0, 1, 1, 0], [0, 0, 1, 0, 1]
    assert f1(predictions, labels) == pytest.approx(1 / 2, abs=1e-15)
    assert f1(predictions, labels, positive=0) == pytest.approx(2 / 3, abs=1e-15)
    assert f1([0, 0], [0, 1]) == 0.0
    assert f1([0, 0], [0, 0]) == 0.0  # as sklearn has it: no class 1 anywhere
    assert f1([1, 1], [1, 1]) == 1.0
    assert math.isnan(f1([], []))
    assert compute_metric("f1:no", predictions, labels, classes=("no", "yes")) == pytest.approx(2 / 3, abs=1e-15)
    assert compute_metric("f1:1.0", predictions, labels, classes=("0", "1")) == pytest.approx(1 / 2, abs=1e-15)
    assert bootstrap_score("f1:no", predictions, labels, classes=("no", "yes")).metric == "f1:no"
    for metric in ("f1:no", "f1:"):
        with pytest.raises(InputError, match="metric must be f1: and one of the classes yes, got 'f1:"):
            compute_metric(metric, [0], [0], classes=("yes",))
    with pytest.raises(InputError, match="metric must be one of accuracy, .* got 'accuracy:no'"):
        compute_metric("accuracy:no", [0], [0], classes=("no", "yes"))


def test_matthews_correlation() -> None:
    # 2 hits, 0 right rejections, 1 false alarm, 1 miss: (2 * 0 - 1 * 1) / sqrt(3 * 3 * 1 * 1).
    assert mcc([1, 0, 1, 1], [1, 1, 1, 0]) == pytest.approx(-1 / 3, abs=1e-15)
    assert mcc([0, 1, 2], [0, 1, 2]) == pytest.approx(1, abs=1e-15)
    assert mcc([1, 0], [0, 1]) == pytest.approx(-1, abs=1e-15)
    assert [mcc([1, 1], [0, 1]), mcc([0, 1], [1, 1]), mcc([1, 1], [1, 1]), mcc([0], [1])] == [0, 0, 0, 0]
    assert math.isnan(mcc([], []))
    # Of several classes: the correlation of the two sides' indicators, summed over the classes.
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 4, (2, 200))
    y = np.where(generator.random(200) < 0.4, x, y)
    a, b = (np.eye(4)[side] - np.eye(4)[side].mean(0) for side in (x, y))
    assert mcc(x, y) == pytest.approx((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()), abs=1e-14)


def test_mean_absolute_error() -> None:
    assert mae([1.5, -2, 3], [1, 2, 3]) == pytest.approx(1.5, abs=1e-15)
    assert math.isnan(mae([], []))
    assert mae([math.inf], [0]) == math.inf
    constant = bootstrap_score("mae", [1, 1, 1], [2, 2, 2])
    assert (constant.value, constant.low, constant.high) == (1, 1, 1)


def test_a_metric_of_ones_own_has_an_interval_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_entries", "_origins", "_lower", "_labels"):
        monkeypatch.setattr(METRICS, name, type(getattr(METRICS, name))(getattr(METRICS, name)))
    seen = []

    @METRICS.register("mine")
    def mine(predictions: np.ndarray, labels: np.ndarray) -> float:
        seen.append(predictions.dtype)
        return float(np.mean(predictions == labels))

    generator = np.random.default_rng(3)
    y = generator.integers(0, 2, 300)
    x = np.where(generator.random(300) < 0.6, y, 1 - y)
    own, built_in = bootstrap_score("mine", x, y), bootstrap_score("accuracy", x, y)
    assert own.value == built_in.value
    assert [own.low, own.high] == pytest.approx([built_in.low, built_in.high], abs=0.015)
    assert set(seen) == {np.dtype("int64")}  # classes come as indices
    METRICS.register("sorts")(lambda predictions, labels: (predictions.sort(), labels.sort(), 1.0)[-1])
    before = x.copy(), y.copy()
    bootstrap_score("sorts", x, y)
    assert np.array_equal((x, y), before)  # the labels are those of every later epoch
    METRICS.register("undefined")(lambda predictions, labels: float("nan"))
    assert math.isnan(bootstrap_score("undefined", x, y).low)
    METRICS.register("nothing")(lambda predictions, labels: None)
    with pytest.raises(ConfigError, match="the metric nothing must return a number, got None"):
        compute_metric("nothing", x, y)
    with pytest.raises(ConfigError, match="labels of the metric odd must be one of classes, numbers, sets, got"):
        METRICS.register("odd", labels="words")
    METRICS.register("error", greater_is_better=False, labels="classes")(mine)
    assert [METRICS.greater_is_better(name) for name in ("mine", "error", "mae", "f1:x")] == [True, False, False, True]
    assert METRICS.fitting("numbers") == ["pearson", "spearman", "mae", "mine", "sorts", "undefined", "nothing"]


def test_correlations_by_hand() -> None:
    assert pearson([1, 2, 3], [10, 20, 30]) == pytest.approx(1, abs=1e-15)
    assert pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1, abs=1e-15)
    assert pearson([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8, abs=1e-15)
    assert spearman([1, 2, 3, 4], [1, 9, 4, 100]) == pytest.approx(0.8, abs=1e-15)
    # Ranks with ties: 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5), abs=1e-15)


def test_correlations_against_numpy() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=500)
    y = np.round(x + generator.normal(size=500), 1)
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-13)
    ranks = [[(values < value).sum() + (values <= value).sum() for value in values] for values in (x, y)]
    assert spearman(x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-13)


def exact_pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation in rational numbers, rounded once."""
    a, b = ([Fraction(value) - sum(map(Fraction, values)) / len(values) for value in values] for values in (x, y))
    product = sum(map(operator.mul, a, b))
    square = product**2 / (sum(value * value for value in a) * sum(value * value for value in b))
    return math.sqrt(square) * (1 if product > 0 else -1)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 1 + 2**-52, 1 + 2**-51, 1 - 2**-53], [1, 2, 4, 3]),  # mean far above the spread
        ([1e4 + 2e-12, 1e4, 1e4 - 2e-12, 1e4 + 6e-12], [3, 1, 7, 2]),
        ([1.7e308, 1.6e308, 1.5e308, 1.7e308], [1, 2, 4, 3]),  # whose sum is beyond float64
        ([-1.7e308, 1.7e308, 1.5e308, -1.2e308], [1, 2, 4, 3]),
        ([5e-324, 1e-323, 2e-323, 1.5e-323], [1, 2, 4, 8]),  # subnormal
        ([1e-300, 2e-300, 4e-300], [1e300, 3e300, 2e300]),
        ([1e300, 1e-300, 3, 4], [1, 2, 4, 3]),
    ],
)
def test_huge_tiny_and_nearly_constant_values(x: list[float], y: list[float]) -> None:
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert pearson(x, y) == pytest.approx(exact_pearson(x, y), abs=1e-14)
        score = bootstrap_score("pearson", x, y, resamples=200)
    assert -1 <= score.low < score.high <= 1


def test_ranks_are_doubles_whatever_scipy_makes_of_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.random.default_rng(4).integers(0, 5, (2, 300))
    before = spearman(x, y), bootstrap_score("spearman", x, y)

    def ranks(values: Any, **options: Any) -> Any:  # as they seem to have been on a GPU's machine
        found = rankdata(values, **options)
        return found.astype(np.result_type(np.asarray(values).dtype, np.float16))

    monkeypatch.setattr("scipy.stats.rankdata", ranks)
    assert (spearman(x, y), bootstrap_score("spearman", x, y)) == before


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_degenerate_correlations_are_nan_without_a_warning(metric: str) -> None:
    with np.errstate(all="raise"):
        for x, y in [
            ([], []),
            ([1], [2]),
            ([1, 1, 1], [1, 2, 3]),
            ([0.1, 0.1, 0.1], [1, 2, 3]),  # whose mean is not quite 0.1
            ([1, 2, 3], [0, 0, 0]),
            ([1, math.nan], [1, 2]),
            ([1, 2], [1, math.inf]),
        ]:
            assert math.isnan(METRICS[metric](x, y))
            score = bootstrap_score(metric, x, y, resamples=10)
            assert math.isnan(score.value)
            assert math.isnan(score.low)
            assert math.isnan(score.high)
            assert score.n == len(x)
        # Half of the resamples of two rows hold one row twice: they are left out.
        assert bootstrap_score(metric, [0, 1], [0, 1], resamples=50).low == pytest.approx(1)
        bounds = [bootstrap_score(metric, [0, 1], [0, 1], seed=seed, resamples=1).low for seed in range(20)]
        assert {1.0} < {*bounds}  # the one resample counts, or is left out and no bound is known
        assert all(bound == 1 or math.isnan(bound) for bound in bounds)


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match=r"^predictions and labels must be of one length, got shapes \(2,\) and "):
        accuracy([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match=r"got shapes \(1, 1\) and \(1, 1\)$"):
        pearson([[1.0]], [[1.0]])  # type: ignore[list-item]
    with pytest.raises(InputError, match="one of accuracy, macro_f1, mcc, f1, pearson and 3 more, got 'f2'$"):
        bootstrap_score("f2", [1], [1])
    with pytest.raises(InputError, match="resamples must be at least 1, got 0$"):
        bootstrap_score("accuracy", [1], [1], resamples=0)


def naive(metric: str, x: np.ndarray, y: np.ndarray, resamples: int) -> tuple[float, float]:
    generator = np.random.default_rng(9)
    values = []
    for _ in range(resamples):
        rows = generator.integers(0, len(x), len(x))
        values.append(METRICS[metric](x[rows], y[rows]))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize(
    ("metric", "resamples", "near"),
    [
        ("accuracy", 1000, 0.01),
        ("macro_f1", 1000, 0.01),
        ("f1", 1000, 0.02),
        ("mcc", 1000, 0.01),
        ("mae", 1000, 0.03),
        ("pearson", 600, 0.025),
        ("spearman", 300, 0.03),
    ],
)
def test_interval_is_that_of_the_plain_bootstrap(metric: str, resamples: int, near: float) -> None:
    generator = np.random.default_rng(3)
    y = generator.integers(0, 5, 300)
    x = np.where(generator.random(300) < 0.6, y, generator.integers(0, 5, 300))
    score = bootstrap_score(metric, x, y, resamples=resamples)
    low, high = naive(metric, x, y, resamples)
    assert score.value == METRICS[metric](x, y)
    assert score.low < score.value < score.high
    assert score.low == pytest.approx(low, abs=near)
    assert score.high == pytest.approx(high, abs=near)
    assert score == bootstrap_score(metric, x, y, resamples=resamples)
    assert score != bootstrap_score(metric, x, y, seed=1, resamples=resamples)
    assert (score.n, score.metric) == (300, metric)


def test_a_class_that_a_resample_lacks_does_not_count_in_its_f1() -> None:
    y = np.array([0, 1] * 10 + [2])  # a third of the resamples lack class 2
    score = bootstrap_score("macro_f1", np.where(y == 2, 2, 0), y, resamples=2000)
    assert [score.low, score.high] == pytest.approx(naive("macro_f1", np.where(y == 2, 2, 0), y, 2000), abs=0.02)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_resamples_of_large_input_are_not_all_held_at_once(metric: str) -> None:
    x = np.linspace(0, 1, 30_000)
    y = np.round(x**2, 2)
    bootstrap_score(metric, x[:10], y[:10])  # imports scipy
    tracemalloc.start()
    try:
        score = bootstrap_score(metric, x, y, resamples=200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25e6  # 200 resamples of one side take 48 MB
    assert score.low == pytest.approx(score.value, abs=0.005)
    assert score.high - score.low < 0.005


def test_baselines() -> None:
    classes = Task(name="a", text=("t",), label="l", labels=("x", "y", "z"))
    score = baseline_score(classes, [2, 2, 1, 0], [2, 1, 2, 0])
    assert (score.value, score.n, score.metric) == (0.5, 4, "accuracy")
    # The majority is that of the training rows, whatever dev holds.
    assert baseline_score(classes, [1, 1, 0], [0, 0, 0]).value == 0.0
    number = Task(name="b", text=("t",), label="l", kind="regression")
    assert baseline_score(number, [1.0, 2.0], [3.0, 4.0]).value == 0.0
    with pytest.raises(InputError, match="must hold at least one label, got none$"):
        baseline_score(classes, [], [1])


def test_the_baseline_of_each_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    def classes(metric: str) -> Task:
        return Task(name="a", text=("t",), label="l", labels=("no", "yes"), metric=metric)

    train, dev = [0, 0, 1], [0, 1, 1, 0, 0]
    assert baseline_score(classes("mcc"), train, dev).value == 0
    assert baseline_score(classes("macro_f1"), train, dev).value == pytest.approx((6 / 8 + 0) / 2)  # all "no"
    assert baseline_score(classes("f1"), train, dev).value == pytest.approx(4 / 7)  # all "yes"
    assert baseline_score(classes("f1:no"), train, dev).value == pytest.approx(6 / 8)
    monkeypatch.setitem(METRICS._entries, "f1-own", accuracy)
    assert baseline_score(classes("f1-own"), train, dev).value == 3 / 5  # all "no"
    for metric in ("spearman", "pearson"):
        number = Task(name="b", text=("t",), label="l", kind="regression", metric=metric)
        score = baseline_score(number, [1.0, 2.0], [3.0, 4.0])
        assert (score.value, score.low, score.high, score.metric) == (0, 0, 0, metric)
    number = Task(name="b", text=("t",), label="l", kind="regression", metric="mae")
    assert baseline_score(number, [1.0, 2.0, 9.0], [3.0, 4.0]).value == 1.5  # from the median, 2
