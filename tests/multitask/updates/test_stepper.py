"""What every update has from its caller: batches in parts, optimizers by name, and refusals of what does not fit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.errors import RunError
from multitask.settings.choices import OPTIMIZERS
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.training.checkpoints import read_state, restore_checkpoint, save_checkpoint
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]
EVERY = ["separate", "combined", "pcgrad", "uncertainty", "famo", "upgrad", "cagrad"]


def same_rates(tasks: Sequence[Task]) -> Tasks:
    return tuple(replace(task, lr=2e-3, weight_decay=0.1) for task in tasks)


@pytest.mark.usefixtures("example_updates")
@pytest.mark.parametrize("update", EVERY)
@pytest.mark.parametrize("parts", [2, 3, 100])
def test_a_batch_in_parts_is_one_large_batch(
    make_model: Any, make_batches: Any, three_tasks: Tasks, update: str, parts: int
) -> None:
    """Mean and summed losses, class weights, separate input; more parts than rows are as many as there are rows."""
    first, second, third = same_rates(three_tasks)
    tasks = (
        replace(first, class_weights=(1.0, 0.5, 2.0, 0.0, 1.5)),
        replace(second, input="separate", reduction="sum"),
        replace(third, loss_weight=0.3),
    )
    whole, cut = (
        Stepper(make_model(tasks), TrainConfig(update=update, accumulate=count), np.random.default_rng(0))
        for count in (1, parts)
    )
    for each in (whole, cut):
        each.update.double()
    for seed in range(4):
        batches = make_batches(whole.model, seed)
        expected, found = whole.round(batches, 0.5), cut.round(batches, 0.5)
        for name, record in expected.items():
            assert found[name].rows == record.rows
            assert found[name].loss == pytest.approx(record.loss, rel=1e-9)
            assert found[name].grad_norm == pytest.approx(record.grad_norm, rel=1e-7)
    for name, parameter in cut.model.named_parameters():
        assert (parameter - whole.model.get_parameter(name)).abs().max() <= 1e-9, name


def test_a_part_holds_fewer_rows(
    make_model: Any, make_batches: Any, three_tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = Stepper(make_model(three_tasks), TrainConfig(accumulate=3), np.random.default_rng(0))
    sizes: list[int] = []
    stepper.model.encoder_of("sst").register_forward_hook(
        lambda module, args, output: sizes.append(len(output.pooler_output))
    )
    stepper.round(make_batches(stepper.model), 1.0)
    assert sizes == [3, 2, 2, 9, 9, 9, 12, 12, 9]  # 7, 9 and 11 rows: one text, or three encodings of a pair


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_steps_saves_and_goes_on(
    make_model: Any, make_batches: Any, three_tasks: Tasks, optimizer: str, tmp_path: Any
) -> None:
    def stepper_of(seed: int) -> Stepper:
        return Stepper(make_model(three_tasks, seed=seed), TrainConfig(optimizer=optimizer), np.random.default_rng(0))

    stepper = stepper_of(0)
    before = {name: parameter.detach().clone() for name, parameter in stepper.model.named_parameters()}
    for seed in range(2):
        stepper.round(make_batches(stepper.model, seed), 0.7)
    still = {name for name, value in stepper.model.named_parameters() if torch.equal(value, before[name])}
    assert all("key.bias" in name for name in still)  # adds the same to all scores of a query, so has no gradient
    save_checkpoint(tmp_path, stepper.model, stepper, {}, number=2, scored=False, keep=1)
    (folder,) = tmp_path.iterdir()
    other = stepper_of(1)
    restore_checkpoint(folder, other.model, other, read_state(folder))
    for each in (stepper, other):
        each.round(make_batches(each.model, 5), 0.3)
    for name, parameter in stepper.model.named_parameters():
        assert torch.equal(parameter, other.model.get_parameter(name)), name


class Keeping(torch.optim.Optimizer):
    """Steps down the gradient, and calls a function that keeps something."""

    def __init__(self, groups: Any, keep: Callable[[Any, Any, Tensor], None]) -> None:
        super().__init__(groups, {"weight_decay": 0.0, "pair": (1, 2)})
        self.keep = keep

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.keep(self, group, parameter)
                    parameter.sub_(group["lr"] * parameter.grad)


@pytest.mark.parametrize("kind", [torch.int64, torch.float64, torch.bool, torch.bfloat16])
def test_what_an_optimizer_keeps_comes_back_in_its_type(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any, kind: torch.dtype, tmp_path: Path
) -> None:
    def keep(optimizer: Any, group: Any, parameter: Tensor) -> None:
        optimizer.state[parameter]["seen/here"] = (parameter * 1000).to(kind)

    registered(OPTIMIZERS, "keeping", lambda groups, settings: Keeping(groups, keep))
    one, two = (
        Stepper(make_model(three_tasks, seed=seed).float(), TrainConfig(optimizer="keeping"), np.random.default_rng(0))
        for seed in range(2)
    )
    one.round(make_batches(one.model), 1.0)
    save_checkpoint(tmp_path, one.model, one, {}, number=1, scored=False, keep=1)
    (folder,) = tmp_path.iterdir()
    restore_checkpoint(folder, two.model, two, read_state(folder))
    for name, optimizer in two.optimizers.items():
        expected, found = one.optimizers[name].state_dict(), optimizer.state_dict()
        assert found["param_groups"] == expected["param_groups"]  # tuples included
        assert found["state"].keys() == expected["state"].keys()
        for index, entry in expected["state"].items():
            assert found["state"][index]["seen/here"].dtype == kind
            assert torch.equal(found["state"][index]["seen/here"], entry["seen/here"])


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda o, g, p: o.state[p].update(x=[p]), r"^x of .* must be a tensor, a finite number or .* got \[Parameter"),
        (lambda o, g, p: o.state[p].update(x=(1, 2)), r"^x of .* must be a tensor, a finite .*, got \(1, 2\)$"),
        (lambda o, g, p: o.state[p].update(x=float("inf")), "^x of the optimizer 'sst' .* to be saved, got inf$"),
        (lambda o, g, p: g.update(x=p), "^x of .* must be a finite number or a string to be saved, got Parameter"),
        (lambda o, g, p: g.update(x=[[1]]), r"^x of .* must be a finite number or a string to be saved, got \[1\]$"),
        (lambda o, g, p: o.state.update(x={"n": 1}), "^the optimizer 'sst' must keep its state by .*, got 'x'$"),
        (lambda o, g, p: o.state.update(x=1), "^the optimizer 'sst' must keep its state by .*, got 'x'$"),
        (
            lambda o, g, p: setattr(o, "state_dict", lambda: {**Keeping.state_dict(o), "more": 1}),
            "^the optimizer 'sst' must keep its state by parameter or in groups, got 'more'$",
        ),
    ],
)
def test_what_can_not_be_saved_is_refused_at_the_first_save(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any, keep: Any, message: str, tmp_path: Path
) -> None:
    registered(OPTIMIZERS, "keeping", lambda groups, settings: Keeping(groups, keep))
    stepper = Stepper(make_model(three_tasks), TrainConfig(optimizer="keeping"), np.random.default_rng(0))
    stepper.round(make_batches(stepper.model), 1.0)
    with pytest.raises(RunError, match=message):
        save_checkpoint(tmp_path, stepper.model, stepper, {}, number=1, scored=False, keep=1)


def test_torchs_adamw_is_ours(make_model: Any, make_batches: Any, three_tasks: Tasks) -> None:
    models = [make_model(three_tasks) for _ in range(2)]
    for model, optimizer in zip(models, ("adamw", "torch-adamw"), strict=True):
        stepper = Stepper(model, TrainConfig(optimizer=optimizer), np.random.default_rng(0))
        for seed in range(3):
            stepper.round(make_batches(model, seed), 1.0)
    for name, parameter in models[0].named_parameters():
        assert torch.allclose(parameter, models[1].get_parameter(name), rtol=0, atol=1e-8), name
