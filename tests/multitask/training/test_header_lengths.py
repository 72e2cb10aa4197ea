"""Task sets drawn at random train, save, load and resume, whatever length of header their decoders get.

The first bytes of a safetensors file are its header's length, which names, classes and poolings decide; those of 640,
896 and 1,152 also begin a pickle (80 02, 80 03, 80 04).
"""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from minbert.config import BertConfig
from minbert.files.storage import read_tensors
from multitask import Run
from multitask.errors import StoppedError
from multitask.model.decoders import TaskDecoder
from multitask.settings.config import build_config
from multitask.settings.task import Task
from multitask.training import train as training
from multitask.training.checkpoints import latest_checkpoint
from multitask.training.run_folder import JsonLines

pytestmark = pytest.mark.usefixtures("one_thread")

Table = dict[str, Any]

NAMES = ["topic", "mood", "spam", "nli", "rte", "qa", "q", "sts", "toxicity", "stars"]
CLASSES = [
    "account",
    "billing",
    "delivery",
    "fault",
    "joy",
    "anger",
    "fear",
    "low",
    "middle",
    "high",
    "other",
    "praise",
]
WORDS = ["the", "a", "film", "story", "good", "bad", "lovely", "dull", "great", "poor"]
STEERED = (640, 896, 1152)
SETS = 20


def drawn_task(rng: random.Random) -> Table:
    """One task's table of a TOML file, with its labels always given, so that they alone set the head's width."""
    kind = rng.choice(["classification", "classification", "binary", "regression"])
    table: Table = {
        "text": rng.choice([["message"], ["first", "second"]]),
        "label": "answer",
        "kind": kind,
        "pooling": rng.choice(["attention", "pooler", "cls", "mean", "max"]),
        "batch_size": 4,
    }
    if kind == "regression":
        table["labels"] = [0.0, 5.0]
    else:
        table["labels"] = rng.sample(CLASSES, 2 if kind == "binary" else rng.randint(2, len(CLASSES)))
    if len(table["text"]) == 2:
        table["input"] = rng.choice(["joint", "separate"])
        if kind == "regression" and table["input"] == "separate":
            table["head"] = rng.choice(["linear", "cosine"])
    return table


def drawn_set(rng: random.Random) -> dict[str, Table]:
    """One to four tasks, called by one to three words each."""
    names = {rng.choice("_-").join(rng.sample(NAMES, rng.randint(1, 3))) for _ in range(rng.randint(1, 4))}
    return {name: drawn_task(rng) for name in sorted(names)}


def header_length(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def decoders_header(tables: dict[str, Table], config: BertConfig) -> int:
    """The length of the header that the set's decoders.safetensors will have."""
    decoders = {name: TaskDecoder(Task(name=name, **table), config) for name, table in tables.items()}
    return header_length(save(nn.ModuleDict(decoders).state_dict()))


def drawn_sets() -> list[dict[str, Table]]:
    """The task sets: for each of the steered lengths the first two draws that have it, then whatever is drawn."""
    rng = random.Random(20261125)
    config = BertConfig.from_folder(Path(__file__).parents[3] / "weights" / "tiny-bert")
    steered: dict[int, list[dict[str, Table]]] = {length: [] for length in STEERED}
    for _ in range(20_000):
        tables = drawn_set(rng)
        found = steered.get(decoders_header(tables, config))
        if found is not None and len(found) < 2:
            found.append(tables)
        if all(len(found) == 2 for found in steered.values()):
            break
    sets = [tables for found in steered.values() for tables in found]
    assert len(sets) == 2 * len(STEERED), "too few draws have headers of these lengths"
    return [*sets, *(drawn_set(rng) for _ in range(SETS - len(sets)))]


def write_set(folder: Path, tables: dict[str, Table], rng: random.Random) -> Path:
    """A TOML file of the tasks, with 40 rows each in a file beside it."""
    lines = []
    for name, table in tables.items():
        rows = []
        for number in range(40):
            texts = {column: " ".join(rng.choices(WORDS, k=rng.randint(1, 8))) for column in table["text"]}
            labels = table["labels"]
            answer = 5 * rng.random() if table["kind"] == "regression" else labels[number % len(labels)]
            rows.append(json.dumps({**texts, "answer": answer}))
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        lines += [f"[tasks.{name}]", f'train = "{name}.jsonl"', f'dev = "{name}.jsonl"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    toml = folder / "tasks.toml"
    toml.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return toml


@pytest.fixture(scope="module")
def sets() -> list[dict[str, Table]]:
    return drawn_sets()


def stop_after_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM once the first round is logged: a line a task, then one of its time."""
    write, sent = JsonLines.write, [False]

    def signalling(self: JsonLines, **values: Any) -> None:
        write(self, **values)
        if "seconds" in values and not sent[0]:
            sent[0] = True
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(JsonLines, "write", signalling)


@pytest.mark.parametrize("number", range(SETS))
def test_a_drawn_set_trains_saves_loads_and_resumes(
    sets: list[dict[str, Table]], number: int, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = sets[number]
    config = build_config(
        tasks_file=write_set(tmp_path, tables, random.Random(number)),
        weights=str(tiny_weights),
        epochs=1,
        rounds=3,
        seed=number,
    )
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after_one_round(patch)
        with pytest.raises(StoppedError):
            training.train(config, out, progress=False)
    checkpoint = latest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "round-00000001"

    trained = training.train(config, out, resume=True, progress=False)
    file = out / "best" / "decoders.safetensors"
    if number < 2 * len(STEERED):
        assert header_length(file.read_bytes()) == STEERED[number // 2]

    run = Run.load(out)
    decoders = run.model.decoders.state_dict()
    assert decoders.keys() == read_tensors(file).keys()
    assert all(torch.equal(tensor, decoders[name]) for name, tensor in trained.model.decoders.state_dict().items())
    for name, table in tables.items():
        row = "a good film" if len(table["text"]) == 1 else ("a good film", "a dull story")
        (prediction,) = run.predict(name, [row])
        assert isinstance(prediction.label, float) or prediction.label in table["labels"]
