"""Runs in their folders: moving, answers that agree, and folders that are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from minbert.errors import InputError, WeightsError
from minbert.files.storage import read_tensors, write_tensors
from minbert.model import BertModel
from multitask.data.examples import read_examples
from multitask.errors import ConfigError, DataError, RunError
from multitask.model.model import MultitaskModel
from multitask.run import Run
from multitask.settings.config import build_config
from multitask.training.train import train

NAMES = ("sst", "para", "sts")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, course_like: Path, tiny_weights: Path) -> Run:
    """Three tasks on one encoder, with all the default preset has but its batches."""
    sets = [f"tasks.{name}.{value}" for name in NAMES for value in ("batch_size=16", "lr=1e-3", "decoder_lr=3e-3")]
    config = build_config(sets=sets, data=course_like, weights=str(tiny_weights), epochs=2, rounds=6)
    return train(config, tmp_path_factory.mktemp("trained") / "run", progress=False)


def dev_rows(run: Run, name: str) -> Any:
    task = run.config.task(name)
    assert task.dev is not None
    return read_examples(task.dev, task).examples


@pytest.mark.parametrize("name", NAMES)
def test_predict_equals_evaluate(trained: Run, name: str) -> None:
    examples, task = dev_rows(trained, name), trained.config.task(name)
    score, found = trained.evaluate()[name], list(trained.predict_stream(name, examples))
    assert [row.id for row in found] == [example.id for example in examples]
    if task.kind == "regression":
        pearson = np.corrcoef([row.label for row in found], [example.label for example in examples])[0, 1]
        assert score.value == pytest.approx(pearson, abs=1e-6)
    else:
        right = [row.label == task.classes[example.label] for row, example in zip(found, examples, strict=True)]
        assert score.value == sum(right) / len(right)
    assert (score.n, score.metric) == (len(examples), task.scored_by)
    assert score.low <= score.value <= score.high
    for row, example in zip(found, examples, strict=True):
        alone = trained.predict(name, [example.texts])[0]
        if task.kind == "regression":
            assert isinstance(row.label, float)
            assert alone.label == pytest.approx(row.label, abs=1e-5)
        else:
            assert alone.label == row.label
            assert alone.probabilities == pytest.approx(row.probabilities, abs=1e-5)


def test_labels_are_spelled_as_in_training(trained: Run) -> None:
    assert {row.label for row in trained.predict_stream("sst", dev_rows(trained, "sst"))} <= set("01234")
    # The course spells Quora's labels 0.0 and 1.0, and wants 0 and 1.
    assert {row.label for row in trained.predict_stream("para", dev_rows(trained, "para"))} <= {"0", "1"}


def test_rows_are_answered_in_their_order(trained: Run) -> None:
    texts = ["good " * n + "film" for n in (9, 1, 30, 3, 300)]
    found = trained.predict("sst", texts)
    assert [row.id for row in found] == list("12345")
    assert [row.probabilities for row in trained.predict("sst", texts[::-1])][::-1] == [
        pytest.approx(row.probabilities, abs=1e-5) for row in found
    ]
    assert trained.predict("sst", []) == []


def test_rows_keep_their_order_over_windows(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [" ".join(["good", "film"] * (1 + 7 * i % 11)) for i in range(50)]
    expected = trained.predict("sst", rows)
    monkeypatch.setattr("multitask.run._WINDOW", 8)
    found = trained.predict("sst", rows)
    assert [answer.id for answer in found] == [str(number) for number in range(1, 51)]
    assert [answer.label for answer in found] == [answer.label for answer in expected]
    for answer, other in zip(found, expected, strict=True):
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.parametrize("text", ["good " * 10_000, "x" * 2**20, "é" * 2**20, "🙂" * 100_000], ids=len)
def test_very_long_rows_are_cut_and_answered(trained: Run, text: str) -> None:
    (answer,) = trained.predict("sst", [text])
    assert sum(answer.probabilities or ()) == pytest.approx(1, abs=1e-5)
    assert answer.truncated == (text.startswith("good"))  # a long word is one unknown token


def test_bad_questions(trained: Run) -> None:
    with pytest.raises(ConfigError, match="task must be one of sst, para, sts, got 'emotion'"):
        trained.predict("emotion", ["a"])
    with pytest.raises(ConfigError, match="row 2: the number of texts must be 2 for task para, got 1$"):
        trained.predict("para", [("a", "b"), "c"])
    with pytest.raises(ConfigError, match="split must be one of train, dev, test, (got|not) 'valid'$"):
        trained.evaluate("valid")


def test_rows_in_memory_are_answered_as_their_texts(trained: Run) -> None:
    pairs = [("good film", "great film"), ("bad story", "lovely film"), ("dull", "poor")]
    rows = [{"sentence1": a, "sentence2": b, "id": f"r{i}", "other": 1} for i, (a, b) in enumerate(pairs)]
    expected = trained.predict("sts", pairs)
    for form in (rows, iter(rows), datasets.Dataset.from_list(rows)):
        found = trained.predict("sts", form)
        assert [answer.id for answer in found] == ["r0", "r1", "r2"]
        assert [answer.label for answer in found] == [answer.label for answer in expected]
    assert trained.predict("sst", pd.Series(["good", "bad"])) == trained.predict("sst", ("good", "bad"))
    assert trained.predict("sts", datasets.Dataset.from_dict({"sentence1": [], "sentence2": []})) == []


@pytest.mark.parametrize(
    "index", [[7, 3], ["a", "a"], pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["n", "k"])]
)
def test_a_frame_is_answered_by_a_frame_of_its_index(trained: Run, index: Any) -> None:
    texts = ["good film", "bad " * 200]
    frame = pd.DataFrame({"sentence": texts, "sentiment": [4, 0]}, index=index)
    found = trained.predict("sst", frame)
    assert found.index.equals(frame.index)
    assert list(found.columns) == ["prediction", "p_0", "p_1", "p_2", "p_3", "p_4", "truncated"]
    for row, answer in zip(found.itertuples(index=False), trained.predict("sst", texts), strict=True):
        assert tuple(row) == (answer.label, *(answer.probabilities or ()), answer.truncated)
    assert found["truncated"].tolist() == [False, True]
    pairs = frame.assign(sentence1=texts, sentence2="a film")
    assert list(trained.predict("sts", pairs).columns) == ["prediction", "truncated"]
    empty = trained.predict("sst", frame[:0])
    assert (len(empty), list(empty.columns)) == (0, list(found.columns))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"text": "a"}], DataError, r"^rows: the columns must include 'sentence', got 'text'$"),
        (pd.DataFrame({"text": ["a"]}), DataError, r"^rows: the columns must include 'sentence', got 'text'$"),
        (
            pd.DataFrame({"sentence": ["a", None]}),
            DataError,
            r"^rows, row 2: column 'sentence' must not be empty, got ",
        ),
        (
            [{"sentence": "a"}, "b"],
            DataError,
            r"^rows, row 2: the row must be a mapping from columns to cells, got 'b'$",
        ),
        ({"sentence": "a"}, InputError, r"^rows must be .*, such as \[{'sentence': 'a'}\], got {"),
        (b"a", InputError, "^rows must be a list of texts or dicts, or a DataFrame, got b'a'$"),
        (None, InputError, "^rows must be a list of texts or dicts, or a DataFrame, got None$"),
        (pd.Series(["a", None]), InputError, r"^row 2 must be str or tuple\[str, \.\.\.\], got "),
        ([np.array(["a"])], InputError, r"^row 1 must be str or tuple\[str, \.\.\.\], got array"),
    ],
)
def test_rows_that_can_not_be_answered(trained: Run, rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trained.predict("sst", rows)


def test_the_folder_works_elsewhere_and_without_cache(
    make_config: Any, tiny_weights: Path, course_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = tmp_path / "weights", tmp_path / "run"
    shutil.copytree(tiny_weights, weights)
    run = train(make_config(weights=weights), out, progress=False)
    question = [("good film", "bad film")]
    before, scores = run.predict("sts", question), run.evaluate()
    shutil.rmtree(weights)
    moved = shutil.move(out, tmp_path / "else where")
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "no cache"))
    monkeypatch.chdir(tmp_path)
    again = Run.load("else where")
    assert again.predict("sts", question) == before
    assert again.evaluate(data=course_like) == scores
    assert MultitaskModel.from_pretrained(moved).tasks == again.model.tasks
    best = Path(moved) / "best"
    assert {path.name for path in best.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert BertModel.from_pretrained(best).config.hidden_size == 32
    assert not (tmp_path / "no cache").exists()


def test_folders_without_a_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="there is no such run folder"):
        Run.load(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"must be a run folder, with best/tasks\.json or tasks\.json in it"):
        Run.load(tmp_path / "full")
    for path in (tmp_path / "run" / "config.json", tmp_path / "run" / "best" / "tasks.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    with pytest.raises(RunError, match=r"best: must be a run folder, got the epoch that it kept; name .*run$"):
        Run.load(tmp_path / "run" / "best")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensor: tensor * float("nan"), "must be finite, got NaN or infinite values"),
        (lambda tensor: tensor.to(torch.int64), "must be of a floating-point type, got torch.int64"),
    ],
)
def test_decoders_that_are_no_numbers_are_refused(trained: Run, tmp_path: Path, spoil: Any, message: str) -> None:
    shutil.copytree(trained.folder, tmp_path / "run")
    file = tmp_path / "run" / "best" / "decoders.safetensors"
    tensors = read_tensors(file)
    name = sorted(tensors)[0]
    write_tensors(file, {**tensors, name: spoil(tensors[name])})
    with pytest.raises(WeightsError, match=f"decoders.safetensors: {name} {message}"):
        Run.load(tmp_path / "run")


def test_broken_run_folders_are_named(trained: Run, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(trained.folder, tmp_path / name))

    folder = copied("version")
    description = json.loads((folder / "best" / "tasks.json").read_text())
    (folder / "best" / "tasks.json").write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(RunError, match=r"tasks\.json: format_version must be 2, got 99"):
        Run.load(folder)
    description["encoders"]["shared"]["folder"] = "../.."
    (folder / "best" / "tasks.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=r"tasks\.json: an encoder's folder must be inside the run, got '\.\./\.\.'$"):
        Run.load(folder)
    folder = copied("decoders")
    tensors = read_tensors(folder / "best" / "decoders.safetensors")
    tensors.pop("sst.head.linear.bias")
    write_tensors(folder / "best" / "decoders.safetensors", {**tensors, "sts.head.linear.bias": torch.zeros(2)})
    with pytest.raises(Exception, match=r"must fit tasks\.json, differs at sst\.head\.linear\.bias, sts\.head\.lin"):
        Run.load(folder)
    folder = copied("config")
    (folder / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json: can't be read"):
        Run.load(folder)


@pytest.mark.parametrize(("pooling", "notes"), [("mean", 0), ("attention", 1)])
def test_an_untrained_pooler_is_mentioned_once_and_only_where_it_is_read(
    course_like: Path,
    tiny_weights: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    pooling: str,
    notes: int,
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    tensors = read_tensors(weights / "model.safetensors")
    write_tensors(weights / "model.safetensors", {**tensors, "bert.pooler.dense.bias": torch.zeros(32)})
    sets = [f"tasks.{name}.{value}" for name in NAMES for value in ("batch_size=16", f"pooling={pooling}", "lr=0")]
    config = build_config(sets=sets, data=course_like, weights=str(weights), epochs=1, rounds=1)
    train(config, tmp_path / "run", progress=False)
    Run.load(tmp_path / "run")
    assert sum("pooler looks untrained" in message for message in caplog.messages) == notes
