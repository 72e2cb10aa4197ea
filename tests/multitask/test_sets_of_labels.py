"""Rows with any number of labels: metrics against formulas written out, and a run from file to predictions."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from minbert.errors import InputError
from multitask import Run, Task, TrainConfig, baseline_score, train
from multitask.__main__ import main
from multitask.errors import StoppedError
from multitask.metrics import METRICS, bootstrap_score, compute_metric, macro_f1, micro_f1

METRIC = ("micro_f1", "macro_f1")
WORDS = {"good": "joy", "bad": "fear", "late": "wait"}


def by_hand(metric: str, predicted: Any, wanted: Any) -> float:
    """F1 from loops over rows and classes."""
    counts = np.zeros((predicted.shape[1], 3))
    for row in range(len(predicted)):
        for label in range(predicted.shape[1]):
            p, w = predicted[row, label], wanted[row, label]
            counts[label] += (p and w, p and not w, w and not p)
    if metric == "micro_f1":
        hits, false, missed = counts.sum(0)
        return 2 * hits / (2 * hits + false + missed) if counts.any() else 0.0
    scores = [2 * hits / (2 * hits + false + missed) for hits, false, missed in counts if hits + false + missed]
    return sum(scores) / len(scores) if scores else 0.0


def draw(rows: int = 60, classes: int = 5, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    wanted = (rng.random((rows, classes)) < [0.6, 0.3, 0.2, 0.05, 0][:classes]).astype(int)
    return np.where(
        rng.random((rows, classes)) < 0.8, wanted, rng.integers(0, 2, (rows, classes)) * [1, 1, 1, 1, 0]
    ), wanted


@pytest.mark.parametrize("metric", METRIC)
@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_formula(metric: str, seed: int) -> None:
    predicted, wanted = draw(seed=seed)
    assert compute_metric(metric, predicted, wanted) == pytest.approx(by_hand(metric, predicted, wanted), abs=1e-15)


def test_scores_at_the_edges() -> None:
    none = np.zeros((3, 2))
    assert (micro_f1(none, none), macro_f1(none, none)) == (0, 0)
    assert math.isnan(micro_f1(none[:0], none[:0]))
    assert micro_f1(none + 1, none + 1) == macro_f1(none + 1, none + 1) == 1
    with pytest.raises(InputError, match=r"must be of one shape \(rows, classes\), got shapes \(3, 2\) and \(3, 1\)"):
        micro_f1(none, none[:, :1])
    with pytest.raises(InputError, match="must be of one length"):
        METRICS["accuracy"](none, none)


@pytest.mark.parametrize("metric", METRIC)
def test_intervals_are_those_of_resampled_rows(metric: str) -> None:
    predicted, wanted = draw(rows=200)
    score = bootstrap_score(metric, predicted, wanted, resamples=2000)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(1000):
        rows = rng.integers(0, 200, 200)
        drawn.append(METRICS[metric](predicted[rows], wanted[rows]))
    assert [score.low, score.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)
    assert score.low < score.value < score.high
    assert score == bootstrap_score(metric, predicted, wanted, resamples=2000)


def test_the_baseline_is_the_best_constant_set() -> None:
    task = Task(name="a", text="t", label="l", kind="multilabel", labels=tuple("abcde"))
    _, train = draw(rows=300, seed=3)
    _, dev = draw(rows=80, seed=4)
    sets = [np.array([number >> place & 1 for place in range(5)]) for number in range(32)]
    best = max(sets, key=lambda labels: by_hand("micro_f1", np.tile(labels, (300, 1)), train))
    score = baseline_score(task, train, dev)
    assert score.value == by_hand("micro_f1", np.tile(best, (80, 1)), dev)
    as_tuples = [[tuple(np.flatnonzero(row)) for row in labels] for labels in (train, dev)]
    assert baseline_score(task, *as_tuples) == score


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        words = [word for word in WORDS if rng.random() < 0.4]
        rows.append({"text": " ".join(["the", "film", *words]), "mood": [WORDS[word] for word in words]})
    return rows


@pytest.fixture(scope="module")
def trained(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mood")
    for name, count in (("train", 240), ("dev", 60)):
        lines = [json.dumps(row) for row in rows_of(count, seed=count)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        joined = ["text,mood", *(f"{row['text']},{';'.join(row['mood']) or ';'}" for row in rows_of(count, seed=count))]
        (folder / f"{name}.csv").write_text("\n".join(joined) + "\n")
    common = {"text": "text", "label": "mood", "kind": "multilabel", "pooling": "mean", "lr": 2e-3, "decoder_lr": 1e-2}
    tasks = [
        Task(name="mood", **common, train=folder / "train.jsonl", dev=folder / "dev.jsonl"),
        Task(name="cells", **common, label_separator=";", train=folder / "train.csv", dev=folder / "dev.csv"),
    ]
    train(tasks=tasks, weights=tiny_weights, out=folder / "run", epochs=6, progress=False)
    return folder / "run"


def test_a_run_learns_sets(trained: Path) -> None:
    run = Run.load(trained)
    scores = run.evaluate("dev")
    for name, score in scores.items():
        assert score.metric == "micro_f1"
        assert score.macro_f1 is not None
        assert score.value > 0.9, name
    assert run.config.task("mood").threshold is None
    chosen = run.model.tasks["mood"].threshold
    assert chosen is not None
    best = json.loads((trained / "best" / "tasks.json").read_text())
    assert best["tasks"]["mood"]["threshold"] == chosen
    answers = run.predict("mood", rows_of(50, seed=1))
    for answer in answers:
        assert answer.probabilities is not None
        wanted = tuple(
            name
            for name, p in zip(("fear", "joy", "wait"), answer.probabilities, strict=True)
            if p >= np.float32(chosen)
        )
        assert answer.label == wanted
    right = [set(answer.label) == set(row["mood"]) for answer, row in zip(answers, rows_of(50, seed=1), strict=True)]
    assert sum(right) > 40
    assert run.predict("mood", ["the film"])[0].label == ()


def test_a_frame_gets_lists(trained: Path) -> None:
    run, texts = Run.load(trained), [row["text"] for row in rows_of(20, seed=5)]
    answers = run.predict("mood", pd.DataFrame({"text": texts}))
    assert answers["prediction"].tolist() == [list(answer.label) for answer in run.predict("mood", texts)]
    assert [] in answers["prediction"].tolist()
    assert list(answers) == ["prediction", "p_fear", "p_joy", "p_wait", "truncated"]


@pytest.mark.parametrize(("task", "none"), [("mood", "[]"), ("cells", ";")])
def test_predict_writes_what_train_reads(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, none: str
) -> None:
    source, texts = tmp_path / "new.txt", [row["text"] for row in rows_of(20, seed=5)]
    source.write_text("\n".join(texts) + "\n")
    assert main(["predict", str(trained), "--task", task, "--input", str(source), "--output", "-", "--quiet"]) == 0
    written = [row["prediction"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out), delimiter="\t")]
    run = Run.load(trained)
    described = run.model.tasks[task]
    assert [described.rules.names(described, cell) for cell in written] == [
        list(answer.label) for answer in run.predict(task, texts)
    ]
    assert none in written


def test_evaluate_as_json(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--json", "--quiet"]) == 0
    scores = json.loads(capsys.readouterr().out)["tasks"]
    assert (scores["mood"]["metric"], scores["mood"]["n"]) == ("micro_f1", 60)


def test_a_threshold_that_is_set_stays(tiny_weights: Path, tmp_path: Path) -> None:
    task = Task(name="mood", text="text", label="mood", kind="multilabel", threshold=0.25, batch_size=8)
    torch.manual_seed(0)
    data = {"mood": {"train": rows_of(24, seed=2)}}
    settings = TrainConfig(epochs=1, rounds=2, hold_out=True)
    run = train(
        tasks=[task],
        data=data,
        weights=tiny_weights,
        out=tmp_path / "run",
        settings=settings,
        select="mean",
        progress=False,
    )
    assert run.model.tasks["mood"].threshold == 0.25


def test_a_taken_decoder_keeps_its_threshold_until_dev_rows_choose_another(trained: Path, tmp_path: Path) -> None:
    old = Run.load(trained)
    task = replace(old.config.task("mood"), dev=None, train=None, lr=0.0, decoder_lr=0.0)
    chosen, texts = old.model.tasks["mood"].threshold, [row["text"] for row in rows_of(50, seed=1)]

    def more(out: Path, origin: Path, resume: bool = False, **options: Any) -> Run:
        settings, data = TrainConfig(epochs=1, rounds=2), {"mood": {"train": rows_of(20, seed=2)}}
        options |= {"settings": settings, "data": data, "from_run": origin, "resume": resume, "progress": False}
        return train(tasks=[task], out=out, **options)

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    with pytest.raises(StoppedError):
        more(tmp_path / "a", copy, on_round=lambda done: "stop")
    shutil.rmtree(copy)
    a = more(tmp_path / "a", copy, resume=True)
    b = more(tmp_path / "b", tmp_path / "a")
    for run in (a, b):
        assert run.model.tasks["mood"].threshold == chosen
        assert run.config.task("mood").threshold is None
        assert run.predict("mood", texts) == old.predict("mood", texts)
