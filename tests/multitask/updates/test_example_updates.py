"""CAGrad and DWA of examples/plugins, uncertainty weighting and FAMO, against what their papers write."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.errors import RunError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates.famo import Famo
from multitask.updates.gradients import TaskGradients
from multitask.updates.stepper import OWN, Stepper

Tasks = tuple[Task, ...]
pytestmark = pytest.mark.usefixtures("example_updates")


def stepper_of(name: str, model: MultitaskModel) -> Stepper:
    stepper = Stepper(model, TrainConfig(update=name), np.random.default_rng(0))
    stepper.update.double()
    return stepper


def same_rates(tasks: Sequence[Task]) -> Tasks:
    return tuple(replace(task, lr=2e-3, weight_decay=0.1) for task in tasks)


def losses_of(model: MultitaskModel, batches: Any) -> Tensor:
    """(tasks,), with the graph of all of them."""
    return torch.stack(
        [task_loss(model.tasks[name], model(name, batch.tokens), batch.labels) for name, batch in batches.items()]
    )


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_cagrad_finds_the_direction_that_helps_the_worst_task_most(tasks: int, scale: float) -> None:
    """Liu et al. 2021, equation 3: the largest min_i <g_i, d> over all d within c |g_0| of the mean gradient g_0."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        vectors = scale * torch.randn(tasks, 4, generator=generator, dtype=torch.float64)
        weights = UPDATES["cagrad"](vectors @ vectors.T, np.random.default_rng(0))
        mean = vectors.mean(0)
        found = (1 + 0.4**2) / tasks * weights @ vectors  # before it is scaled
        radius = 0.4 * mean.norm()
        assert (found - mean).norm().item() == pytest.approx(radius.item(), rel=1e-5)
        others = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
        others = mean + radius * others / others.norm(dim=1, keepdim=True)
        assert (vectors @ found).min() >= (vectors @ others.T).amin(0).max() - 1e-3 * radius * scale


def test_a_single_task_is_stepped_along_its_gradient() -> None:
    weights = UPDATES["cagrad"](torch.tensor([[4.0]], dtype=torch.float64), np.random.default_rng(0))
    assert weights.tolist() == pytest.approx([1.4 / 1.16])
    zeros = UPDATES["cagrad"](torch.zeros(3, 3, dtype=torch.float64), np.random.default_rng(0))
    assert bool(zeros.isfinite().all())


def test_uncertainty_weighting_is_one_gradient_of_equation_7(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks, monkeypatch: pytest.MonkeyPatch, spy: Any
) -> None:
    """The model's gradients and those of the log variances, by one autograd pass over the whole objective."""
    model = make_model(same_rates(three_tasks))
    stepper = stepper_of("uncertainty", model)
    logs = stepper.update.log_variances
    with torch.no_grad():
        for value, log in zip((0.5, -1.0, 2.0), logs, strict=True):
            log.fill_(value)
    names = {parameter: name for name, parameter in model.named_parameters()}
    steps = spy(stepper, monkeypatch)
    for seed in range(3):
        batches = make_batches(model, seed)
        variances = torch.stack([log.detach() for log in logs]).requires_grad_()
        objective = ((-variances).exp() * losses_of(model, batches) + variances).sum() / 2
        parameters = list(model.parameters())
        *expected, own = torch.autograd.grad(objective, [*parameters, variances], allow_unused=True)
        records = stepper.round(batches, 1.0)
        (who, seen), (own_who, own_seen) = steps
        steps.clear()
        assert (who, own_who) == ("all", OWN)
        for parameter, gradient in zip(parameters, expected, strict=True):
            if gradient is None:
                assert names[parameter] not in seen
            else:
                assert torch.allclose(seen[names[parameter]], gradient, rtol=1e-8, atol=1e-11), names[parameter]
        found = torch.stack([own_seen[f"log_variances.{number}"] for number in range(3)])
        assert torch.allclose(found, own, rtol=1e-9)
        assert all(record.loss > 0 for record in records.values())
    assert {round(state["step"].item()) for state in stepper.optimizers[OWN].state.values()} == {3}


def test_famo_is_its_authors_loop(kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks) -> None:
    """Liu et al. 2023, algorithm 1, as their code writes it: the whole graph of all losses, Adam on the logits."""
    tasks = same_rates(three_tasks)
    stepper, expected = stepper_of("famo", make_model(tasks)), make_model(tasks)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    of_logits = torch.optim.Adam([logits], lr=0.025, eps=1e-6)
    plain = Stepper(expected, TrainConfig(update="combined"), np.random.default_rng(0)).optimizers["all"]
    for seed in range(4):
        batches = make_batches(expected, seed)
        losses = losses_of(expected, batches)
        weights = logits.softmax(0).detach()
        scaled = (weights / (losses + 1e-8)).sum().detach()
        plain.zero_grad()
        ((losses + 1e-8).log() * weights / scaled).sum().backward()
        plain.step()
        with torch.no_grad():
            delta = (losses + 1e-8).log() - (losses_of(expected, batches) + 1e-8).log()
        (logits.grad,) = torch.autograd.grad(logits.softmax(0), logits, grad_outputs=delta.detach())
        of_logits.step()
        stepper.round(batches, 1.0)
    assert torch.allclose(stepper.update.logits, logits, rtol=0, atol=1e-6)
    assert logits.detach().abs().max() > 0.02
    for name, parameter in stepper.model.named_parameters():
        assert torch.allclose(parameter, expected.get_parameter(name), atol=1e-7), name


def test_famo_refuses_losses_below_zero() -> None:
    """They have no logarithm, but its derivative is a number, so that the step would be taken."""
    update = Famo(("a", "b"), np.random.default_rng(0))
    message = r"^the loss of task b must be at least 0 for train.update 'famo', got -0.5$"
    with pytest.raises(RunError, match=message):
        update.objective({name: torch.tensor(loss, requires_grad=True) for name, loss in (("a", 1.0), ("b", -0.5))})
    with pytest.raises(RunError, match=message):
        update.after_step({"a": 1.0, "b": 0.5}, lambda: {"a": 1.0, "b": -0.5})


def test_cagrad_takes_at_most_forty_lines(root: Path) -> None:
    assert len((root / "examples" / "plugins" / "cagrad.py").read_text(encoding="utf-8").splitlines()) <= 40


def test_dwa_weighs_by_how_slowly_losses_fell(
    make_model: Any, make_batches: Any, three_tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Liu et al. 2019, equation 7, on the losses as they were recorded: epochs of two rounds."""
    stepper = stepper_of("dwa", make_model(same_rates(three_tasks)))
    put, weights = TaskGradients.put, []
    monkeypatch.setattr(
        TaskGradients, "put", lambda self, rows, w, decoders: (weights.append(w), put(self, rows, w, decoders=decoders))
    )
    means = []
    for epoch in range(5):
        records = [stepper.round(make_batches(stepper.model, seed), 1.0, epoch) for seed in range(2)]
        means.append(torch.tensor([sum(each[name].loss for each in records) / 2 for name in stepper.model.tasks]))
        expected = torch.ones(3) if epoch < 2 else 3 * (means[epoch - 1] / means[epoch - 2] / 2.0).softmax(0)
        for found in weights[-2:]:
            assert torch.allclose(found, expected.double(), atol=1e-5)
    assert not torch.allclose(weights[-1], torch.ones(3).double(), atol=1e-3)


@pytest.mark.parametrize("update", ["cagrad", "dwa", "famo", "uncertainty"])
def test_tasks_may_be_called_as_torchs_containers_call_their_methods(
    make_model: Any, make_batches: Any, three_tasks: Tasks, update: str
) -> None:
    names = ("get", "copy", "setdefault")
    tasks = [replace(task, name=name) for task, name in zip(same_rates(three_tasks), names, strict=True)]
    model = make_model(tasks)
    assert tuple(stepper_of(update, model).round(make_batches(model), 1.0)) == names
