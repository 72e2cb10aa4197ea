"""The loop: Algorithm 1's counts and order, learning rates, and every preset on tiny weights."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.optim import AdamW
from multitask.data.load import prepare, to_task_data
from multitask.data.sampling import RoundSampler
from multitask.errors import ConfigError, RunError
from multitask.evaluation import outputs_of
from multitask.model.build import build_model
from multitask.model.losses import task_loss
from multitask.precision import choose_device
from multitask.settings.choices import SCHEDULES
from multitask.settings.config import TrainConfig
from multitask.settings.presets import PRESETS
from multitask.settings.task import Task
from multitask.training.loop import RoundRecord, TrainState, estimate_seconds, train_rounds
from multitask.training.train import train
from multitask.updates.stepper import Stepper

CPU = choose_device("cpu")
NAMES = ["sst", "para", "sts"]
SIZES = {"sst": 25, "para": 40, "sts": 13}
BATCHES = {"sst": 5, "para": 8, "sts": 3}


class Rows:
    """Stands in for TaskData: random batches, and a record of which rows were asked for."""

    def __init__(self, task: Task, make_batch: Any) -> None:
        self.task, self.make_batch = task, make_batch
        self.drawn: list[list[int]] = []

    def batch(self, indices: np.ndarray) -> Any:
        self.drawn.append(indices.tolist())
        return self.make_batch(self.task, len(indices), sum(indices.tolist()))


def run_epochs(update: Stepper, sampler: RoundSampler, data: Any, settings: TrainConfig) -> list[RoundRecord]:
    state, records = TrainState(), []
    while state.epoch < settings.epochs:
        for record in train_rounds(update.model, update, sampler, data, settings, state, device=CPU):
            assert state.step(sampler.rounds_per_epoch) == record.number  # moved on before it is handed out
            records.append(record)
    return records


def test_algorithm_1_counts_and_order(
    make_model: Any, make_batch: Any, three_tasks: tuple[Task, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch: rows // batch rounds; in each, for each task in turn, one batch and one step of its optimizer."""
    settings = TrainConfig(epochs=2)
    update = Stepper(make_model(three_tasks), settings, np.random.default_rng(0))
    sampler = RoundSampler(SIZES, BATCHES, seed=3)
    data = {task.name: Rows(task, make_batch) for task in three_tasks}
    owners = {id(optimizer): name for name, optimizer in update.optimizers.items()}
    events: list[str] = []
    plain_step, plain_backward = AdamW.step, torch.Tensor.backward

    def step(self: AdamW, closure: Any = None) -> Any:
        events.append(f"step {owners[id(self)]}")
        return plain_step(self, closure)

    def backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        events.append("backward")
        plain_backward(self, *args, **kwargs)

    monkeypatch.setattr(AdamW, "step", step)
    monkeypatch.setattr(torch.Tensor, "backward", backward)
    built = list(update.optimizers.values())
    records = run_epochs(update, sampler, data, settings)
    rounds = 4  # the smallest of 25 // 5, 40 // 8, 13 // 3
    assert events == [event for name in NAMES for event in ("backward", f"step {name}")] * rounds * 2
    assert [(record.number, record.epoch) for record in records] == [(n + 1, 1 + n // 4) for n in range(8)]
    assert all(list(record.tasks) == NAMES for record in records)
    for name, rows in data.items():
        assert [len(batch) for batch in rows.drawn] == [BATCHES[name]] * 8
        for epoch in range(2):
            drawn = sum(rows.drawn[4 * epoch : 4 * epoch + 4], [])
            assert len(set(drawn)) == len(drawn) == 4 * BATCHES[name]  # without replacement
        assert rows.drawn[:4] != rows.drawn[4:]  # afresh
    # Optimizers are built once a run: their moments and step counts last.
    assert list(update.optimizers.values()) == built
    for optimizer in built:
        assert {state["step"].item() for state in optimizer.state.values()} == {8.0}


def test_the_last_batch_may_be_smaller(make_model: Any, make_batch: Any, three_tasks: tuple[Task, ...]) -> None:
    settings = TrainConfig(epochs=1)
    update = Stepper(make_model(three_tasks), settings, np.random.default_rng(0))
    samples = {"sst": 12, "para": 24, "sts": 7}
    sampler = RoundSampler(SIZES, BATCHES, sample_sizes=samples, seed=3)
    data = {task.name: Rows(task, make_batch) for task in three_tasks}
    records = run_epochs(update, sampler, data, settings)
    assert [[step.rows for step in record.tasks.values()] for record in records] == [[5, 8, 3], [5, 8, 3], [2, 8, 1]]


def factor_by_hand(schedule: str, step: int, total: int, warmup: int) -> float:
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (total - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


@pytest.mark.parametrize(("schedule", "warmup"), [("constant", 0.0), ("linear", 0.25), ("cosine", 0.25)])
def test_learning_rates_as_logged(
    make_config: Any, read_log: Any, tmp_path: Path, schedule: str, warmup: float
) -> None:
    sets = (f"train.schedule={schedule}", f"train.warmup={warmup}", "train.rounds=4", "tasks.sst.lr=3e-5")
    train(make_config(*sets), tmp_path / "run", progress=False)
    lines = [line for line in read_log(tmp_path / "run" / "metrics.jsonl") if "round" in line]
    assert [(line["round"], line["task"]) for line in lines] == [(n + 1, name) for n in range(8) for name in NAMES]
    for line in lines:
        rate = 3e-5 if line["task"] == "sst" else 5e-5
        expected = rate * factor_by_hand(schedule, line["round"] - 1, 8, round(8 * warmup))
        assert line["lr"] == pytest.approx(expected, rel=1e-9, abs=1e-18)


def test_shuffled_task_order_is_the_samplers(make_config: Any, read_log: Any, tmp_path: Path) -> None:
    train(make_config("train.task_order=shuffled", "train.rounds=6", epochs=1), tmp_path / "run", progress=False)
    lines = [line["task"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if "round" in line]
    rounds = [lines[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(names) == sorted(NAMES) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


def test_a_loss_that_is_not_finite_names_round_task_and_rows(make_config: Any, tmp_path: Path) -> None:
    config = make_config("tasks.sts.lr=1e36", "tasks.sts.decoder_lr=1e36", "train.schedule=constant", "train.warmup=0")
    with pytest.raises(
        RunError, match=r"^round 2, task sst, lines (\d+, ){4}\d+ and 3 more of .*sst-train.csv: the loss is (nan|inf)"
    ):
        train(config, tmp_path / "run", progress=False, save_every=1)
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["round-00000001"]


def test_steps_that_are_not_finite_are_skipped_if_asked(
    make_config: Any, read_log: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("tasks.sst.loss_weight=1e39", "train.on_nonfinite=skip", epochs=1)
    train(config, tmp_path / "run")
    assert capsys.readouterr().err.count("sst: skipped, the loss or its gradient was not finite") == 3
    assert json.loads((tmp_path / "run" / "record.json").read_text())["skipped_steps"] == {"sst": 3}
    for line in read_log(tmp_path / "run" / "metrics.jsonl"):
        if "round" in line:
            skipped = line["task"] == "sst"
            assert (line["loss"] is None) == (line["grad_norm"] is None) == skipped


def test_the_estimate_leaves_no_trace(make_config: Any, state_of: Any) -> None:
    prepared = prepare(make_config())
    model, tokenizer = build_model(prepared.config)
    data = to_task_data(prepared.train, model.tasks, tokenizer, model.max_length)
    sampler = RoundSampler({name: len(rows) for name, rows in data.items()}, dict.fromkeys(data, 8), rounds=2, seed=0)
    before, generator = state_of(model), torch.get_rng_state()
    assert estimate_seconds(model, sampler, data, device=CPU, dtype=torch.float32) > 0
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("value", [math.nan, -0.5, math.inf, None, "1", torch.tensor(1.0)])
def test_what_a_schedule_may_not_give(
    make_model: Any, make_batch: Any, three_tasks: tuple[Task, ...], monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    settings, data = TrainConfig(epochs=1), {task.name: Rows(task, make_batch) for task in three_tasks}
    update = Stepper(make_model(three_tasks), settings, np.random.default_rng(0))
    monkeypatch.setitem(SCHEDULES._entries, settings.schedule, lambda *_: value)
    with pytest.raises(ConfigError, match=r"^what train.schedule 'linear' gives for step 0 must be "):
        run_epochs(update, RoundSampler(SIZES, BATCHES, seed=3), data, settings)


def test_a_schedule_may_give_any_number(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES._entries, "linear", lambda *_: np.float32(0.5))
    train(make_config(), tmp_path / "run", progress=False)


# Presets


def losses(model: Any, batches: Any) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return {
            name: task_loss(model.tasks[name], model(name, batch.tokens), batch.labels).item()
            for name, batch in batches.items()
        }


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_runs_as_published(make_config: Any, read_log: Any, tmp_path: Path, preset: str) -> None:
    """One epoch of two rounds; all but that and the weights is as the preset has it."""
    sizes = [f"tasks.{name}.batch_size={PRESETS[preset]['tasks'][name]['batch_size']}" for name in NAMES]
    config = make_config("train.rounds=2", *sizes, preset=preset, epochs=1)
    run = train(config, tmp_path / "run", progress=False)
    lines = [line for line in read_log(tmp_path / "run" / "metrics.jsonl") if "round" in line]
    assert [(line["round"], line["task"]) for line in lines] == [(n, name) for n in (1, 2) for name in NAMES]
    for line in lines:
        table = PRESETS[preset]["tasks"][line["task"]]
        # Ours warms up over 6 % of 2 rounds, which is none, and falls to half in the second.
        factor = 0.5 if preset in ("minilm", "mpnet") and line["round"] == 2 else 1.0
        assert (line["lr"], line["rows"]) == (pytest.approx(table["lr"] * factor), table["batch_size"])
    shared = {run.config.task(name).encoder for name in NAMES}
    assert len(run.model.encoders) == len(shared) == (3 if preset.startswith("slt") else 1)
    assert run.model.decoders["sst"].dropout.p == PRESETS[preset]["tasks"]["sst"]["dropout"]
    scores = run.evaluate()
    assert {name: score.n for name, score in scores.items()} == {"sst": 24, "para": 24, "sts": 24}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_learns_a_fixed_batch(make_config: Any, preset: str) -> None:
    """The summed loss of one fixed batch falls by a tenth. The issue says lr 1e-4, for pretrained weights;
    these are random and 32 wide, so the rate is 1e-3 and there are 25 rounds.
    """
    same = [f"tasks.{name}.{key}" for name in NAMES for key in ("lr=1e-3", "decoder_lr=none", "batch_size=16")]
    prepared = prepare(make_config(*same, "train.schedule=constant", "train.warmup=0", preset=preset), limit=16)
    torch.manual_seed(0)
    model, tokenizer = build_model(prepared.config)
    data = to_task_data(prepared.train, model.tasks, tokenizer, model.max_length)
    batches = {name: data[name].batch(np.arange(16)) for name in NAMES}
    settings = prepared.config.train
    update = Stepper(model, settings, np.random.default_rng(0))
    before = losses(model, batches)
    model.train()
    for _ in range(25):
        update.round(batches, 1.0)
    after = losses(model, batches)
    assert sum(after.values()) < 0.9 * sum(before.values())
    assert after["sts"] < 0.9 * before["sts"]
    values = outputs_of(model, "sts", data["sts"].texts, device=CPU, dtype=torch.float32)
    assert bool(values.isfinite().all())
