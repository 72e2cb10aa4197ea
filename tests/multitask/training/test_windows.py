"""Long texts in training, evaluation and prediction: by hand, and resumed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.tokenizer import BertTokenizer
from multitask import EncoderConfig, Run, RunConfig, Task, TrainConfig
from multitask.__main__ import main
from multitask.data.batches import EncodedTexts, TaskData
from multitask.data.examples import Example
from multitask.errors import StoppedError
from multitask.evaluation import outputs_of
from multitask.model.losses import task_loss
from multitask.model.model import MultitaskModel
from multitask.training.train import train
from multitask.updates.stepper import Stepper

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = {0: ("bad", "dull"), 1: ("good", "great")}
TASK = Task(
    name="mood", text="text", label="mood", kind="binary", labels=("0", "1"), long="windows", windows=6, dropout=0.0,
    batch_size=4, decoder_lr=None,
)  # fmt: skip
CPU = torch.device("cpu")


def examples_of(count: int = 40) -> list[Example]:
    """Rows whose label only their last words tell, after up to 200 others."""
    rng = np.random.default_rng(0)
    return [
        Example(
            str(row), (" ".join([*["film"] * int(rng.integers(200)), *rng.choice(WORDS[row % 2], 3)]),), row % 2, row
        )
        for row in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer(tiny_weights: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny_weights)


@pytest.fixture
def data(tokenizer: BertTokenizer) -> TaskData:
    return TaskData.build(TASK, examples_of(), tokenizer, 32)


@pytest.fixture
def model(make_model: Any, tokenizer: BertTokenizer) -> MultitaskModel:
    made: MultitaskModel = make_model([TASK], vocab_size=tokenizer.vocab_size)
    return made


def by_hand(model: MultitaskModel, data: TaskData, row: int) -> torch.Tensor:
    """The mean of the outputs of each window, encoded alone."""
    tokens, windows = data.texts.batch(np.array([row]))
    assert windows == (len(tokens.input_ids),)
    alone = [{name: tensor[[window]] for name, tensor in tokens.items()} for window in range(windows[0])]
    return torch.stack([model("mood", one)[0] for one in alone]).mean(0)


def test_outputs_are_the_mean_of_the_windows(model: MultitaskModel, data: TaskData) -> None:
    assert (data.texts.windows > 1).sum() > 20
    with torch.no_grad():
        wanted = torch.stack([by_hand(model.eval(), data, row) for row in range(len(data))])
    found = outputs_of(model, "mood", data.texts, device=CPU, dtype=torch.float32)
    assert torch.allclose(found, wanted.float(), atol=1e-6)
    assert wanted.std() > 1e-3


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_is_that_of_the_averaged_outputs(
    accumulate: int, model: MultitaskModel, data: TaskData, spy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.array([3, 17, 8, 0, 21])
    outputs = torch.stack([by_hand(model, data, row) for row in rows])
    loss = task_loss(TASK, outputs, data.labels[rows])
    names = {parameter: name for name, parameter in model.named_parameters()}
    gradients = torch.autograd.grad(loss, list(names), allow_unused=True)
    stepper = Stepper(model, TrainConfig(accumulate=accumulate), np.random.default_rng(0))
    steps = spy(stepper, monkeypatch)
    record = stepper.round({"mood": data.batch(rows)}, 1.0)["mood"]
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    assert record.rows == 5
    ((_, found),) = steps
    wanted = {name: grad for name, grad in zip(names.values(), gradients, strict=True) if grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=1e-8), name


def test_means_of_low_precision_outputs_are_taken_in_float32(model: MultitaskModel, data: TaskData) -> None:
    batch = data.batch(np.arange(6))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model.float().eval()
        each, found = model("mood", batch.tokens), model("mood", batch.tokens, batch.windows)
    assert found.dtype == torch.float32
    assert batch.windows is not None
    wanted = torch.stack([part.float().mean(0) for part in each.split(batch.windows)])
    assert found.equal(wanted)


def config_of(weights: Path, file: Path, **changes: Any) -> RunConfig:
    task = replace(TASK, train=file, dropout=0.3, **changes)
    settings = TrainConfig(epochs=2, rounds=4, update="combined", hold_out=True)
    return RunConfig(encoder=EncoderConfig(weights=str(weights)), train=settings, tasks=(task,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    lines = [f"{example.texts[0]},{example.label}" for example in examples_of()]
    path.write_text("\n".join(["text,mood", *lines]) + "\n", encoding="utf-8")
    return path


def test_a_stopped_run_goes_on_to_the_same_bytes(
    file: Path, tiny_weights: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    config = config_of(tiny_weights, file)
    train(config, tmp_path / "whole", progress=False, keep_optimizer=True)
    with pytest.raises(StoppedError):
        train(
            config, tmp_path / "cut", progress=False, on_round=lambda done: "stop" if done.number == 5 else None,
            keep_optimizer=True,
        )  # fmt: skip
    train(config, tmp_path / "cut", progress=False, resume=True, keep_optimizer=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_predictions_are_those_of_the_evaluation(file: Path, tiny_weights: Path, tmp_path: Path) -> None:
    run = train(config_of(tiny_weights, file, windows=3), tmp_path / "run", progress=False)
    record = json.loads((run.folder / "record.json").read_text(encoding="utf-8"))
    mood, most = record["tasks"]["mood"], run.model.max_length
    assert mood["truncated_train_rows"] > 0
    windowed = mood["windowed_train_rows"]
    read, cut, *_of_dev = (note for note in record["notes"] if f" {most} tokens " in note)
    assert f"mood: {windowed} of 36 training rows are longer than {most} tokens and read in windows" in read
    assert f"have more windows of {most} tokens and are cut: tasks.mood.windows" in cut
    texts = [example.texts for example in examples_of()]
    encoded = EncodedTexts(run.model.tasks["mood"], texts, run.tokenizer, most)
    outputs = outputs_of(run.model, "mood", encoded, device=CPU, dtype=run.dtype)
    answers = Run.load(run.folder).predict("mood", [text for (text,) in texts])
    assert [answer.truncated for answer in answers] == encoded.truncated.tolist()
    assert [answer.probabilities[1] for answer in answers if answer.probabilities] == pytest.approx(
        outputs.squeeze(1).sigmoid().tolist(), abs=1e-6
    )
    # The end of a text reaches the answer through its windows, and not where only its head is read.
    ends = [" ".join(["film"] * 100 + [word] * 3) for word in ("bad", "great")]
    different = {answer.probabilities for answer in run.predict("mood", ends)}
    assert len(different) == 2
    head = train(config_of(tiny_weights, file, long="head"), tmp_path / "head", progress=False)
    assert len({answer.probabilities for answer in head.predict("mood", ends)}) == 1


def test_from_the_command_line(
    file: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "tasks.toml"
    table = '[tasks.mood]\ntrain = "rows.csv"\ntext = "text"\nlabel = "mood"\nkind = "binary"\nlong = "head-tail"\n'
    toml.write_text(table, encoding="utf-8")
    words = ["train", "--tasks", toml, "--weights", tiny_weights, "--out", tmp_path / "run", "--epochs", 1]
    assert main([str(word) for word in [*words, "--set=tasks.mood.batch_size=4", "--set=train.rounds=2"]]) == 0
    said = capsys.readouterr().err
    assert said.count("training rows") == 2  # how many there are, and how many are cut
    assert "tokens and lose their middle: tasks.mood.long\n" in said
    (tmp_path / "new.txt").write_text("film " * 200 + "\na film\n", encoding="utf-8")
    words = ["predict", tmp_path / "run", "--input", tmp_path / "new.txt", "--output", tmp_path / "out.tsv", "--quiet"]
    assert main([str(word) for word in words]) == 0
    assert "mood: 1 of 2 rows (50 %) are longer than 64 tokens and lose their middle: tasks.mood.long\n" in (
        capsys.readouterr().err
    )
