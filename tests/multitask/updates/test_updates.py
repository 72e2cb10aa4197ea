"""Updates against loops written out with torch's AdamW, in float64: whose parameters move, and on which gradient."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multitask.errors import ConfigError, RunError
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]
NAMES = ("sst", "para", "sts")


def make_update(kind: str, model: MultitaskModel, seed: int = 5, **settings: Any) -> Stepper:
    return Stepper(model, TrainConfig(update=kind, **settings), np.random.default_rng(seed))


def same_rates(tasks: Sequence[Task], **values: Any) -> Tasks:
    return tuple(dataclasses.replace(task, lr=2e-3, weight_decay=0.1, **values) for task in tasks)


def torch_adamw(modules: Sequence[nn.Module], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Build torch's own, in which biases and norms do not decay; told by name, as BERT's released code does."""
    named = [pair for module in modules for pair in module.named_parameters()]
    still = [parameter for name, parameter in named if name.endswith("bias") or "LayerNorm" in name]
    rest = [parameter for name, parameter in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": rest, "weight_decay": weight_decay}, {"params": still, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, eps=1e-6)


def snapshot(update: Stepper) -> dict[str, Tensor]:
    """Copies of every parameter, moment and step count, by name."""
    model, kept = update.model, {}
    names = {p: name for part in (model, update.update) for name, p in part.named_parameters()}
    kept.update({name: parameter.detach().clone() for parameter, name in names.items()})
    for owner, optimizer in update.optimizers.items():
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                kept[f"{owner}: {names[parameter]}: {key}"] = value.clone()
    return kept


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Names of what is no longer there bit for bit, or is new."""
    return {name for name in after if name not in before or not torch.equal(before[name], after[name])}


# Separate


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_the_other_decoders_and_moments_bit_identical(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks, name: str
) -> None:
    update = make_update("separate", make_model(three_tasks))
    for seed in range(2):
        update.round(make_batches(update.model, seed), 1.0)
    before = snapshot(update)
    assert sum(key.endswith("exp_avg") for key in before) > 100  # moments that would move parameters are there
    update.round({name: make_batches(update.model, 3)[name]}, 1.0)
    for key in moved(before, snapshot(update)):
        owner, _, parameter = key.partition(": ") if ": " in key else (name, "", key)
        assert owner == name
        assert parameter.startswith(("encoders.shared.", f"decoders.{name}."))
    steps = {key: value.item() for key, value in snapshot(update).items() if key.endswith("step")}
    assert {key.split(":")[0]: value for key, value in steps.items()} == {n: 2.0 + (n == name) for n in NAMES}


def test_an_optimizer_covers_its_encoder_and_decoder_alone(make_model: Any, three_tasks: Tasks) -> None:
    tasks = (dataclasses.replace(three_tasks[0], encoder="own"), *three_tasks[1:])
    update = make_update("separate", make_model(tasks))
    model = update.model
    assert list(update.optimizers) == list(NAMES)
    for name, optimizer in update.optimizers.items():
        covered = {p for group in optimizer.param_groups for p in group["params"]}
        assert covered == {*model.encoder_of(name).parameters(), *model.decoders[name].parameters()}


def test_what_a_task_does_not_use_is_none_and_not_zero(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks
) -> None:
    """Mean pooling reads no pooler: with a gradient of zero its task would still decay the shared one."""
    tasks = (three_tasks[0], dataclasses.replace(three_tasks[1], pooling="mean"), three_tasks[2])
    update = make_update("separate", make_model(tasks))
    for seed in range(2):
        update.round(make_batches(update.model, seed), 1.0)
        assert all(parameter.grad is None for parameter in update.model.parameters())
    pooler = update.model.encoder_of("para").pooler
    assert pooler is not None
    assert pooler.weight in update.optimizers["sst"].state
    assert pooler.weight not in update.optimizers["para"].state
    before = snapshot(update)
    update.round({"para": make_batches(update.model, 3)["para"]}, 1.0)
    assert not any("pooler" in name for name in moved(before, snapshot(update)))
    # And where the task comes after one that used it, in the same round:
    steps = {p: state["step"].item() for p, state in update.optimizers["para"].state.items()}
    update.round(make_batches(update.model, 4), 1.0)
    assert pooler.weight not in update.optimizers["para"].state
    assert all(update.optimizers["para"].state[p]["step"].item() == n + 1 for p, n in steps.items())


@pytest.mark.parametrize("kind", ["combined", "pcgrad"])
def test_with_one_optimizer_a_task_that_has_no_batch_stays(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str
) -> None:
    """The trap itself: this optimizer covers every decoder, and only None keeps the others bit-identical."""
    update = make_update(kind, make_model(same_rates(three_tasks)))
    for seed in range(2):
        update.round(make_batches(update.model, seed), 1.0)
    before = snapshot(update)
    update.round({"sts": make_batches(update.model, 3)["sts"]}, 1.0)
    changed = moved(before, snapshot(update))
    assert any("decoders.sts" in name for name in changed)
    assert not any("decoders.sst" in name or "decoders.para" in name for name in changed)


def test_separate_rounds_equal_single_task_steps(
    kernels: str,
    make_model: Any,
    make_batches: Any,
    three_tasks: Tasks,
    monkeypatch: pytest.MonkeyPatch,
    spy: Any,
    gradients_of: Any,
) -> None:
    """Each task's step: the gradient of its loss alone, at what the tasks before it left, by torch's AdamW."""
    update, expected = make_update("separate", make_model(three_tasks)), make_model(three_tasks)
    names = {parameter: name for name, parameter in expected.named_parameters()}
    optimizers = {}
    for name, task in expected.tasks.items():
        mine = [expected.encoder_of(name), expected.decoders[name]]
        optimizers[name] = torch_adamw(mine, task.lr, task.weight_decay)
    steps = spy(update, monkeypatch)
    for seed in range(3):
        batches = make_batches(expected, seed)
        records = update.round(batches, 0.5)
        assert list(records) == list(NAMES)
        for name, batch in batches.items():
            loss = task_loss(expected.tasks[name], expected(name, batch.tokens), batch.labels).item()
            gradients = gradients_of(expected, {name: batch})
            who, seen = steps.pop(0)
            assert who == name
            assert set(seen) == {names[p] for p in gradients}
            for parameter, gradient in gradients.items():
                assert torch.allclose(seen[names[parameter]], gradient, rtol=1e-6, atol=1e-10)
            for parameter in expected.parameters():
                parameter.grad = gradients.get(parameter)
            for group in optimizers[name].param_groups:
                group["lr"] = 0.5 * expected.tasks[name].lr
            optimizers[name].step()
            norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
            record = records[name]
            assert record.rows == len(batch.labels)
            assert record.lr == 0.5 * expected.tasks[name].lr
            assert (record.loss, record.grad_norm) == (pytest.approx(loss), pytest.approx(norm))
    for name, parameter in update.model.named_parameters():
        assert torch.allclose(parameter, expected.get_parameter(name), atol=1e-8), name


def test_decoders_may_have_a_rate_of_their_own(make_model: Any, make_batches: Any, three_tasks: Tasks) -> None:
    for kind, tasks in (("separate", three_tasks), ("combined", same_rates(three_tasks))):
        update = make_update(kind, make_model((*tasks[:2], dataclasses.replace(tasks[2], decoder_lr=0.5))))
        update.round(make_batches(update.model), 0.25)
        rates = {
            parameter: group["lr"]
            for optimizer in (update.optimizers.get("sts") or update.optimizers["all"],)
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        assert {rates[p] for p in update.model.decoders["sts"].parameters()} == {0.125}
        assert {rates[p] for p in update.model.encoder_of("sts").parameters()} == {0.25 * 2e-3}


# Combined


def test_combined_is_one_step_on_the_summed_loss(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks, gradients_of: Any
) -> None:
    tasks = same_rates(three_tasks)
    tasks = (dataclasses.replace(tasks[0], loss_weight=0.3), *tasks[1:])
    update, expected = make_update("combined", make_model(tasks)), make_model(tasks)
    assert list(update.optimizers) == ["all"]
    optimizer = torch_adamw([expected], 2e-3, 0.1)
    for seed in range(3):
        batches = make_batches(expected, seed)
        gradients = gradients_of(expected, batches)
        for parameter in expected.parameters():
            parameter.grad = gradients.get(parameter)
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
        optimizer.step()
        records = update.round(batches, 1.0)
        assert [record.grad_norm for record in records.values()] == pytest.approx([norm] * 3)
    for name, parameter in update.model.named_parameters():
        assert torch.allclose(parameter, expected.get_parameter(name), atol=1e-8), name
    assert {state["step"].item() for state in update.optimizers["all"].state.values()} == {3.0}


@pytest.mark.parametrize("kind", ["combined", "pcgrad"])
@pytest.mark.parametrize("change", [{"lr": 1e-5}, {"weight_decay": 0.5}])
def test_one_step_needs_rates_that_agree(
    make_model: Any, three_tasks: Tasks, kind: str, change: dict[str, float]
) -> None:
    tasks = same_rates(three_tasks)
    model = make_model((dataclasses.replace(tasks[0], **change), *tasks[1:]))
    expected = r"^lr / weight_decay must be equal for all tasks of one encoder, .*, got sst .*, para .*, sts .*;"
    with pytest.raises(ConfigError, match=expected):
        make_update(kind, model)
    apart = (dataclasses.replace(tasks[0], encoder="own", **change), *tasks[1:])
    make_update(kind, make_model(apart))


# What all have in common


@pytest.mark.parametrize("kind", list(UPDATES))
def test_a_frozen_encoder_stays(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str
) -> None:
    model = make_model(same_rates(three_tasks))
    model.encoder_of("sst").requires_grad_(False)
    update = make_update(kind, model)
    before = snapshot(update)
    records = update.round(make_batches(model), 1.0)
    changed = moved(before, snapshot(update))
    assert not any("encoders." in name for name in changed)
    assert all(any(f"decoders.{name}" in key for key in changed) for name in NAMES)
    assert all(record.grad_norm > 0 for record in records.values())


@pytest.mark.parametrize("kind", list(UPDATES))
def test_clip(
    make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str, monkeypatch: pytest.MonkeyPatch, spy: Any
) -> None:
    model = make_model(same_rates(three_tasks))
    batches = make_batches(model)
    seen = {}
    for clip in (None, 0.01, 1e6):
        update = make_update(kind, make_model(same_rates(three_tasks)), clip=clip)
        with monkeypatch.context() as patch:
            steps = spy(update, patch)
            records = update.round(batches, 1.0)
        owner, gradients = steps[0]
        seen[clip] = torch.cat([gradients[name].flatten() for name in sorted(gradients)])
        assert records["sst"].grad_norm > 0.1  # as it was before clipping
    assert seen[0.01].norm().item() == pytest.approx(0.01)
    assert torch.allclose(seen[0.01], seen[None] * (0.01 / seen[None].norm()), rtol=1e-9)
    assert torch.equal(seen[1e6], seen[None])


@pytest.mark.parametrize("kind", list(UPDATES))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_task(
    make_model: Any, make_batches: Any, three_tasks: Tasks, kind: str, value: float
) -> None:
    update = make_update(kind, make_model(same_rates(three_tasks)))
    batches = make_batches(update.model)
    with torch.no_grad():
        update.model.decoders["para"].head.linear.bias.fill_(value)
    with pytest.raises(
        RunError, match=r"^task para: the loss is (nan|inf); lower its lr \(0\.002\) or set train\.clip"
    ):
        update.round(batches, 1.0)


def test_order_of_the_mapping_is_the_order_of_steps(
    make_model: Any, make_batches: Any, three_tasks: Tasks, monkeypatch: pytest.MonkeyPatch, spy: Any
) -> None:
    update = make_update("separate", make_model(three_tasks))
    steps, batches = spy(update, monkeypatch), make_batches(update.model)
    update.round({name: batches[name] for name in ("sts", "sst", "para")}, 1.0)
    assert [owner for owner, _ in steps] == ["sts", "sst", "para"]
