"""Which dev score picks an epoch, and the mean of scores that may be had."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask.cli.commands import scores_as_json
from multitask.errors import ConfigError
from multitask.evaluation import Selection, mean_score
from multitask.metrics import Score
from multitask.settings.config import RunConfig
from multitask.settings.task import Task
from multitask.training.train import train


def task(name: str, **values: Any) -> Task:
    return Task(**{"name": name, "text": "a", "label": "y", "labels": ("no", "yes"), **values})


CLASSES, OTHER = task("a"), task("b", labels=("x", "y", "z"))
ERROR = task("c", kind="regression", labels=(0, 5), metric="mae")


def score(value: float, metric: str = "accuracy", **others: float) -> Score:
    return Score(value, math.nan, math.nan, 9, metric, others=others)


@pytest.mark.parametrize(
    ("select", "tasks", "expected"),
    [
        ("mean", [CLASSES, OTHER], 0.5),
        ("mean", [CLASSES], 0.75),
        ("mean", [ERROR], -2.5),  # a single task's mean is its score, an error's less of it
        ("a", [CLASSES, ERROR], 0.75),
        ("a.accuracy", [CLASSES, ERROR], 0.75),
        ("a.mcc", [CLASSES, ERROR], -0.125),
        ("a.f1:no", [CLASSES, ERROR], 0.5),
        ("c", [CLASSES, ERROR], -2.5),
        ("c.pearson", [CLASSES, ERROR], 0.0),  # undefined
        ("c.mae", [CLASSES, ERROR], -2.5),
    ],
)
def test_an_epoch_is_as_good_as_its_selected_score(select: str, tasks: list[Task], expected: float) -> None:
    scores = {
        "a": score(0.75, mcc=-0.125, **{"f1:no": 0.5}),
        "b": score(0.25),
        "c": score(2.5, "mae", pearson=math.nan),
    }
    scores = {each.name: scores[each.name] for each in tasks}
    assert Selection.parse(select, tasks).value(scores) == expected


def test_an_error_that_is_undefined_is_the_worst() -> None:
    assert Selection.parse("c", [ERROR]).value({"c": score(math.nan, "mae")}) == -sys.float_info.max


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (
            "mean",
            "select must be a task or TASK.METRIC where a task is scored by an error (c by mae): there is no mean",
        ),
        ("d", "select must be one of auto, last, mean, a, b and 1 more, or TASK.METRIC, got 'd'"),
        ("mean.mcc", "select must be one of auto, last, mean, a, b and 1 more, or TASK.METRIC, got 'mean.mcc'"),
        ("a.", "the metric of select a. of a classification must be one of accuracy, macro_f1, mcc, f1, f1:LABEL, got"),
        ("a.mae", "the metric of select a.mae of a classification must be one of accuracy, macro_f1, mcc, f1, "),
        ("c.mcc", "the metric of select c.mcc of a regression must be one of pearson, spearman, mae, got 'mcc'"),
        ("b.f1", "the metric of select b.f1 of more than two classes must be f1:LABEL, got 'f1'"),
        ("b.f1:w", "the metric of select b.f1:w must be f1: and one of the classes x, y, z, got 'f1:w'"),
    ],
)
def test_what_can_not_be_selected_is_said(select: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Selection.parse(select, [CLASSES, OTHER, ERROR])
    assert str(caught.value).startswith(message)


def test_there_is_no_mean_with_an_error() -> None:
    assert mean_score([score(0.5), score(math.nan, "pearson")]) == 0.25
    assert mean_score([score(0.5), score(0.5, "mae")]) is None


def test_the_epoch_of_the_least_error_is_kept(
    make_config: Callable[..., RunConfig], read_log: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    sets = ["tasks.sst.metric=mcc", "tasks.sts.decoder_lr=0.3", "train.schedule=constant"]
    run = train(make_config(*sets, epochs=4), tmp_path / "run", select="sts.mae", progress=False)
    log = [line for line in read_log(tmp_path / "run" / "metrics.jsonl") if line.get("split") == "dev"]
    found = {(line["task"], line["metric"]) for line in log}
    assert found == {("sst", "mcc"), ("para", "accuracy"), ("sts", "pearson"), ("sts", "mae")}
    errors = [line["value"] for line in log if line["metric"] == "mae"]
    assert len({*errors}) == 4
    config = make_config(*sets, "tasks.sts.metric=mae", epochs=4)
    again = train(config, tmp_path / "again", select="sts", progress=False)
    assert again.evaluate()["sts"].value == pytest.approx(min(errors), rel=1e-5)
    weights = [(each.folder / "best" / "decoders.safetensors").read_bytes() for each in (run, again)]
    assert weights[0] == weights[1]
    best = [
        json.loads((each.folder / "best" / "tasks.json").read_text())["tasks"]["sst"]["metric"] for each in (run, again)
    ]
    assert best == ["mcc", "mcc"]
    assert (run.evaluate()["sts"].metric, run.evaluate()["sst"].metric) == ("pearson", "mcc")


def test_a_score_that_is_not_finite_counts_as_nothing() -> None:
    """Of predictions that overflowed, mae is infinite, which JSON has no word for."""
    scores = [score(value, mae=value) for value in (math.inf, -math.inf, math.nan)]
    assert [score.defined() for score in scores] == [{"accuracy": None, "mae": None}] * 3
    assert mean_score([*scores, score(0.8)]) == 0.2
    assert json.loads(json.dumps(scores_as_json({"a": scores[0]}, split="dev"), allow_nan=False))["mean"] == 0
