"""Devices and number formats: what is asked for is taken or refused, what is not is probed and said."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multitask.errors import ConfigError
from multitask.precision import autocast, choose_device, choose_precision
from multitask.run import Run
from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.training.train import train
from multitask.updates.stepper import Stepper

CPU = torch.device("cpu")
PROBES = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets what the probes of the CPU find."""

    def set_to(*found: bool) -> None:
        for name, value in zip(PROBES, found, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda value=value: value, raising=False)

    return set_to


@pytest.mark.parametrize(
    ("found", "dtype", "words"),
    [
        ((False, False), torch.float32, "float32, since the CPU has neither AVX512-BF16 nor AMX"),
        ((True, False), torch.bfloat16, "bfloat16, since the CPU has AVX512-BF16"),
        ((False, True), torch.bfloat16, "bfloat16, since the CPU has AMX"),
    ],
)
def test_auto_probes_the_machine(probes: Any, found: tuple[bool, bool], dtype: torch.dtype, words: str) -> None:
    probes(*found)
    assert choose_precision("auto", CPU) == (dtype, words)


def test_what_is_asked_for_is_taken(probes: Any) -> None:
    probes(False, False)
    assert choose_precision("float32", CPU) == (torch.float32, "float32, as asked for")
    dtype, words = choose_precision("bfloat16", CPU)
    assert dtype == torch.bfloat16
    assert words == "bfloat16, as asked for (slow here: the CPU has neither AVX512-BF16 nor AMX)"
    with pytest.raises(ConfigError, match="precision must be one of auto, float32, bfloat16, (got|not) 'float16'$"):
        choose_precision("float16", CPU)


def test_a_torch_without_the_probes_gives_the_safe_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROBES:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision("auto", CPU)[0] == torch.float32


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"^device must be available to torch here \(cpu\), got 'cuda'$"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match="device must be one of auto, cpu, cuda, mps, (got|not) 'gpu'$"):
        choose_device("gpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")


@pytest.mark.parametrize("kind", list(UPDATES))
def test_bfloat16_is_for_products_alone(
    make_model: Any, make_batches: Any, three_tasks: Any, state_of: Any, kind: str
) -> None:
    """Parameters, gradients, moments and losses stay float32, and the step is near the one of float32."""
    tasks = tuple(dataclasses.replace(task, lr=1e-3, weight_decay=0.0) for task in three_tasks)
    steps, losses = [], []
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model(tasks).float()
        before = state_of(model)
        update = Stepper(model, TrainConfig(update=kind), np.random.default_rng(0), dtype)
        records = update.round(make_batches(model), 1.0)
        losses.append([record.loss for record in records.values()])
        steps.append(torch.cat([(value - before[name]).flatten() for name, value in model.state_dict().items()]))
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        states = [state for optimizer in update.optimizers.values() for state in optimizer.state.values()]
        assert {value.dtype for state in states for value in state.values()} == {torch.float32}
        with autocast(dtype, CPU):
            assert model.decoders["sst"].head(torch.ones(1, 16)).dtype == dtype
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert torch.cosine_similarity(*steps, dim=0) > 0.8


def test_a_run_in_bfloat16(make_config: Any, tmp_path: Path) -> None:
    sets = ("train.precision=bfloat16", "train.rounds=1", *(f"tasks.{n}.batch_size=2" for n in ("sst", "para", "sts")))
    run = train(make_config(*sets, epochs=1), tmp_path / "run", limit=2, progress=False)
    assert run.dtype == torch.bfloat16
    half = run.predict("sts", [("good film", "bad film")])[0].label
    whole = Run.load(tmp_path / "run", precision="float32").predict("sts", [("good film", "bad film")])[0].label
    assert half != whole
    assert half == pytest.approx(whole, rel=0.05, abs=0.1)
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
