"""Fixtures of the tests that train: tiny encoders with random weights, three tasks on them, batches, files of rows."""

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.model import BertModel
from minbert.optim import AdamW
from minbert.token_batch import TokenBatch
from multitask.data.batches import Batch
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.settings.config import RunConfig, build_config
from multitask.settings.task import Task
from multitask.training.checkpoints import latest_checkpoint
from multitask.training.run_folder import JsonLines
from multitask.updates.stepper import Stepper

MakeModel = Callable[..., MultitaskModel]
MakeBatch = Callable[..., Batch]
GOOD, BAD = ("good", "lovely", "great"), ("bad", "dull", "poor")


@pytest.fixture(scope="session")
def three_tasks() -> tuple[Task, ...]:
    """One task of each kind, with rates that differ and a weight decay that would show."""
    pair = {"text": ("a", "b"), "dropout": 0.0, "decoder_lr": None}
    return (
        Task(
            name="sst",
            text="a",
            label="y",
            labels=tuple("01234"),
            dropout=0.0,
            lr=1e-3,
            decoder_lr=None,
            weight_decay=0.1,
        ),
        Task(name="para", **pair, label="y", kind="binary", labels=("0", "1"), lr=3e-3, weight_decay=0.2),
        Task(name="sts", **pair, label="y", kind="regression", labels=(0.0, 5.0), lr=2e-3, weight_decay=0.3),
    )


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """A function of tasks, a seed and config values: a model in float64 and train mode, every parameter random."""

    def make(tasks: Sequence[Task], *, seed: int = 0, pooler: bool = True, **values: Any) -> MultitaskModel:
        sizes: dict[str, Any] = {
            "vocab_size": 40,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 24,
            "max_position_embeddings": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        config = BertConfig(**{**sizes, **values})
        encoders = {task.encoder: BertModel(config, pooler) for task in tasks}
        model = MultitaskModel(encoders, tasks).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                middle = 1.0 if name.endswith("LayerNorm.weight") else 0.0
                parameter.copy_(middle + 0.3 * torch.randn(parameter.shape, generator=generator))
        return model.train()

    return make


@pytest.fixture(scope="session")
def make_batch() -> MakeBatch:
    """A function of a task, a number of rows and a seed: a random batch whose rows differ in length."""

    def make(task: Task, rows: int = 9, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        texts = rows * task.encodings
        lengths = torch.randint(2, 11, (texts, 1), generator=generator)
        mask = (torch.arange(int(lengths.max())) < lengths).long()
        ids = torch.randint(1, 40, mask.shape, generator=generator) * mask
        types = torch.randint(2, mask.shape, generator=generator) * mask
        if task.kind == "regression":
            labels = torch.rand(rows, generator=generator) * 5
        else:
            labels = torch.randint(len(task.classes), (rows,), generator=generator)
        return Batch(TokenBatch(ids, types, mask), labels)

    return make


@pytest.fixture(scope="session")
def make_batches(make_batch: MakeBatch) -> Callable[..., dict[str, Batch]]:
    """A function of a model and a seed: one random batch of each of its tasks."""

    def make(model: MultitaskModel, seed: int = 0) -> dict[str, Batch]:
        tasks = enumerate(model.tasks.items())
        return {name: make_batch(task, 7 + 2 * index, 10 * seed + index) for index, (name, task) in tasks}

    return make


@pytest.fixture(scope="session")
def state_of() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """A function of a module: a copy of its tensors."""
    return lambda module: {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="session")
def gradients_of() -> Callable[..., dict[nn.Parameter, Tensor]]:
    """A function of a model and batches: each parameter's gradient, where a loss reaches it."""

    def gradients(model: MultitaskModel, batches: Mapping[str, Batch]) -> dict[nn.Parameter, Tensor]:
        """The gradient of the summed losses, by one autograd pass; parameters that no loss reaches are left out."""
        losses = [
            task_loss(model.tasks[name], model(name, batch.tokens), batch.labels) for name, batch in batches.items()
        ]
        parameters = list(model.parameters())
        found = torch.autograd.grad(torch.stack(losses).sum(), parameters, allow_unused=True)
        return {p: gradient for p, gradient in zip(parameters, found, strict=True) if gradient is not None}

    return gradients


@pytest.fixture(scope="session")
def spy() -> Callable[..., list[tuple[str, dict[str, Tensor]]]]:
    """A function of an update and a monkeypatch: a list that its optimizers' steps will be put into."""

    def watched(update: Stepper, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Tensor]]]:
        """Each optimizer's steps as they come: its name, and the gradients it stepped on by parameter name."""
        names = {p: name for part in (update.model, update.update) for name, p in part.named_parameters()}
        steps: list[tuple[str, dict[str, Tensor]]] = []
        owners = {id(optimizer): name for name, optimizer in update.optimizers.items()}
        plain = AdamW.step

        def step(self: AdamW, closure: Any = None) -> Any:
            parameters = [p for group in self.param_groups for p in group["params"]]
            steps.append((owners[id(self)], {names[p]: p.grad.clone() for p in parameters if p.grad is not None}))
            return plain(self, closure)

        monkeypatch.setattr(AdamW, "step", step)
        return steps

    return watched


@pytest.fixture(scope="session")
def course_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files named and laid out as the course's, of words that the tiny vocabulary spells; labels can be learned."""
    folder = tmp_path_factory.mktemp("course")
    rng = np.random.default_rng(0)

    def sentence(good: int) -> str:
        words = [*rng.choice(GOOD, good), *rng.choice(BAD, 4 - good), *rng.choice(["film", "story", "the", "a"], 2)]
        return " ".join(rng.permutation(words).tolist())

    def write(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        lines = ["\t".join(map(str, row)) for row in (["", *columns], *rows)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    for split, count in (("train", 300), ("dev", 24), ("test-student", 6)):
        goods = rng.integers(0, 5, count).tolist()
        rows = [[i, f"s{i}", sentence(good), good] for i, good in enumerate(goods)]
        write(f"ids-sst-{split}.csv", ("id", "sentence", "sentiment"), rows)
        pairs = [
            (sentence(first), sentence(second), first, second) for first, second in itertools.pairwise([*goods, 2])
        ]
        rows = [[i, f"p{i}", a, b, float(x == y)] for i, (a, b, x, y) in enumerate(pairs)]
        write(f"quora-{split}.csv", ("id", "sentence1", "sentence2", "is_duplicate"), rows)
        rows = [[i, f"t{i}", a, b, 5 - 1.25 * abs(x - y)] for i, (a, b, x, y) in enumerate(pairs)]
        write(f"sts-{split}.csv", ("id", "sentence1", "sentence2", "similarity"), rows)
    return folder


@pytest.fixture
def make_config(course_like: Path, tiny_weights: Path) -> Callable[..., RunConfig]:
    """A function of ``--set`` assignments: a short run of the three tasks on the tiny weights."""

    def make(*sets: str, preset: str = "minilm", weights: Path = tiny_weights, epochs: int = 2) -> RunConfig:
        small = [f"tasks.{name}.batch_size=8" for name in ("sst", "para", "sts")] if preset == "minilm" else []
        given = {assignment.split("=")[0] for assignment in sets}
        sets = (*(value for value in small if value.split("=")[0] not in given), *sets)
        rounds = None if "train.rounds" in given else 3
        return build_config(
            preset=preset, sets=sets, data=course_like, weights=str(weights), epochs=epochs, rounds=rounds
        )

    return make


@pytest.fixture
def read_log() -> Callable[[Path], list[dict[str, Any]]]:
    """A function of a .jsonl file: its objects."""
    return lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """A function of a run folder: every file that has to be equal to the byte."""

    def of(out: Path) -> dict[str, bytes]:
        """Log, best epoch, last checkpoint less its own log's length."""
        files = [out / "metrics.jsonl", *sorted((out / "best").iterdir())]
        last = latest_checkpoint(out / "checkpoints")
        assert last is not None
        files += [last / name for name in ("model.safetensors", "optimizers.safetensors", "generators.safetensors")]
        return {str(path.relative_to(out)): path.read_bytes() for path in files}

    return of


@pytest.fixture(scope="session")
def stop_after() -> Callable[[pytest.MonkeyPatch, int, Callable[[], None]], None]:
    """A function of a patch, a number and an act: calls it once, after so many lines of a log (four a round)."""

    def stop(patch: pytest.MonkeyPatch, lines: int, act: Callable[[], None]) -> None:
        write, count = JsonLines.write, [0]

        def counting(self: JsonLines, **values: Any) -> None:
            write(self, **values)
            count[0] += 1
            if count[0] == lines:
                act()

        patch.setattr(JsonLines, "write", counting)

    return stop


@pytest.fixture(scope="session")
def start() -> Callable[..., list[subprocess.Popen[bytes]]]:
    """A function of a number and words: the same Python command in so many processes, told as torchrun tells them."""

    def run(ranks: int, *command: object) -> list[subprocess.Popen[bytes]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
        words = [sys.executable, *map(str, command)]
        return [
            subprocess.Popen(words, env={**common, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for rank in range(ranks)
        ]

    return run


@pytest.fixture(scope="session")
def ended() -> Callable[[subprocess.Popen[bytes]], tuple[str, str]]:
    """A function of a process: its standard output and error, when it has ended by itself within two minutes."""

    def wait(process: subprocess.Popen[bytes]) -> tuple[str, str]:
        try:
            output, messages = process.communicate(timeout=120)
        finally:
            process.kill()
            process.wait()
        return output.decode(), messages.decode()

    return wait


@pytest.fixture(scope="session")
def finish(ended: Callable[..., tuple[str, str]]) -> Callable[..., list[str]]:
    """A function of processes and a status: their messages, when all have ended with that status, 0 unless told."""

    def wait(processes: Sequence[subprocess.Popen[bytes]], status: int = 0) -> list[str]:
        messages = [ended(process)[1] for process in processes]
        assert [process.returncode for process in processes] == [status] * len(processes), messages
        return messages

    return wait


@pytest.fixture(scope="session")
def options() -> Callable[[RunConfig, Path], list[str]]:
    """A function of a configuration and a folder to write to: arguments of ``train`` that come to the same."""

    def of(config: RunConfig, folder: Path) -> list[str]:
        lines = [
            f'[tasks.{task.name}]\ntrain = "{task.train}"\ndev = "{task.dev}"\nbatch_size = {task.batch_size}\n'
            for task in config.tasks
        ]
        (folder / "tasks.toml").write_text("".join(lines), encoding="utf-8")
        tasks = ["--tasks", str(folder / "tasks.toml"), "--weights", config.encoder.weights]
        return [*tasks, "--epochs", "2", "--rounds", "18", "--quiet"]

    return of
