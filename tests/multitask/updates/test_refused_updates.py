"""What is refused of an update or an optimizer of one's own, and what a function of the Gram matrix may be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multitask.errors import ConfigError, NonFiniteError, RunError
from multitask.settings.choices import OPTIMIZERS, UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.training.checkpoints import save_checkpoint
from multitask.updates.base import GramWeighting, Objective, Weighting
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]


def same_rates(tasks: Sequence[Task]) -> Tasks:
    return tuple(replace(task, lr=2e-3, weight_decay=0.1) for task in tasks)


class Odd(Weighting):
    """Gives the weights that a test puts in its place."""

    weights: Tensor

    def weigh(self, gram: Tensor, losses: dict[str, float]) -> Tensor:
        return self.weights


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (torch.ones(2), RunError, r"an update's weights must be one for each of 3 tasks, got \(2,\)"),
        (torch.ones(3, 1), RunError, r"an update's weights must be one for each of 3 tasks, got \(3, 1\)"),
        (
            torch.tensor([1.0, float("nan"), 1.0]),
            NonFiniteError,
            r"^task sst \+ para \+ sts: the update's weights are \[1.0, nan, 1.0\], no step was taken",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_step(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any, weights: Tensor, error: Any, message: str
) -> None:
    registered(UPDATES, "odd", type("Odd", (Odd,), {"weights": weights}))
    model = make_model(same_rates(three_tasks))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stepper = Stepper(model, TrainConfig(update="odd"), np.random.default_rng(0))
    with pytest.raises(error, match=message):
        stepper.round(make_batches(model), 1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_skipped_step_moves_nothing_of_the_update_either(
    make_model: Any, make_batches: Any, three_tasks: Tasks
) -> None:
    model = make_model(same_rates(three_tasks))
    stepper = Stepper(model, TrainConfig(update="uncertainty", on_nonfinite="skip"), np.random.default_rng(0))
    stepper.round(make_batches(model, 0), 1.0)
    before = [parameter.detach().clone() for parameter in stepper.update.parameters()]
    assert any(value.item() != 0 for value in before)
    with torch.no_grad():
        model.encoder_of("sst").pooler.bias.fill_(float("nan"))
    records = stepper.round(make_batches(model, 1), 1.0)
    assert {record.loss for record in records.values()} == {None}
    assert all(torch.equal(*pair) for pair in zip(before, stepper.update.parameters(), strict=True))


def test_what_is_no_update_or_optimizer_is_refused(make_model: Any, three_tasks: Tasks, registered: Any) -> None:
    model = make_model(same_rates(three_tasks))
    registered(UPDATES, "dictionary", dict)
    with pytest.raises(
        ConfigError, match=r"^train.update 'dictionary' must be derived from multitask.Update, got dict"
    ):
        Stepper(model, TrainConfig(update="dictionary"), np.random.default_rng(0))
    registered(OPTIMIZERS, "nothing", lambda groups, settings: None)
    with pytest.raises(ConfigError, match=r"^train.optimizer 'nothing' must give a torch optimizer, got NoneType"):
        Stepper(model, TrainConfig(optimizer="nothing"), np.random.default_rng(0))
    registered(OPTIMIZERS, "rateless", lambda groups, settings: torch.optim.Optimizer(model.parameters(), {}))
    with pytest.raises(ConfigError, match=r"^train.optimizer 'rateless' must have lr in all groups, lacks it"):
        Stepper(model, TrainConfig(optimizer="rateless"), np.random.default_rng(0))


def test_a_function_of_the_gram_matrix_may_return_a_list(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any
) -> None:
    """With weights of one the update is the combined one."""
    seen = []

    def ones(gram: Tensor, rng: np.random.Generator) -> list[float]:
        seen.append(gram)
        return [1.0] * len(gram)

    registered(UPDATES, "ones", ones)
    models = [make_model(same_rates(three_tasks)) for _ in range(2)]
    for model, update in zip(models, ("ones", "combined"), strict=True):
        stepper = Stepper(model, TrainConfig(update=update), np.random.default_rng(0))
        assert isinstance(stepper.update, GramWeighting) == (update == "ones")
        for seed in range(3):
            stepper.round(make_batches(model, seed), 1.0)
    assert [gram.shape for gram in seen] == [(3, 3)] * 3
    assert seen[0].dtype == torch.float64
    for name, parameter in models[0].named_parameters():
        assert torch.allclose(parameter, models[1].get_parameter(name), rtol=0, atol=1e-9), name


def test_an_objective_may_leave_a_loss_out(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any
) -> None:
    class First(Objective):
        def objective(self, losses: dict[str, Tensor]) -> Tensor:
            return losses["sst"].square()

    registered(UPDATES, "first", First)
    model = make_model([replace(task, weight_decay=0.0) for task in same_rates(three_tasks)])
    before = {name: parameter.detach().clone() for name, parameter in model.decoders.named_parameters()}
    Stepper(model, TrainConfig(update="first"), np.random.default_rng(0)).round(make_batches(model), 1.0)
    after = dict(model.decoders.named_parameters())
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"sst"}


def keeps_a_list(update: Any, losses: Any) -> None:
    update.history = [*getattr(update, "history", []), 1.0]


def changes_an_array(update: Any, losses: Any) -> None:
    update.weights[0] += 1


def changes_a_numpy_number(update: Any, losses: Any) -> None:
    update.rounds += 1


def changes_what_float32_does_not_hold(update: Any, losses: Any) -> None:
    update.exact = update.exact + 1e-12


def changes_what_is_not_persistent(update: Any, losses: Any) -> None:
    update.lost += 1


def grows_a_buffer(update: Any, losses: Any) -> None:
    update.seen = torch.cat([update.seen, torch.ones(1)])


class Keeper(Objective):
    """Does in each round what a test puts in its place."""

    def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
        super().__init__(tasks, rng)
        self.weights, self.rounds = np.ones(3), np.int64(0)
        self.exact, self.turned = torch.ones((), dtype=torch.float64), torch.ones(1, dtype=torch.complex64).conj()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("lost", torch.zeros(()), persistent=False)

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        type(self).keep(self, losses)  # type: ignore[attr-defined]
        self.count += 1
        return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (keeps_a_list, r"must keep its state in parameters and buffers .*, got history, which changed"),
        (changes_an_array, r"must keep its state in parameters and buffers .*, got weights, which changed"),
        (changes_a_numpy_number, r"must keep its state in parameters and buffers .*, got rounds, which changed"),
        (changes_what_float32_does_not_hold, r"must keep its state in parameters .*, got exact, which changed"),
        (changes_what_is_not_persistent, r"must keep its state in parameters and buffers .*, got lost, which changed"),
        (grows_a_buffer, ""),
        (lambda update, losses: None, ""),
    ],
)
def test_state_that_no_checkpoint_holds_is_refused_after_the_first_round(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any, tmp_path: Any, keep: Any, message: str
) -> None:
    registered(UPDATES, "keeper", type("KeeperOf", (Keeper,), {"keep": keep}))
    model = make_model(same_rates(three_tasks))
    stepper = Stepper(model, TrainConfig(update="keeper"), np.random.default_rng(0))
    if message:
        with pytest.raises(RunError, match=rf"^train.update 'keeper' {message}"):
            stepper.round(make_batches(model), 1.0)
        return
    stepper.round(make_batches(model), 1.0)
    stepper.update.late = 1  # type: ignore[assignment]
    with pytest.raises(RunError, match="got late, which changed while it trained"):
        save_checkpoint(tmp_path, model, stepper, {}, number=1, scored=False, keep=1)
    assert not list(tmp_path.iterdir())


def test_parameters_that_are_never_stepped_on_are_refused(
    make_model: Any, make_batches: Any, three_tasks: Tasks, registered: Any
) -> None:
    class Idle(Weighting):
        def __init__(self, tasks: Sequence[str], rng: np.random.Generator) -> None:
            super().__init__(tasks, rng)
            self.logits = torch.nn.Parameter(torch.zeros(3))

        def weigh(self, gram: Tensor, losses: dict[str, float]) -> Tensor:
            return self.logits.softmax(0)

    registered(UPDATES, "idle", Idle)
    model = make_model(same_rates(three_tasks))
    stepper = Stepper(model, TrainConfig(update="idle"), np.random.default_rng(0))
    with pytest.raises(RunError, match="^train.update 'idle' must give its parameters a gradient, .*, got none"):
        stepper.round(make_batches(model), 1.0)
