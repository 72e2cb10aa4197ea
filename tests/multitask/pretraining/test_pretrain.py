"""A whole pretraining: what it leaves, and that a stopped one goes on to the same bytes."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import multitask
from minbert import BertModel, BertTokenizer
from multitask import ConfigError, DataError, PretrainConfig, RunError, StoppedError
from multitask.pretraining.pretrain import pretrain
from multitask.pretraining.start import load_model
from multitask.training.run_folder import JsonLines

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = ("model.safetensors", "config.json", "tokenizer.json", "pretraining.json", "pretraining.jsonl")


@pytest.fixture
def settings(tiny_weights: Path) -> PretrainConfig:
    """Two epochs of six steps on the tiny encoder."""
    return PretrainConfig(weights=tiny_weights, epochs=2, batch_size=16, lr=3e-3, precision="float32")


@pytest.fixture
def run(text_file: Path, settings: PretrainConfig) -> Callable[..., multitask.Pretrained]:
    """A function of a folder: pretrains into it."""

    def of(out: Path, **options: Any) -> multitask.Pretrained:
        return pretrain(text_file, out, **{"settings": settings, "progress": False, "save_every": 2, **options})

    return of


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def stop_after(patch: pytest.MonkeyPatch, lines: int) -> None:
    """Send SIGTERM after so many lines of the log: one for each score and each step."""
    write, count = JsonLines.write, [0]

    def counting(self: JsonLines, **values: Any) -> None:
        write(self, **values)
        count[0] += 1
        if count[0] == lines:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(JsonLines, "write", counting)


def test_the_loss_falls_and_the_folder_is_one_of_weights(
    run: Callable[..., Any], tiny_weights: Path, tmp_path: Path
) -> None:
    found = run(tmp_path / "out")
    assert len(found.scores) == 3
    assert found.scores[2].loss < found.scores[0].loss - 0.2
    assert {path.name for path in found.folder.iterdir()} >= {*FILES, "tokenizer_config.json"}
    assert not (found.folder / "checkpoints").exists()
    encoder, before = BertModel.from_pretrained(found.folder, warn=False), BertModel.from_pretrained(tiny_weights)
    assert encoder.pooler is not None
    assert before.pooler is not None
    assert encoder.pooler.weight.equal(before.pooler.weight)  # nothing that it is trained on reads the pooler
    assert not encoder.layers[0].output.weight.equal(before.layers[0].output.weight)
    texts = ["a b c", "c"]
    ids = [BertTokenizer.from_pretrained(folder)(texts).input_ids for folder in (found.folder, tiny_weights)]
    assert ids[0].equal(ids[1])
    record = json.loads((found.folder / "pretraining.json").read_text())
    assert (record["texts"], record["held_out_texts"], record["head"]) == (81, 9, "of the weights")
    steps = [json.loads(line) for line in (found.folder / "pretraining.jsonl").read_text().splitlines()]
    assert [line["number"] for line in steps if "number" in line] == list(range(1, 13))


def test_transformers_and_train_take_the_folder(run: Callable[..., Any], root: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    found = run(tmp_path / "out")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(found.folder).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(found.folder)("a b c", return_tensors="pt")
    mine = load_model(found.folder, None)[0]
    with torch.no_grad():
        difference = theirs(**tokens).logits - mine(tokens["input_ids"])
    assert difference.abs().max() <= 1e-5
    task = multitask.Task(name="topic", text="message", label="topic", train=str(root / "examples/data/helpdesk.tsv"))
    short = multitask.TrainConfig(epochs=1, rounds=2, min_rounds=None)
    trained = multitask.train(tasks=[task], weights=found.folder, out=tmp_path / "run", progress=False, settings=short)
    assert trained.predict("topic", ["My parcel is late."])


@pytest.mark.parametrize("lines", [2, 6, 8, 13])
def test_a_stopped_training_goes_on_to_the_same_bytes(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, lines)
        with pytest.raises(StoppedError):
            run(tmp_path / "out", save_every=1000)
    torch.manual_seed(5)
    run(tmp_path / "out", resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_killed_process_goes_on_in_another_to_the_same_bytes(
    run: Callable[..., Any],
    settings: PretrainConfig,
    text_file: Path,
    tiny_weights: Path,
    start: Any,
    ended: Any,
    tmp_path: Path,
) -> None:
    settings = replace(settings, whole_words=True)
    run(tmp_path / "whole", settings=settings)
    program = (
        "import os, signal, sys\n"
        "from multitask.__main__ import main\n"
        "from multitask.training.run_folder import JsonLines\n"
        "write = JsonLines.write\n"
        "def log(self, **values):\n"
        "    write(self, **values)\n"
        "    values.get('number') == 11 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "JsonLines.write = log\n"
        "main(sys.argv[1:])\n"
    )
    words = ["pretrain", text_file, "--weights", tiny_weights, "--epochs", 2, "--batch-size", 16, "--lr", 3e-3]
    words += ["--precision", "float32", "--threads", 1, "--save-every", 2, "--quiet", "--whole-words", "--out"]
    (killed,) = start(1, "-c", program, *words, tmp_path / "out")
    assert ended(killed) == ("", "")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "model.safetensors").exists()
    run(tmp_path / "out", settings=settings, resume=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_finished_one_is_returned_as_it_is(run: Callable[..., Any], tmp_path: Path) -> None:
    found = run(tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert run(tmp_path / "out", resume=True) == found
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"out: must hold a complete checkpoint to resume from, got only config.json, "):
        run(tmp_path / "out", resume=True)


def test_what_changed_since_the_checkpoint_is_named(
    run: Callable[..., Any], settings: PretrainConfig, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(StoppedError):
            run(tmp_path / "out")
    with pytest.raises(RunError, match=r"out: to be resumed, settings.lr must be 0.003, got 0.1$"):
        run(tmp_path / "out", resume=True, settings=replace(settings, lr=0.1))
    text_file.write_text(text_file.read_text() + "a b c d\n")
    with pytest.raises(RunError, match="out: to be resumed, files must be"):
        run(tmp_path / "out", resume=True)


def test_another_tokenizer_is_refused_at_a_resume(
    run: Callable[..., Any], settings: PretrainConfig, tiny_weights: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The checkpoint has the weights, but their folder the tokenizer."""
    weights = shutil.copytree(tiny_weights, tmp_path / "weights")
    settings = replace(settings, weights=weights)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(StoppedError):
            run(tmp_path / "out", settings=settings)
    words = (weights / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (weights / "vocab.txt").write_text("\n".join([*words[:-9], *reversed(words[-9:])]), encoding="utf-8")
    with pytest.raises(RunError, match="weights: its tokenizer must be the one that .*out was trained with so far"):
        run(tmp_path / "out", settings=settings, resume=True)


def test_a_folder_with_something_else_in_it_is_left_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="out: must be empty, got a folder with files in it"):
        run(tmp_path / "out")
    with pytest.raises(RunError, match=r"must hold a complete checkpoint to resume from, got only thesis.txt"):
        run(tmp_path / "out", resume=True)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != ".lock"] == ["thesis.txt"]


def test_minutes_end_it_early_with_a_score(run: Callable[..., Any], settings: PretrainConfig, tmp_path: Path) -> None:
    found = run(tmp_path / "out", settings=replace(settings, epochs=1000, minutes=0.01))
    assert 1 <= len(found.scores) < 100
    record = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert record["ended_early"]
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_not_written(
    run: Callable[..., Any], settings: PretrainConfig, tmp_path: Path
) -> None:
    """The only step has a finite loss, but what it leaves has none."""
    settings = replace(settings, epochs=1, batch_size=100, lr=1e30, warmup=0.0)
    with pytest.raises(RunError, match=r"^epoch 1: the loss on held-out text is (nan|inf); lower the learning rate"):
        run(tmp_path / "out", settings=settings)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_texts_without_a_known_token_are_refused(settings: PretrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("☃\n☃ ☃\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^the texts to train on must have tokens that .* knows, got none in 1, such"):
        pretrain(path, tmp_path / "out", settings=settings, progress=False)


def test_settings_that_are_not_allowed(text_file: Path, tmp_path: Path) -> None:
    for values, message in (
        ({"lr": 0}, "pretraining.lr must be finite and above 0, got 0"),
        ({"max_length": 2}, "pretraining.max_length must be .*at least 3.*, got 2"),
        ({"epochs": 0.5}, "pretraining.epochs must be .*, got 0.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            PretrainConfig(**values)
    given: dict[str, Any] = {"files": text_file, "out": tmp_path / "out"}
    for key, value, message in (
        ("settings", {"lr": 1}, r"settings must be a PretrainConfig, got {'lr': 1}"),
        ("format", {"header": False}, r"format must be a Format, got {'header': False}"),
        ("files", None, r"files must be a path or a list of paths, got None"),
        ("files", [text_file, 5], r"files must be a path or a list of paths, got 5"),
        ("text", ["a", 3], r"text must be a column or a list of columns, got 3"),
        ("out", None, r"out must be a folder, got None"),
    ):
        with pytest.raises(ConfigError, match=f"^{message}$"):
            pretrain(**given | {key: value})
