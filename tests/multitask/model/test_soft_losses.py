"""The distance to a teacher's outputs, by hand, for every kind of task; and rows without a label."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from multitask.data.batches import Batch
from multitask.model.losses import task_loss
from multitask.settings.distillation import SoftTargets
from multitask.settings.kinds import Classification, kind_of
from multitask.settings.task import Task

LABELS: dict[str, Any] = {
    "classification": ("x", "y", "z"),
    "binary": ("0", "1"),
    "regression": (0.0, 5.0),
    "multilabel": ("x", "y", "z"),
}
WIDTH = {"classification": 3, "binary": 1, "regression": 1, "multilabel": 3}


def make_task(kind: str, **values: Any) -> Task:
    return Task(**{"name": "t", "text": ("a",), "label": "y", "kind": kind, "labels": LABELS[kind], **values})


def drawn(kind: str, rows: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, a teacher's outputs, labels."""
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = (3 * torch.randn(rows, WIDTH[kind], generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.arange(rows) % (2 if kind == "binary" else 3)
    if kind == "multilabel":
        labels = (outputs > targets).float()
    return outputs, targets, labels.float() if kind == "regression" else labels


def divergence(teacher: list[float], student: list[float]) -> float:
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def by_hand(kind: str, outputs: list[float], targets: list[float], temperature: float) -> float:
    if kind == "regression":
        return (outputs[0] - targets[0]) ** 2
    sides = []
    for logits in (targets, outputs):
        powers = [math.exp(logit / temperature) for logit in logits]
        if kind == "classification":
            sides.append([[power / sum(powers) for power in powers]])
        else:
            sides.append([[power / (1 + power), 1 / (1 + power)] for power in powers])
    teacher, student = sides
    return temperature**2 * sum(map(divergence, teacher, student)) / len(teacher)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("kind", LABELS)
def test_the_distance_by_hand(kind: str, temperature: float) -> None:
    """Hinton et al. 2015, section 2: T^2 * KL(teacher || student); of numbers the squared difference."""
    outputs, targets, _ = drawn(kind)
    found = make_task(kind).rules.soft_losses(outputs, targets, temperature)
    assert found.tolist() == pytest.approx(
        [by_hand(kind, *rows, temperature) for rows in zip(outputs.tolist(), targets.tolist(), strict=True)]
    )
    assert make_task(kind).rules.soft_losses(targets, targets, temperature).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", ["classification", "binary", "multilabel"])
def test_its_gradient_at_a_high_temperature_matches_logits(kind: str) -> None:
    """Hinton et al. 2015, section 2.1: the gradient tends to the difference of logits that have mean zero, over N."""
    outputs, targets, _ = drawn(kind)
    if kind == "classification":
        outputs, targets = (each - each.mean(1, keepdim=True) for each in (outputs, targets))
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(make_task(kind).rules.soft_losses(outputs, targets, 1e4).sum(), outputs)
    share = {"classification": 1 / 3, "binary": 1 / 4, "multilabel": 1 / 12}[kind]
    assert torch.allclose(gradient, share * (outputs - targets), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", LABELS)
def test_rounding_makes_no_distance_negative(kind: str) -> None:
    """FAMO takes the logarithm of losses."""
    generator = torch.Generator().manual_seed(0)
    targets = 3 * torch.randn(200, WIDTH[kind], generator=generator)
    outputs = targets + 1e-5 * torch.randn(targets.shape, generator=generator)
    assert make_task(kind).rules.soft_losses(outputs, targets, 100.0).min() >= 0


def test_logits_that_are_far_apart_stay_finite() -> None:
    for kind in ("classification", "binary", "multilabel"):
        outputs = torch.full((1, WIDTH[kind]), 500.0)
        outputs[0, 0] = -500.0
        outputs.requires_grad_()
        loss = make_task(kind).rules.soft_losses(outputs, -outputs.detach(), 1.0).sum()
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert bool(loss.isfinite())
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("kind", LABELS)
def test_a_rows_loss_is_both_and_without_a_label_the_distance_alone(kind: str) -> None:
    task, (outputs, targets, labels) = make_task(kind, loss_weight=2.0), drawn(kind)
    plain, distance = task.rules.row_losses(outputs, labels), task.rules.soft_losses(outputs, targets, 2.0)
    soft = SoftTargets(targets, 2.0, 0.75)
    expected = 2 * (0.75 * distance + 0.25 * plain).mean()
    assert torch.allclose(task_loss(task, outputs, labels, soft=soft), expected)
    labels[3:] = float("nan") if labels.is_floating_point() else -1
    plain[3:] = 0
    expected = 2 * (0.75 * distance + 0.25 * plain).mean()
    outputs.requires_grad_()
    loss = task_loss(task, outputs, labels, soft=soft)
    assert torch.allclose(loss, expected)
    assert bool(torch.autograd.grad(loss, outputs)[0].isfinite().all())
    # A process's shares of the batch add up to it.
    shares = [
        task_loss(task, outputs[rows], labels[rows], labels, SoftTargets(targets[rows], 2.0, 0.75))
        for rows in (slice(0, 4), slice(4, 6))
    ]
    assert torch.allclose(sum(shares, torch.zeros(())), loss)


def test_class_weights_are_of_rows_with_a_label() -> None:
    task, (outputs, targets, labels) = (
        make_task("classification", class_weights=(1.0, 5.0, 0.5)),
        drawn("classification"),
    )
    weights = torch.tensor([1.0, 5.0, 0.5, 1.0, 1.0, 1.0])  # labels 0, 1, 2, then none
    plain, distance = task.rules.row_losses(outputs, labels), task.rules.soft_losses(outputs, targets, 1.0)
    plain[3:], labels[3:] = 0, -1
    expected = (weights * (0.5 * distance + 0.5 * plain)).sum() / weights.sum()
    assert torch.allclose(task_loss(task, outputs, labels, soft=SoftTargets(targets, 1.0, 0.5)), expected)


def test_parts_of_a_batch_keep_their_rows_outputs(make_batch: Any, three_tasks: Any) -> None:
    batch = make_batch(three_tasks[0], 7)
    targets = torch.arange(35.0).view(7, 5)
    whole = Batch(batch.tokens, batch.labels, soft=SoftTargets(targets, 3.0, 0.5))
    parts = [part.soft for part in whole.to(torch.device("cpu")).parts(3)]
    assert torch.equal(torch.cat([part.outputs for part in parts if part is not None]), targets)
    assert {part[1:] for part in parts if part is not None} == {(3.0, 0.5)}
    assert [part.soft for part in batch.parts(3)] == [None] * 3


def test_a_kind_with_another_loss_needs_another_distance() -> None:
    class Own(Classification):
        def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return 2 * super().row_losses(outputs, labels)

    class Whole(Own):
        def soft_losses(self, outputs: Tensor, targets: Tensor, temperature: float) -> Tensor:
            return 2 * super().soft_losses(outputs, targets, temperature)

    assert all(kind_of("kind", kind).can_learn_outputs for kind in LABELS)
    assert not Own().can_learn_outputs
    assert Whole().can_learn_outputs
