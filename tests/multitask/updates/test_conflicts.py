"""The cosines between tasks' gradients: what they are under every update, and that they change nothing else."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from multitask.errors import ConfigError, StoppedError
from multitask.settings.config import RunConfig, TrainConfig
from multitask.settings.task import Task
from multitask.training.train import train
from multitask.updates.stepper import Stepper

Tasks = tuple[Task, ...]
MakeConfig = Callable[..., RunConfig]


def same_rates(tasks: Tasks) -> Tasks:
    return tuple(replace(task, lr=2e-3, weight_decay=0.1) for task in tasks)


def stepper_of(model: Any, update: str, **settings: Any) -> Stepper:
    return Stepper(model, TrainConfig(update=update, log_conflict=True, **settings), np.random.default_rng(0))


@pytest.mark.parametrize("update", ["combined", "pcgrad", "uncertainty", "upgrad"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_they_are_of_the_gradients_one_by_one(
    make_model: Any, make_batches: Any, three_tasks: Tasks, gradients_of: Any, update: str, accumulate: int
) -> None:
    model = make_model(same_rates(three_tasks))
    stepper = stepper_of(model, update, accumulate=accumulate)
    encoder, seen = list(model.encoder_of("sst").parameters()), []
    for seed in range(3):
        batches = make_batches(model, seed)
        rows = {}
        for name, batch in batches.items():
            own = gradients_of(model, {name: batch})
            rows[name] = torch.cat([own.get(p, torch.zeros_like(p)).flatten() for p in encoder])
        stepper.round(batches, 1.0)
        assert list(stepper.cosines) == list(model.tasks)
        for one, two in combinations(rows, 2):
            expected = cosine_similarity(rows[one], rows[two], dim=0).item()
            assert stepper.cosines[one][two] == stepper.cosines[two][one] == pytest.approx(expected, abs=1e-9)
            seen.append(expected)
    assert min(seen) < -0.01 < 0.01 < max(seen)


def test_under_separate_updates_each_is_of_its_own_steps_weights(
    make_model: Any, make_batches: Any, three_tasks: Tasks, monkeypatch: pytest.MonkeyPatch, spy: Any
) -> None:
    model = make_model(three_tasks)
    stepper = stepper_of(model, "separate", clip=1e-3)
    steps = spy(stepper, monkeypatch)
    stepper.round(make_batches(model), 1.0)
    names = [f"encoders.shared.{name}" for name, _ in model.encoder_of("sst").named_parameters()]
    # What was stepped on is clipped, which leaves its direction.
    rows = {owner: torch.cat([seen[name].flatten() for name in names if name in seen]) for owner, seen in steps}
    for one, two in combinations(model.tasks, 2):
        expected = cosine_similarity(rows[one], rows[two], dim=0).item()
        assert stepper.cosines[one][two] == pytest.approx(expected, abs=1e-9)


def test_tasks_of_other_encoders_are_not_compared(make_model: Any, make_batches: Any, three_tasks: Tasks) -> None:
    first, second, third = three_tasks
    model = make_model([first, replace(second, encoder="other"), third])
    stepper = stepper_of(model, "separate")
    stepper.round(make_batches(model), 1.0)
    assert {name: list(others) for name, others in stepper.cosines.items()} == {
        "sst": ["sts"],
        "para": [],
        "sts": ["sst"],
    }
    for tasks in ([replace(task, encoder=task.name) for task in three_tasks], [first]):
        with pytest.raises(
            ConfigError, match=r"^train.log_conflict must be false where no two tasks train one encoder"
        ):
            stepper_of(make_model(tasks), "separate")
    frozen = make_model(three_tasks)
    frozen.encoders.requires_grad_(False)
    with pytest.raises(ConfigError, match="train one encoder, got true"):
        stepper_of(frozen, "separate")


@pytest.mark.parametrize("update", ["separate", "combined", "pcgrad"])
def test_a_gradient_without_direction_has_none(
    make_model: Any, make_batches: Any, three_tasks: Tasks, update: str
) -> None:
    first, second, third = same_rates(three_tasks)
    model = make_model([replace(first, loss_weight=0.0), second, third])
    stepper = stepper_of(model, update, on_nonfinite="skip")
    stepper.round(make_batches(model), 1.0)
    assert stepper.cosines["sst"] == {"para": None, "sts": None}
    assert stepper.cosines["para"]["sts"] is not None
    with torch.no_grad():
        model.encoder_of("sst").pooler.bias.fill_(float("nan"))
    stepper.round(make_batches(model, 1), 1.0)
    values = [value for others in stepper.cosines.values() for value in others.values()]
    assert all(value is None for value in values)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("update", ["separate", "combined", "upgrad"])
def test_a_run_is_the_same_with_and_without(
    make_config: MakeConfig, read_log: Any, update: str, tmp_path: Path
) -> None:
    """Dropout is on. Weights, moments and generators are equal to the byte, and the log in all else."""
    for flag in ("false", "true"):
        config = make_config(f"train.update={update}", f"train.log_conflict={flag}")
        train(config, tmp_path / flag, progress=False, keep_optimizer=True)
    for path in sorted((tmp_path / "false").rglob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "true" / path.relative_to(tmp_path / "false")).read_bytes(), path
    without, with_it = (read_log(tmp_path / flag / "metrics.jsonl") for flag in ("false", "true"))
    logged = [line.pop("cosines") for line in with_it if "round" in line]
    assert with_it == without
    assert len(logged) == 2 * 3 * 3
    assert all(-1 <= value <= 1 for line in logged for value in line.values())
    assert not any("cosines" in line for line in without)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("update", ["separate", "combined"])
def test_a_resumed_run_logs_the_same_bytes(
    make_config: MakeConfig, stop_after: Any, update: str, tmp_path: Path
) -> None:
    config = make_config(f"train.update={update}", "train.log_conflict=true")
    train(config, tmp_path / "whole", progress=False)

    def stop(record: Any) -> str | None:
        return "stop" if record.number == 2 else None

    with pytest.raises(StoppedError):
        train(config, tmp_path / "stopped", progress=False, on_round=stop)
    train(config, tmp_path / "stopped", progress=False, resume=True)
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert logs[0] == logs[1]
    assert b"cosines" in logs[0]
