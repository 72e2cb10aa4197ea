"""UPGrad: values worked out by hand, the projection by its optimality conditions, and what the paper promises of it."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates.pcgrad import pcgrad
from multitask.updates.stepper import Stepper
from multitask.updates.upgrad import upgrad


def weights_of(rows: Tensor) -> Tensor:
    return upgrad(rows @ rows.T, np.random.default_rng(0))


def drawn(tasks: int, seed: int, size: int = 4) -> Tensor:
    """Gradients whose lengths differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    return rows * 10 ** (2 * torch.randn(tasks, 1, generator=generator, dtype=torch.float64)).clamp(1e-3, 1e3)


def projected_by_hand(rows: Tensor, own: int) -> Tensor:
    """Gradient ``own`` plus the multiples x >= 0 of all that make it optimal: the one set of x > 0 that fits."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    for free in itertools.product([False, True], repeat=len(rows)):
        some, more = unit[list(free)], torch.zeros(len(rows), dtype=rows.dtype)
        if len(some):
            more[list(free)] = torch.linalg.lstsq(some @ some.T, -some @ rows[own], driver="gelsd").solution
        found = rows[own] + more @ unit
        if more.min() >= -1e-9 and (unit @ found).min() >= -1e-9 * rows[own].norm():
            return found
    raise AssertionError("some set fits")


def test_three_gradients_worked_out_by_hand() -> None:
    """No task is harmed by (x, y, z) with 0 <= x <= y <= z, so projections are averages of neighbours.

    (1, 0, 0) becomes (1/3, 1/3, 1/3), (-1, 1, 0) becomes (0, 1/2, 1/2), (0, -1, 1) becomes (0, 0, 1).
    """
    rows = torch.tensor([[1.0, 0, 0], [-1, 1, 0], [0, -1, 1]], dtype=torch.float64)
    weights = weights_of(rows)
    assert weights.tolist() == pytest.approx([1, 8 / 9, 11 / 18], abs=1e-5)
    assert (weights @ rows).tolist() == pytest.approx([1 / 9, 5 / 18, 11 / 18], abs=1e-5)


@pytest.mark.parametrize("cosine", [-0.999, -0.6, -0.1, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("longer", [1.0, 1e-3, 1e3])
def test_of_two_gradients_each_loses_what_opposes_the_other(cosine: float, longer: float) -> None:
    gram = torch.tensor([[1.0, cosine * longer], [cosine * longer, longer**2]], dtype=torch.float64)
    off = max(0.0, -cosine)
    expected = [(1 + off * longer) / 2, (1 + off / longer) / 2]
    assert upgrad(gram, np.random.default_rng(0)).tolist() == pytest.approx(expected, rel=1e-5)
    assert pcgrad(gram, np.random.default_rng(0)).tolist() == pytest.approx([2 * each for each in expected])


@pytest.mark.parametrize("tasks", [3, 4, 6])
def test_it_is_the_mean_of_the_projections(tasks: int) -> None:
    for seed in range(30):
        rows = drawn(tasks, seed)
        expected = torch.stack([projected_by_hand(rows, own) for own in range(tasks)]).mean(0)
        assert (weights_of(rows) @ rows - expected).norm() <= 1e-4 * rows.norm(dim=1).max()


@pytest.mark.parametrize("tasks", [2, 3, 5, 8])
def test_no_task_is_harmed_in_any_order_or_scale(tasks: int) -> None:
    """Quinton and Rey 2024, definitions 1 to 3: non-conflicting, and linear under scaling; and no task comes first."""
    conflicts = 0
    for seed in range(40):
        rows = drawn(tasks, seed)
        weights = weights_of(rows)
        step, lengths = weights @ rows, rows.norm(dim=1)
        assert (rows @ step / lengths).min() >= -1e-5 * lengths.max()
        conflicts += bool((rows @ rows.mean(0)).min() < 0)
        order = torch.randperm(tasks, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(weights_of(rows[order]) @ rows[order], step, rtol=1e-5, atol=1e-9 * lengths.max())
        assert torch.allclose(weights_of(1e-4 * rows), weights, rtol=1e-6)
        one, two = 10 ** (4 * torch.rand(2, tasks, 1, generator=torch.Generator().manual_seed(seed)).double() - 2)
        first, second, both = (weights_of(scales * rows) @ (scales * rows) for scales in (one, two, one + two))
        assert torch.allclose(first + second, both, rtol=1e-5, atol=1e-6 * both.norm())
    assert conflicts > 10


def test_without_conflict_it_is_the_mean() -> None:
    for seed in range(20):
        rows = drawn(4, seed).abs()
        assert torch.allclose(weights_of(rows), torch.full((4,), 0.25, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize(
    ("rows", "step"),
    [
        ([[3.0, 4.0]], [3.0, 4.0]),
        ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]),
        ([[0.0, 0.0], [2.0, 4.0]], [1.0, 2.0]),  # a gradient of zero
        ([[2.0, 4.0], [2.0, 4.0], [-1.0, 2.0]], [1.0, 10 / 3]),  # equal ones
        ([[1.0, 2.0], [-1.0, -2.0]], [0.0, 0.0]),  # opposite ones leave no direction
        ([[1.0, 2.0], [-10.0, -20.0], [2.0, -1.0]], [2 / 3, -1 / 3]),
        ([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], [0.0, 0.0]),  # nor do these
    ],
)
def test_gradients_that_depend_on_each_other(rows: list[list[float]], step: list[float]) -> None:
    for kind in (torch.float64, torch.float32):  # a model's gradients: the Gram matrix has rounding errors
        table = torch.tensor(rows, dtype=kind)
        found = upgrad((table @ table.T).double(), np.random.default_rng(0)) @ table.double()
        assert found.tolist() == pytest.approx(step, abs=1e-4)


def test_a_gram_matrix_that_overflowed_gives_no_weights() -> None:
    gram = torch.tensor([[float("inf"), 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert bool(upgrad(gram, np.random.default_rng(0)).isnan().all())


def test_the_encoder_steps_where_no_tasks_loss_rises(
    make_model: Any,
    make_batches: Any,
    three_tasks: tuple[Task, ...],
    monkeypatch: pytest.MonkeyPatch,
    spy: Any,
    gradients_of: Any,
) -> None:
    model = make_model([replace(task, lr=2e-3, weight_decay=0.1) for task in three_tasks])
    stepper = Stepper(model, TrainConfig(update="upgrad"), np.random.default_rng(0))
    encoder = list(model.encoder_of("sst").named_parameters())
    steps, conflicts = spy(stepper, monkeypatch), 0
    for seed in range(4):
        batches = make_batches(model, seed)
        own = {name: gradients_of(model, {name: batch}) for name, batch in batches.items()}
        rows = torch.stack([torch.cat([own[name][p].flatten() for _, p in encoder]) for name in model.tasks])
        stepper.round(batches, 1.0)
        _, seen = steps.pop()
        step = torch.cat([seen[f"encoders.shared.{name}"].flatten() for name, _ in encoder])
        assert (rows @ step / rows.norm(dim=1)).min() >= -1e-5 * rows.norm(dim=1).max()
        conflicts += bool((rows @ rows.T).min() < 0)
        for name in model.tasks:
            for parameter_name, parameter in model.decoders[name].named_parameters():
                assert torch.allclose(seen[f"decoders.{name}.{parameter_name}"], own[name][parameter], atol=1e-10)
    assert conflicts
