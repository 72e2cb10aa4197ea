"""AdamW against torch's over many steps, and the schedules against those of `transformers`."""

import copy
import inspect
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from minbert import SCHEDULES, AdamW, InputError, constant_schedule, cosine_schedule, linear_schedule

SHAPES = [(7, 5), (5,), (3, 4, 2), (), (1,), (40, 30)]


def make_parameters(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]
    tensors.append(torch.randn(6, 4, generator=generator, dtype=dtype).T)  # not contiguous
    return [torch.nn.Parameter(tensor) for tensor in tensors]


def make_groups(parameters: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": parameters[:2]},
        {"params": parameters[2:4], "lr": 3e-2, "weight_decay": 0.0, "betas": (0.8, 0.99)},
        {"params": parameters[4:], "eps": 1e-3, "weight_decay": 0.3},
    ]


def set_gradients(step: int, *models: list[torch.nn.Parameter]) -> None:
    """The same random gradients for each; some are None at some steps, one at all but a few."""
    generator = torch.Generator().manual_seed(100 + step)
    for number, parameters in enumerate(zip(*models, strict=True)):
        gradient = torch.randn(parameters[0].shape, generator=generator, dtype=parameters[0].dtype)
        gradient *= 10.0 ** (number - 3)
        absent = (step + number) % 7 == 0 or (number == 1 and step % 50 != 10)
        for parameter in parameters:
            parameter.grad = None if absent else gradient.clone()


def furthest(first: list[torch.nn.Parameter], second: list[torch.nn.Parameter]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", [{}, {"amsgrad": True}, {"maximize": True}], ids=["plain", "amsgrad", "maximize"])
def test_200_steps_equal_torch(kernels: str, dtype: torch.dtype, tolerance: float, variant: dict[str, bool]) -> None:
    mine, theirs = make_parameters(dtype), make_parameters(dtype)
    options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, **variant}
    ours, other = AdamW(make_groups(mine), **options), torch.optim.AdamW(make_groups(theirs), **options)
    start = [parameter.detach().clone() for parameter in mine]
    for step in range(200):
        set_gradients(step, mine, theirs)
        for optimizer in (ours, other):
            for group in optimizer.param_groups:
                group["lr"] *= 0.99  # as a schedule does
            optimizer.step()
        assert furthest(mine, theirs) <= tolerance, step
    assert all((a != b).any() for a, b in zip(mine, start, strict=True))
    for a, b in zip(mine, theirs, strict=True):
        assert set(ours.state[a]) == set(other.state[b]) >= {"step", "exp_avg", "exp_avg_sq"}
        assert ours.state[a]["step"] == other.state[b]["step"]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(ours.state[a][moment], other.state[b][moment], rtol=1e-4)
            assert ours.state[a][moment].dtype == dtype


def test_argument_names_and_defaults_are_those_of_torch() -> None:
    theirs = inspect.signature(torch.optim.AdamW).parameters
    for name, parameter in inspect.signature(AdamW).parameters.items():
        assert parameter.default == theirs[name].default, name
    assert issubclass(AdamW, torch.optim.Optimizer)


@pytest.mark.parametrize("from_torch", [True, False])
def test_the_state_goes_from_one_to_the_other(kernels: str, from_torch: bool) -> None:
    mine, theirs = make_parameters(torch.float64), make_parameters(torch.float64)
    kinds = (torch.optim.AdamW, AdamW) if from_torch else (AdamW, torch.optim.AdamW)
    first, reference = kinds[0](make_groups(mine)), torch.optim.AdamW(make_groups(theirs))
    for step in range(30):
        set_gradients(step, mine, theirs)
        first.step()
        reference.step()
    second = kinds[1](make_groups(mine))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(30, 60):
        set_gradients(step, mine, theirs)
        second.step()
        reference.step()
    assert furthest(mine, theirs) <= 1e-12


def test_without_a_gradient_nothing_moves(kernels: str) -> None:
    kept, moved = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = AdamW([kept, moved], lr=0.1, weight_decay=0.5)
    for parameter in (kept, moved):
        parameter.grad = torch.ones(3)
    optimizer.step()
    before = kept.detach().clone()
    state = {name: tensor.clone() for name, tensor in optimizer.state[kept].items()}
    kept.grad = None
    optimizer.step()
    assert torch.equal(kept, before)
    assert all(torch.equal(optimizer.state[kept][name], state[name]) for name in state)
    assert optimizer.state[moved]["step"] == 2
    kept.grad = torch.zeros(3)  # a zero is not a None: momentum and decay act
    optimizer.step()
    assert (kept < before).all()


def test_a_parameter_that_never_had_a_gradient_has_no_state(kernels: str) -> None:
    first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = AdamW([first, second])
    first.grad = torch.ones(3)
    optimizer.step()
    assert list(optimizer.state_dict()["state"]) == [0]


def test_one_step_by_hand(kernels: str) -> None:
    parameter = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = AdamW([parameter], lr=0.1, betas=(0.9, 0.99), eps=0.5, weight_decay=0.2)
    parameter.grad = torch.tensor([3.0], dtype=torch.float64)
    optimizer.step()
    # Both corrected moments of a first step are those of the gradient: 3, and 9, whose root is 3.
    assert math.isclose(parameter.item(), 2 * (1 - 0.1 * 0.2) - 0.1 * 3 / (3 + 0.5), rel_tol=1e-12)


def test_a_closure_is_called_with_gradients_on(kernels: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([parameter])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2  # type: ignore[arg-type]
    assert (parameter < 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be .* got -1"),
        ({"lr": math.nan}, "lr must be .* got nan"),
        ({"eps": -1e-8}, "eps must be .* got -1e-08"),
        ({"weight_decay": math.inf}, "weight_decay must be .* got inf"),
        ({"betas": (0.9, 1.0)}, r"betas must be .* got \(0.9, 1.0\)"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdamW([torch.nn.Parameter(torch.ones(1))], **options)


# Schedules


@pytest.mark.parametrize(("total", "warmup"), [(100, 6), (50, 0), (1, 0), (10, 10), (10, 30)])
def test_schedules_equal_transformers(transformers: Any, total: int, warmup: int) -> None:
    makers = {
        linear_schedule: lambda o: transformers.get_linear_schedule_with_warmup(o, warmup, total),
        cosine_schedule: lambda o: transformers.get_cosine_schedule_with_warmup(o, warmup, total),
        constant_schedule: lambda o: transformers.get_constant_schedule_with_warmup(o, warmup),
    }
    for schedule, make in makers.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        scheduler = make(optimizer)
        for step in range(total):
            assert math.isclose(schedule(step, total, warmup), scheduler.get_last_lr()[0], abs_tol=1e-9), step
            optimizer.step()
            scheduler.step()


def test_schedules_by_name() -> None:
    by_name = {"constant": constant_schedule, "cosine": cosine_schedule, "linear": linear_schedule}
    assert by_name == SCHEDULES
    for schedule in SCHEDULES.values():
        assert schedule(0, 10, 0) == 1
        assert [schedule(step, 10, 4) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert linear_schedule(10, 10, 4) == 0
    assert abs(cosine_schedule(10, 10, 4)) < 1e-12
    assert linear_schedule(12, 10, 4) == 0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", [AdamW, torch.optim.AdamW])
def test_schedules_fit_torchs_lambda_lr(name: str, kind: type[torch.optim.Optimizer]) -> None:
    optimizer = kind([torch.nn.Parameter(torch.ones(1))], lr=0.5)  # type: ignore[call-arg]
    factor = partial(SCHEDULES[name], total_steps=100, warmup_steps=10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for step in range(100):
        assert optimizer.param_groups[0]["lr"] == 0.5 * SCHEDULES[name](step, 100, 10)
        optimizer.step()
        scheduler.step()
    without = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(SCHEDULES[name], total_steps=100))
    assert without.get_last_lr() == [0.5]  # no warm-up: the whole rate from the first step on
