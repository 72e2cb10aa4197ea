"""Updates of one's own: against autograd by hand, and what is refused or left out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multitask.errors import ConfigError, NonFiniteError, RunError
from multitask.model.losses import task_loss
from multitask.settings.choices import HEADS, UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.training.checkpoints import read_state, restore_checkpoint, save_checkpoint
from multitask.updates.base import Objective, Update, Weighting
from multitask.updates.gradients import TaskGradients
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]


@pytest.fixture
def tasks(three_tasks: Tasks) -> Tasks:
    """Three tasks with the rates of one step, of which the second has an encoder of its own."""
    first, second, third = (replace(task, lr=2e-3, weight_decay=0.0) for task in three_tasks)
    return first, replace(second, encoder="own", input="separate"), replace(third, loss_weight=0.3)


@pytest.fixture
def step_with(monkeypatch: pytest.MonkeyPatch, make_model: Any, tasks: Tasks) -> Callable[..., Stepper]:
    """A function of an update of one's own, and settings: a stepper with it."""

    def make(entry: Any, **settings: Any) -> Stepper:
        monkeypatch.setitem(UPDATES._entries, "mine", entry)
        stepper = Stepper(make_model(tasks), TrainConfig(update="mine", **settings), np.random.default_rng(0))
        stepper.update.double()
        return stepper

    return make


class Mixed(Objective):
    """Not linear in the losses, and with parameters of its own."""

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__(tasks, rng)
        self.scales = nn.ParameterDict({name: nn.Parameter(torch.tensor(0.3)) for name in tasks})

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        scaled = [loss * self.scales[name].exp() + self.scales[name] ** 2 for name, loss in losses.items()]
        return torch.stack(scaled).logsumexp(0)


class ByGram(Weighting):
    """Weights that follow from all inner products and losses."""

    def weigh(self, gram: Tensor, losses: dict[str, float]) -> list[float]:  # type: ignore[override]
        return [1 + float(row.sum()) / 10 + losses[name] for row, name in zip(gram, losses, strict=True)]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("names", [("sst", "para", "sts"), ("sts", "para"), ("para",)])
@pytest.mark.parametrize("entry", [Mixed, ByGram])
def test_gradients_are_those_of_autograd(
    entry: Any, names: tuple[str, ...], parts: int, step_with: Any, make_batches: Any, spy: Any, monkeypatch: Any
) -> None:
    """By hand: gradients of the whole batches' losses, and of the objective itself; a round may leave tasks out."""
    stepper = step_with(entry, accumulate=parts)
    model, update = stepper.model, stepper.update
    every = make_batches(model)
    batches = {name: every[name] for name in names}
    parameters = {**dict(model.named_parameters()), **dict(update.named_parameters())}
    losses = {name: task_loss(model.tasks[name], model(name, b.tokens), b.labels) for name, b in batches.items()}

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
        return {name: value for name, value in zip(parameters, found, strict=True) if value is not None}

    if entry is Mixed:
        expected = gradients(update.objective(losses))
    else:
        each = [gradients(loss) for loss in losses.values()]
        shared = [{k: v for k, v in own.items() if k.startswith("encoders.")} for own in each]
        gram = torch.tensor([[sum((a[k] * b[k]).sum() for k in a if k in b) for b in shared] for a in shared])
        weights = update.weigh(gram.double(), {name: loss.item() for name, loss in losses.items()})
        expected = {k: v for own in each for k, v in own.items() if k.startswith("decoders.")}
        for weight, own in zip(weights, shared, strict=True):
            for k, v in own.items():
                expected[k] = expected.get(k, 0) + weight * v
    steps = spy(stepper, monkeypatch)
    stepper.round(batches, 1.0)
    found = {name: value for _, part in steps for name, value in part.items()}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert (value - expected[name]).abs().max() <= 1e-9, name


class First(Update):
    """Trains on one task of a round."""

    def gradients(self, tasks: TaskGradients) -> None:
        tasks.backward(next(iter(tasks)))


class Never(Update):
    """Does nothing."""

    def gradients(self, tasks: TaskGradients) -> None:
        pass


def test_a_task_that_the_update_leaves_out_is_in_no_record(step_with: Any, make_batches: Any) -> None:
    stepper = step_with(First)
    records = stepper.round(make_batches(stepper.model), 1.0)
    assert list(records) == ["sst"]
    assert None not in (records["sst"].loss, records["sst"].grad_norm)
    stepper = step_with(Never)
    with pytest.raises(RunError, match="^the update 'mine' must make the backward pass of a task, made none$"):
        stepper.round(make_batches(stepper.model), 1.0)
    stepper = step_with(type("Each", (Never,), {"own_steps": True}))
    assert stepper.round(make_batches(stepper.model), 1.0) == {}


@pytest.mark.parametrize(
    ("goal", "found"),
    [
        (lambda losses: 3.0, "3.0"),
        (lambda losses: None, "None"),
        (lambda losses: torch.tensor(3.0), r"tensor\(3.\)"),
        (lambda losses: torch.stack(list(losses.values())), r"tensor\(\["),
    ],
)
def test_an_objective_is_one_number_that_follows_from_the_losses(
    goal: Any, found: str, step_with: Any, make_batches: Any
) -> None:
    stepper = step_with(type("Odd", (Objective,), {"objective": lambda self, losses: goal(losses)}))
    with pytest.raises(RunError, match=rf"^objective of Odd must return a tensor \(\) that .* losses, got {found}"):
        stepper.round(make_batches(stepper.model), 1.0)


@pytest.mark.parametrize("weights", [None, "abc", [1.0, None, 2.0], torch.ones(3, dtype=torch.complex64)])
def test_weights_that_are_no_numbers_are_refused(weights: Any, step_with: Any, make_batches: Any) -> None:
    for entry in (lambda gram, rng: weights, type("Odd", (Weighting,), {"weigh": lambda *_: weights})):
        stepper = step_with(entry)
        with pytest.raises(RunError, match="^an update's weights must be one for each of 3 tasks, got "):
            stepper.round(make_batches(stepper.model), 1.0)


def test_an_update_that_lacks_its_method_is_refused(step_with: Any) -> None:
    with pytest.raises(ConfigError, match=r"^train.update 'mine' must have gradients, which Half lacks$"):
        step_with(type("Half", (Update,), {}))


class Late(Objective):
    """Learns from what the losses have become, as FAMO does; a test says what the gradient is."""

    late = early = float("nan")

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__(tasks, rng)
        self.own = nn.Parameter(torch.zeros(()))

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack(list(losses.values())).sum() + self.own * self.early

    def after_step(self, losses: dict[str, float], again: Any) -> None:
        self.own.grad = torch.tensor(self.late, dtype=self.own.dtype)


@pytest.mark.parametrize("when", ["early", "late"])
def test_the_updates_own_parameters_stay_finite(when: str, step_with: Any, make_batches: Any) -> None:
    entry = type("Odd", (Late,), {"early": 1.0, "late": 1.0, when: float("inf")})
    stepper = step_with(entry)
    with pytest.raises(NonFiniteError, match="the gradient of the update's own own is not finite, "):
        stepper.round(make_batches(stepper.model), 1.0)
    stepper = step_with(entry, on_nonfinite="skip")
    before = {name: value.detach().clone() for name, value in stepper.model.named_parameters()}
    records = stepper.round(make_batches(stepper.model), 1.0)
    assert (records["sst"].loss is None) == (when == "early")  # late, the step was taken already
    moved = any(not torch.equal(value, before[name]) for name, value in stepper.model.named_parameters())
    assert moved == (when == "late")
    assert stepper.update.own.item() == 0
    assert not stepper.optimizers["the update's own"].state


def test_an_update_never_sees_a_gradient_that_is_not_finite(step_with: Any, make_batches: Any) -> None:
    """What it keeps of one would stay, and every later step be skipped."""
    seen: list[Tensor] = []

    def keep(gram: Tensor, rng: np.random.Generator) -> list[float]:
        seen.append(gram)
        return [1.0] * len(gram)

    stepper = step_with(keep, on_nonfinite="skip")
    bias = stepper.model.decoders["sts"].head.linear.bias
    handle = bias.register_hook(lambda gradient: gradient * float("nan"))
    batches = make_batches(stepper.model)
    assert {record.loss for record in stepper.round(batches, 1.0).values()} == {None}
    assert not seen
    handle.remove()
    assert stepper.round(batches, 1.0)["sts"].loss is not None
    assert len(seen) == 1


def test_decoders_that_share_a_parameter_need_steps_of_their_own(
    monkeypatch: pytest.MonkeyPatch, make_model: Any, make_batches: Any, three_tasks: Tasks
) -> None:
    middle = nn.Linear(16, 16)

    class Shared(nn.Module):
        def __init__(self, task: Task, width: int) -> None:
            super().__init__()
            self.middle, self.last = middle, nn.Linear(width, task.num_outputs)

        def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
            found: Tensor = self.last(self.middle(first).tanh())
            return found

    monkeypatch.setitem(HEADS._entries, "shared", Shared)
    tasks = [replace(task, head="shared", lr=2e-3, weight_decay=0.1) for task in three_tasks]
    model = make_model(tasks)
    for update in ("combined", "pcgrad"):
        with pytest.raises(ConfigError, match=rf"^tasks sst and para must have no .* train.update = '{update}' makes"):
            Stepper(model, TrainConfig(update=update), np.random.default_rng(0))
    Stepper(model, TrainConfig(), np.random.default_rng(0)).round(make_batches(model), 1.0)


def test_collecting_begins_afresh(step_with: Any, make_batches: Any) -> None:
    class Twice(Update):
        def gradients(self, tasks: TaskGradients) -> None:
            first = tasks.backward("sst")
            rows = tasks.collect()
            again = tasks.collect()
            assert torch.equal(rows, again)
            assert tasks.losses["sst"] == first
            tasks.put(again, torch.ones(3))

    one, two = step_with(Twice), step_with(lambda gram, rng: torch.ones(3))
    batches = make_batches(one.model)
    assert one.round(batches, 1.0) == two.round(batches, 1.0)
    for name, parameter in one.model.named_parameters():
        assert torch.equal(parameter, two.model.get_parameter(name)), name


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda tasks: (tasks.collect(), tasks.backward("sst")), "^an update must not call backward after collect$"),
        (lambda tasks: tasks.put(torch.zeros(3, 4), torch.ones(3)), "^an update must call collect before put$"),
    ],
)
def test_an_order_that_would_lose_gradients_is_refused(
    steps: Any, message: str, step_with: Any, make_batches: Any
) -> None:
    stepper = step_with(type("Odd", (Update,), {"gradients": lambda self, tasks: steps(tasks)}))
    with pytest.raises(RunError, match=message):
        stepper.round(make_batches(stepper.model), 1.0)


def test_buffers_that_begin_as_none_or_grow_come_back(step_with: Any, make_batches: Any, tmp_path: Path) -> None:
    class Recent(Objective):
        def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
            super().__init__(tasks, rng)
            self.inner = nn.Module()
            self.inner.register_buffer("last", None)
            self.register_buffer("recent", torch.zeros(0, dtype=torch.float64))

        def objective(self, losses: dict[str, Tensor]) -> Tensor:
            total = torch.stack(list(losses.values())).sum()
            self.inner.last = total.detach()[None]
            self.recent = torch.cat([self.recent, self.inner.last])[-3:]
            return total / self.recent.mean()

    one, two = step_with(Recent), step_with(Recent)
    for seed in range(2):
        one.round(make_batches(one.model, seed), 1.0)
    save_checkpoint(tmp_path, one.model, one, {}, number=2, scored=False, keep=1)
    (folder,) = tmp_path.iterdir()
    restore_checkpoint(folder, two.model, two, read_state(folder))
    assert torch.equal(two.update.inner.last, one.update.inner.last)
    assert len(two.update.recent) == 2
    for each in (one, two):
        each.round(make_batches(each.model, 5), 1.0)
    for name, parameter in one.model.named_parameters():
        assert torch.equal(parameter, two.model.get_parameter(name)), name
