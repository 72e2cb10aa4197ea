"""Moments that the tasks of an encoder share: it has one optimizer, which takes each task's step at the task's rate."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.model import BertModel
from multitask.errors import ConfigError
from multitask.model.model import MultitaskModel
from multitask.settings.choices import OPTIMIZERS
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]


def make_stepper(model: MultitaskModel, **settings: Any) -> Stepper:
    return Stepper(model, TrainConfig(moments="shared", **settings), np.random.default_rng(0))


def decays(name: str) -> bool:
    return not (name.endswith("bias") or "LayerNorm" in name)


def plain_adamw(module: nn.Module, wrt: Mapping[str, Any]) -> torch.optim.AdamW:
    """Build torch's own over a module, with a group for each parameter so that rates and decays can be set by name."""
    groups = [{"params": [p], "name": name, "decays": decays(name)} for name, p in module.named_parameters()]
    return torch.optim.AdamW(groups, **wrt)


def test_each_step_has_its_tasks_rates_and_the_moments_of_all(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks, gradients_of: Any
) -> None:
    """A loop by hand with torch's AdamW: one for the encoder, one for each decoder."""
    tasks = (dataclasses.replace(three_tasks[0], weight_decay=0.0, decoder_lr=5e-3), *three_tasks[1:])
    stepper, expected = make_stepper(make_model(tasks)), make_model(tasks)
    assert list(stepper.optimizers) == ["encoder shared", "sst", "para", "sts"]
    encoder = plain_adamw(expected.encoders["shared"], {"eps": 1e-6})
    decoders = {name: plain_adamw(expected.decoders[name], {"eps": 1e-6}) for name in expected.tasks}
    for seed in range(3):
        batches = make_batches(expected, seed)
        stepper.round(batches, 0.5)
        for name, batch in batches.items():
            task, gradients = expected.tasks[name], gradients_of(expected, {name: batch})
            for parameter in expected.parameters():
                parameter.grad = gradients.get(parameter)
            for optimizer, rate in ((encoder, task.lr), (decoders[name], task.decoder_lr or task.lr)):
                for group in optimizer.param_groups:
                    group |= {"lr": 0.5 * rate, "weight_decay": task.weight_decay if group["decays"] else 0.0}
                optimizer.step()
    for name, parameter in stepper.model.named_parameters():
        assert torch.allclose(parameter, expected.get_parameter(name), atol=1e-8), name
    assert {state["step"].item() for state in stepper.optimizers["encoder shared"].state.values()} == {9.0}
    assert {state["step"].item() for state in stepper.optimizers["sts"].state.values()} == {3.0}


def test_an_encoder_has_its_moments_once(make_model: Any, make_batches: Any, three_tasks: Tasks) -> None:
    counts = {}
    for moments in ("own", "shared"):
        stepper = Stepper(make_model(three_tasks), TrainConfig(moments=moments), np.random.default_rng(0))
        stepper.round(make_batches(stepper.model), 1.0)
        counts[moments] = sum(
            value.numel()
            for optimizer in stepper.optimizers.values()
            for state in optimizer.state.values()
            for key, value in state.items()
            if key != "step"
        )
    encoder = sum(parameter.numel() for parameter in stepper.model.encoders.parameters())
    assert counts["own"] - counts["shared"] == 2 * 2 * encoder  # two moments of two tasks


def rates_of_its_own(groups: list[dict[str, Any]], settings: TrainConfig) -> torch.optim.Optimizer:
    for group in groups:
        group["lr"] *= 5 if group["weight_decay"] else 3
        group["weight_decay"] *= 0.5
    return torch.optim.AdamW(groups)


@pytest.mark.parametrize("optimizer", ["adamw", "own rates"])
def test_encoders_of_their_own_are_trained_as_ever(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any, optimizer: str
) -> None:
    registered(OPTIMIZERS, "own rates", rates_of_its_own)
    tasks = tuple(dataclasses.replace(task, encoder=task.name) for task in three_tasks)
    trained: list[dict[str, Tensor]] = []
    for moments in ("own", "shared"):
        settings = TrainConfig(moments=moments, optimizer=optimizer)
        stepper = Stepper(make_model(tasks), settings, np.random.default_rng(0))
        for seed in range(3):
            stepper.round(make_batches(stepper.model, seed), 1.0)
        trained.append(dict(stepper.model.state_dict()))
    assert list(stepper.optimizers)[:3] == ["encoder sst", "encoder para", "encoder sts"]
    for name, tensor in trained[0].items():
        # Three and more factors of a rate may round differently.
        assert torch.allclose(tensor, trained[1][name], rtol=0, atol=0 if optimizer == "adamw" else 1e-8), name


@pytest.mark.parametrize("update", ["combined", "pcgrad"])
def test_one_step_for_all_has_one_optimizer_as_it_is(make_model: Any, three_tasks: Tasks, update: str) -> None:
    tasks = tuple(dataclasses.replace(task, lr=1e-3, weight_decay=0.1) for task in three_tasks)
    assert list(make_stepper(make_model(tasks), update=update).optimizers) == ["all"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "torch-adamw"])
def test_what_has_no_weights_to_train_has_no_optimizer(make_batches: Any, three_tasks: Tasks, optimizer: str) -> None:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    cosine = dataclasses.replace(three_tasks[2], head="cosine", input="separate", pooling="mean")

    def build(tasks: Tasks) -> MultitaskModel:
        encoder = BertModel(BertConfig(**sizes, intermediate_size=8, max_position_embeddings=16))
        return MultitaskModel({"shared": encoder}, tasks)

    stepper = make_stepper(build((three_tasks[0], cosine)), optimizer=optimizer)
    assert list(stepper.optimizers) == ["encoder shared", "sst"]
    stepper.round(make_batches(stepper.model), 1.0)
    frozen = build((three_tasks[0],))
    frozen.encoders.requires_grad_(False)
    assert list(make_stepper(frozen, optimizer=optimizer).optimizers) == ["sst"]
    frozen = build((cosine,))
    frozen.encoders.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"task sts has nothing to train: encoder\.freeze is true"):
        make_stepper(frozen, optimizer=optimizer)
