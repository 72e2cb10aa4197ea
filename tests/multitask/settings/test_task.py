"""Task: what is accepted, what is derived from it, what is refused and in which words."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from multitask.errors import ConfigError
from multitask.settings.config import EncoderConfig, RunConfig, TrainConfig
from multitask.settings.kinds import label_key, parse_number
from multitask.settings.task import Task


def make(**changes: Any) -> Task:
    return Task(**({"name": "mood", "text": "sentence", "label": "mood", "labels": ("bad", "good")} | changes))


def pair(**changes: Any) -> Task:
    settings = {"text": ("a", "b"), "kind": "regression", "labels": (0, 5), "input": "separate"}
    return make(**(settings | changes))


def test_derived_properties() -> None:
    task = make(labels=(0, 1, "two"))
    assert (task.text, task.labels, task.num_outputs, task.scored_by) == (
        ("sentence",),
        ("0", "1", "two"),
        3,
        "accuracy",
    )
    assert not task.is_pair
    assert task.class_indices[label_key("1.0")] == 1
    binary = make(kind="binary", labels=("0", "1"))
    assert (binary.num_outputs, binary.scored_by, binary.classes) == (1, "accuracy", ("0", "1"))
    similarity = pair(head="cosine", pooling="mean")
    assert (similarity.num_outputs, similarity.scored_by, similarity.labels) == (1, "pearson", (0.0, 5.0))
    assert similarity.is_pair
    assert similarity.classes == ()


def test_paths_are_absolute_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    tasks = [make(train="rows.tsv", dev=Path("sub") / "dev.tsv", test=tmp_path / "test.tsv")]
    config = RunConfig(tasks=tasks, encoder=EncoderConfig(weights=Path("weights")))
    monkeypatch.chdir("/")
    files = {split: getattr(config.tasks[0], split) for split in ("train", "dev", "test")}
    assert files == {
        "train": str(tmp_path / "rows.tsv"),
        "dev": str(tmp_path / "sub" / "dev.tsv"),
        "test": str(tmp_path / "test.tsv"),
    }
    assert config.encoder.weights == str(tmp_path / "weights")
    assert [EncoderConfig(weights=name).weights for name in ("weights", "a/b", "./x")] == ["weights", "a/b", "/x"]
    assert (config.preset, config.train) == ("own", TrainConfig())
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match=r"^train must be of class TrainConfig, got {}$"):
        RunConfig(tasks=tasks, train={})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lacks preset"):
        RunConfig.from_dict({key: value for key, value in config.to_dict().items() if key != "preset"})


def test_unknown_labels_wait_for_the_training_file() -> None:
    task = make(labels=None)
    with pytest.raises(ConfigError, match="tasks.mood.labels must be set, or taken from the training file, got None"):
        _ = task.num_outputs
    assert dataclasses.replace(task, labels=("x", "y", "z")).num_outputs == 3


def test_number_spellings() -> None:
    assert label_key("1") == label_key("1.0") == label_key("+1e0") != label_key("1.5")
    assert hash(label_key("1")) == hash(label_key("1.000"))
    assert label_key("9007199254740993") != label_key("9007199254740992")
    assert label_key("one") == "one"
    assert parse_number("3.5") == 3.5
    for text in ("", "nan", "inf", "1_000", "3,5", "٣", "0x10", "1e99999", " 1"):
        assert parse_number(text) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a.b"}, "name must be letters"),
        ({"name": ""}, "name must be letters"),
        ({"text": ()}, "tasks.mood.text must name one column or two"),
        ({"text": ("a", "b", "c")}, "must name one column or two"),
        ({"text": ("a", "a")}, "text, label and id must be different columns, got 'a' twice"),
        ({"text": "mood"}, "text, label and id must be different columns, got 'mood' twice"),
        ({"label": ""}, "tasks.mood.label must be a non-empty string"),
        ({"kind": "multi"}, "must be one of classification, binary, regression, multilabel, got 'multi'"),
        ({"input": "all"}, "must be one of joint, separate, both"),
        ({"pooling": "avg"}, "must be one of attention, pooler, cls, mean, max, got 'avg'"),
        ({"head": "mlp"}, "must be one of linear, cosine"),
        ({"reduction": "none"}, "must be one of mean, sum"),
        ({"labels": "ab"}, "labels must be a list"),
        ({"labels": ("a",)}, "at least two classes"),
        ({"labels": ("1", "1.0")}, "must have each class once, got '1' and '1.0'"),
        ({"labels": (True, False)}, "strings or numbers, got True"),
        ({"labels": ("a", " ")}, "strings or numbers, got ' '"),
        ({"kind": "binary", "labels": ("a", "b", "c")}, "two classes, got 3"),
        ({"kind": "regression", "labels": (5, 0)}, "must have low below high, got (5, 0)"),
        ({"kind": "regression", "labels": (0, 1, 2)}, "the two numbers low and high"),
        ({"kind": "regression", "labels": ("0", "5")}, "must be a number, got '0'"),
        ({"kind": "regression", "labels": (0, float("nan"))}, "must be finite"),
        ({"dropout": 1.0}, "tasks.mood.dropout must be finite and at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be finite and at least 0"),
        ({"lr": -1e-5}, "tasks.mood.lr must be finite and at least 0, got -1e-05"),
        ({"lr": "3e-5"}, "must be a number, got '3e-5'"),
        ({"lr": True}, "must be a number, got True"),
        ({"lr": 10**400}, "must be finite"),
        ({"decoder_lr": -1}, "decoder_lr must be finite"),
        ({"weight_decay": float("inf")}, "weight_decay must be finite"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, "must be a whole number, got 2.0"),
        ({"batch_size": 8, "sample_size": 4}, "sample_size must be at least its batch_size 8, got 4"),
        ({"class_weights": (1,)}, "one number for each of the 2 classes, got 1"),
        ({"class_weights": (0, 0)}, "must not all be zero"),
        ({"class_weights": (1, -1)}, "at least 0, got -1"),
        (
            {"kind": "regression", "labels": None, "class_weights": (1, 1)},
            "class_weights must be left out for a regression, got (1.0, 1.0)",
        ),
        ({"encoder": "a/b"}, "encoder must be letters"),
        ({"train": ""}, "train must be a non-empty string"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "joint"}, "input = 'separate'"),
        ({"text": "a"}, "two text columns"),
        (
            {"kind": "binary", "labels": ("0", "1")},
            "must have a regression with labels, its two bounds, got a binary with labels .'0', '1'.",
        ),
        ({"labels": None}, "must have a regression with labels, its two bounds, got a regression with labels None"),
    ],
)
def test_cosine_needs_what_it_compares(changes: dict[str, Any], message: str) -> None:
    assert pair(head="cosine").head == "cosine"
    with pytest.raises(ConfigError, match=message):
        pair(head="cosine", **changes)


def test_json_round_trip_is_exact() -> None:
    for task in (
        make(lr=1, class_weights=[1, 2.5]),
        pair(head="cosine", sample_size=64),
        make(labels=None, id=None),
    ):
        table = json.loads(json.dumps(task.to_dict()))
        assert Task.from_dict(task.name, table) == task
        assert Task.from_dict(task.name, table).to_dict() == task.to_dict()
    with pytest.raises(
        ConfigError,
        match=r"^a key of tasks.mood must be one of text, label, .*, got 'poolin' \(did you mean pooling\?\)$",
    ):
        Task.from_dict("mood", make().to_dict() | {"poolin": "mean"})
    with pytest.raises(ConfigError, match="tasks.mood must have text and label, lacks text and label"):
        Task.from_dict("mood", {})


def test_no_task_is_called_mean() -> None:
    with pytest.raises(ConfigError, match="a task's name must not be 'mean'"):
        Task(name="mean", text=("a",), label="y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"metric": "mae"},
            "tasks.t.metric of a classification must be one of accuracy, macro_f1, mcc, f1, f1:LABEL, got",
        ),
        ({"metric": "accuracy:x"}, "tasks.t.metric of a classification must be one of accuracy, "),
        ({"metric": "f1"}, "tasks.t.metric of more than two classes must be f1:LABEL, got 'f1'"),
        ({"metric": "f1:w"}, "tasks.t.metric must be f1: and one of the classes x, y, z, got 'f1:w'"),
        ({"metric": ""}, "tasks.t.metric must be a non-empty string, got ''"),
        ({"metric": 3}, "tasks.t.metric must be a non-empty string, got 3"),
        (
            {"metric": "accuracy", "kind": "regression", "labels": (0, 5)},
            "tasks.t.metric of a regression must be one of pearson, spearman, mae, got 'accuracy'",
        ),
    ],
)
def test_a_metric_has_to_fit_the_kind(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Task(**{"name": "t", "text": "a", "label": "y", "labels": ("x", "y", "z"), **values})
    assert str(caught.value).startswith(message)


def test_a_metric_that_fits() -> None:
    three = Task(name="t", text="a", label="y", labels=("x", "1", "z"), metric="f1:1.0")
    assert (three.scored_by, Task.from_dict("t", three.to_dict())) == ("f1:1.0", three)
    assert Task(name="t", text="a", label="y", metric="f1").scored_by == "f1"  # the classes are not known yet
    assert Task(name="t", text="a", label="y", kind="binary", labels=("n", "y"), metric="f1").scored_by == "f1"
    assert Task(name="t", text="a", label="y", kind="regression", metric="spearman").scored_by == "spearman"
