"""Word embeddings whose gradient is not the embedding's alone: an update trains as on the reference path."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import minbert
from minbert.fast.embedding import SpareGradients
from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates import stepper
from multitask.updates.stepper import Stepper


def a_new_tensor(weight: nn.Parameter, patch: pytest.MonkeyPatch) -> None:
    weight.register_hook(lambda gradient: gradient + 0.01 * weight.detach())


def in_place(weight: nn.Parameter, patch: pytest.MonkeyPatch) -> None:
    def add(gradient: Tensor) -> None:
        gradient.add_(weight.detach(), alpha=0.01)

    weight.register_hook(add)


def after_accumulation(weight: nn.Parameter, patch: pytest.MonkeyPatch) -> None:
    def add(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.add_(parameter.detach(), alpha=0.01)

    weight.register_post_accumulate_grad_hook(add)


def in_the_loss(weight: nn.Parameter, patch: pytest.MonkeyPatch) -> None:
    plain = stepper.task_loss
    patch.setattr(stepper, "task_loss", lambda *arguments: plain(*arguments) + 0.005 * weight.square().sum())


def nothing(weight: nn.Parameter, patch: pytest.MonkeyPatch) -> None:
    """The plain case, which is the one that gets its memory back."""


WRITERS = [nothing, a_new_tensor, in_place, after_accumulation, in_the_loss]


@pytest.mark.parametrize("kind", list(UPDATES))
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_whatever_writes_to_the_gradient_trains_as_on_the_reference_path(
    make_model: Any,
    make_batches: Any,
    three_tasks: tuple[Task, ...],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    write: Callable[[nn.Parameter, pytest.MonkeyPatch], None],
) -> None:
    """Batches draw from half of the vocabulary: what is left in a row of the other half is never overwritten."""
    tasks = [dataclasses.replace(task, lr=1e-2, weight_decay=0.1) for task in three_tasks]
    taken: list[bool] = []
    take = SpareGradients.take

    def watched(self: SpareGradients, weight: Tensor) -> Tensor:
        taken.append(weight in self._spare)
        gradient = take(self, weight)
        assert not gradient.any()
        return gradient

    monkeypatch.setattr(SpareGradients, "take", watched)
    found = {}
    for path in ("reference", "fast"):
        model = make_model(tasks, vocab_size=80)
        with monkeypatch.context() as patch, minbert.kernels(path):
            write(model.encoder_of("sst").embeddings.word_embeddings.weight, patch)
            update = Stepper(model, TrainConfig(update=kind), np.random.default_rng(0))
            update.update.double()  # its own parameters, too
            for seed in range(5):
                update.round(make_batches(model, seed), 1.0)
        moments = {
            f"{name} {index} {key}": value
            for name, optimizer in update.optimizers.items()
            for index, entry in optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        found[path] = {**model.state_dict(), **moments}
    assert found["fast"].keys() == found["reference"].keys()
    for name, expected in found["reference"].items():
        assert torch.allclose(found["fast"][name], expected, rtol=0, atol=1e-9), name
    assert len(taken) == 5 * 3  # of the fast path alone
    if write is nothing:
        assert any(taken)
