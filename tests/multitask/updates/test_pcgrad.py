"""Gradient surgery: the projection, and that it meets the encoder's gradients alone."""

import math
from collections.abc import Sequence
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


def pcgrad_by_hand(gradients: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
    """Yu et al. 2020, algorithm 1, as printed, on whole gradient vectors; ``rng`` draws each task's order."""
    projected = []
    for i, gradient in enumerate(gradients):
        current = gradient.clone()
        others = [j for j in range(len(gradients)) if j != i]
        for j in rng.permutation(others).tolist():
            inner = torch.dot(current, gradients[j])
            if inner < 0:
                current = current - inner / torch.dot(gradients[j], gradients[j]) * gradients[j]
        projected.append(current)
    return torch.stack(projected).sum(0)


@pytest.mark.parametrize("tasks", [1, 2, 3, 5])
def test_projection_is_algorithm_1_of_yu(tasks: int) -> None:
    conflicts = orders = 0
    for seed in range(40):
        vectors = torch.randn(tasks, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = pcgrad(vectors @ vectors.T, np.random.default_rng(seed)) @ vectors
        assert torch.allclose(found, pcgrad_by_hand(list(vectors), np.random.default_rng(seed)), atol=1e-12)
        conflicts += not torch.allclose(found, vectors.sum(0))
        orders += not torch.allclose(found, pcgrad_by_hand(list(vectors), np.random.default_rng(seed + 1)))
    assert conflicts > 10 or tasks == 1
    assert orders > 5 or tasks < 3  # the passed generator's order matters


def test_a_zero_gradient_has_no_direction_to_project_on() -> None:
    gram = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    assert pcgrad(gram, np.random.default_rng(0)).tolist() == [1.0, 1.0]


def test_pcgrad_projects_the_encoders_gradients_and_no_decoders(
    kernels: str,
    make_model: Any,
    make_batches: Any,
    three_tasks: tuple[Task, ...],
    monkeypatch: pytest.MonkeyPatch,
    spy: Any,
    gradients_of: Any,
) -> None:
    model = make_model([replace(task, lr=2e-3, weight_decay=0.1) for task in three_tasks])
    update = Stepper(model, TrainConfig(update="pcgrad"), np.random.default_rng(9))
    rng = np.random.default_rng(9)
    encoder = list(model.encoder_of("sst").named_parameters())
    steps, conflicts = spy(update, monkeypatch), 0
    for seed in range(4):
        batches = make_batches(model, seed)
        own = {name: gradients_of(model, {name: batch}) for name, batch in batches.items()}
        vectors = [torch.cat([own[name][p].flatten() for _, p in encoder]) for name in model.tasks]
        expected = pcgrad_by_hand(vectors, rng)
        conflicts += not torch.allclose(expected, torch.stack(vectors).sum(0))
        records = update.round(batches, 1.0)
        assert [owner for owner, _ in steps] == ["all"]
        _, seen = steps.pop()
        found = torch.cat([seen[f"encoders.shared.{name}"].flatten() for name, _ in encoder])
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9)
        for name in model.tasks:
            for parameter_name, parameter in model.decoders[name].named_parameters():
                # The step has moved the parameter, not the gradient that was taken before it.
                assert torch.allclose(seen[f"decoders.{name}.{parameter_name}"], own[name][parameter], atol=1e-10)
            norm = math.sqrt(sum(g.square().sum().item() for g in own[name].values()))
            assert records[name].grad_norm == pytest.approx(norm)
    assert conflicts
