"""Runs compared on the same rows, and what keeps them from it, on a tiny encoder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitask import Run, Task, TrainConfig, compare, paired_difference, train
from multitask.__main__ import main
from multitask.comparison import Difference
from multitask.data.examples import read_examples
from multitask.errors import ConfigError, RunError, StoppedError

Trained = Callable[..., Path]


def course_task(folder: Path, name: str, **values: Any) -> Task:
    """One of the three tasks, with all its files unless told otherwise."""
    stem, text, label, kind, labels = {
        "sst": ("ids-sst", "sentence", "sentiment", "classification", tuple("01234")),
        "para": ("quora", ("sentence1", "sentence2"), "is_duplicate", "binary", ("0", "1")),
        "sts": ("sts", ("sentence1", "sentence2"), "similarity", "regression", (0.0, 5.0)),
    }[name]
    files = {split: folder / f"{stem}-{split}.csv" for split in ("train", "dev")}
    known = {**files, "text": text, "label": label, "kind": kind, "labels": labels, "batch_size": 8, "start": "random"}
    return Task(name=name, **{**known, **values})


@pytest.fixture(scope="module")
def trained(course_like: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A function of a name, names of tasks, a seed and their settings: a run of one round, trained once."""
    folder = tmp_path_factory.mktemp("compared")

    def run(name: str, tasks: str = "sst para sts", seed: int = 1, **values: Any) -> Path:
        if not (folder / name).exists():
            described = [course_task(course_like, task, **values) for task in tasks.split()]
            settings = TrainConfig(epochs=1, rounds=2, seed=seed, warmup=0.0)
            train(tasks=described, weights=tiny_weights, settings=settings, out=folder / name, progress=False)
        return folder / name

    return run


def answers(run: Path, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions for the dev rows by the run's own way, and their labels."""
    loaded = Run.load(run)
    described = loaded.config.task(task)
    rows = read_examples(str(described.dev), described)
    labels = [answer.label for answer in loaded.predict_stream(task, rows.examples)]
    spelled = [described.classes.index(label) if isinstance(label, str) else label for label in labels]
    return np.array(spelled), np.array(rows.labels)


def test_the_scores_are_evaluates_and_the_intervals_those_of_the_predictions(trained: Trained) -> None:
    runs = [trained("one"), trained("two", seed=2)]
    found = compare(runs)
    assert (found.names, found.split, found.partial) == (tuple(map(str, runs)), "dev", {})
    scores = [Run.load(run).evaluate() for run in runs]
    for name, compared in found.tasks.items():
        assert compared.scores == tuple((pytest.approx(score[name].value, abs=1e-12),) for score in scores)
        assert (compared.rows, compared.metric) == (24, scores[0][name].metric)
        (first, labels), (second, _) = (answers(run, name) for run in runs)
        (difference,) = compared.differences
        exact = paired_difference(compared.metric, first, second, labels, resamples=4000)
        assert difference.difference == pytest.approx(exact.difference, abs=1e-6)
        assert [difference.low, difference.high] == pytest.approx([exact.low, exact.high], abs=0.05)  # a row is 0.042
    assert found.mean is not None
    means = [np.mean([score[name].value for name in score]) for score in scores]
    assert [seeds[0] for seeds in found.mean.scores] == pytest.approx(means)
    assert found.mean.differences[0].difference == pytest.approx(means[1] - means[0])
    assert compare(runs) == found  # the same seed draws the same rows


def test_a_run_ties_with_itself(trained: Trained) -> None:
    run = Run.load(trained("one"))
    found = compare([run, run.folder, run])
    assert found.mean is not None
    for compared in (*found.tasks.values(), found.mean):
        assert compared.differences == (Difference(0, 0, 0),) * 2


def test_a_task_that_only_some_have_is_left_out_and_said(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    whole, part = trained("one"), trained("part", "para sst")
    found = compare([whole, part])
    assert list(found.tasks) == ["sst", "para"]
    assert found.partial == {"sts": (str(whole),)}
    assert found.mean is not None
    assert found.mean.rows == 48
    assert main(["compare", str(part), str(whole), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"sts: left out, as only {whole} has it\n"
    assert "sts" not in captured.out


def test_runs_that_differ_are_refused_with_what_differs(trained: Trained, course_like: Path, tmp_path: Path) -> None:
    one = trained("one")
    with pytest.raises(RunError, match=r"must have a task in common, got none: .*sts has sts; .*para has para"):
        compare([trained("sts", "sts"), trained("para", "para")])
    other = trained("mcc", "sst", metric="mcc")
    with pytest.raises(RunError, match=f"tasks.sst.metric must be the same .* got 'accuracy' in {one} and 'mcc' in"):
        compare([one, other])
    other = trained("labels", "sst", labels=tuple("43210"))
    with pytest.raises(RunError, match=r"tasks.sst.labels must be the same .*\('0', '1', '2', '3', '4'\) in"):
        compare([one, other])
    shorter = tmp_path / "shorter.csv"
    lines = (course_like / "ids-sst-dev.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    shorter.write_text("".join(lines[:-1]), encoding="utf-8")
    other = trained("shorter", "sst", dev=shorter)
    with pytest.raises(RunError, match=r"task sst: the dev rows of .* got 24 and 23 rows; --data DIR has all runs"):
        compare([one, other])
    with pytest.raises(ConfigError, match="runs must be at least two, got 1"):
        compare([one])
    with pytest.raises(ConfigError, match="runs must be at least two, got an empty list"):
        compare([[one], []])
    for bad in (str(one), None, [one, None], {"one": one}, [[[one]], [one]]):
        with pytest.raises(ConfigError, match="runs must be a list of folders or runs, or of lists of them, got "):
            compare(bad)  # type: ignore[arg-type]


def test_rows_that_each_run_held_out_for_itself_are_refused(trained: Trained, course_like: Path) -> None:
    test = course_like / "ids-sst-dev.csv"
    runs = [trained(f"held-{seed}", "sst", seed=seed, dev=None, test=test) for seed in (1, 2)]
    message = (
        r"got others from row 1 on, as each holds out its own of the training rows \(train.seed 1 and 2\); --split test"
    )
    with pytest.raises(RunError, match=message):
        compare(runs)
    found = compare(runs, split="test")
    assert [seeds[0] for seeds in found.tasks["sst"].scores] == [
        Run.load(run).evaluate("test")["sst"].value for run in runs
    ]
    assert found.mean is None  # of one task
    rows = [{"sentence": "a good film", "sentiment": 3}, {"sentence": "a dull, bad film", "sentiment": 1}]
    assert compare(runs, data={"sst": rows}).tasks["sst"].rows == 2
    with pytest.raises(RunError, match=f"as {runs[1]} holds out its own of the training rows"):
        compare([trained("one"), runs[1]])


def test_seeds_are_compared_on_the_rows_that_each_of_them_held_out(trained: Trained) -> None:
    held = {"dev": None}
    first = [trained(f"own-{seed}", "sst para", seed=seed, **held) for seed in (1, 2)]
    second = [trained(f"own-mean-{seed}", "sst para", seed=seed, pooling="mean", **held) for seed in (1, 2)]
    found = compare([first, second])
    for place, side in enumerate((first, second)):
        for number, run in enumerate(side):
            for name, score in Run.load(run).evaluate().items():
                assert found.tasks[name].scores[place][number] == pytest.approx(score.value, abs=1e-12)
    assert found.names == (f"{first[0]} and 1 more", f"{second[0]} and 1 more")
    assert found.tasks["sst"].rows == sum(score["sst"].n for score in (Run.load(run).evaluate() for run in first))
    same = compare([first, first])
    assert same.tasks["sst"].differences == (Difference(0, 0, 0),)
    with pytest.raises(RunError, match="the dev rows of .* must be the same"):
        compare([first, second[::-1]])
    with pytest.raises(RunError, match="the dev rows of .* must be the same"):
        compare([first, second[:1]])


def test_seeds_on_a_dev_file_may_be_of_any_number(trained: Trained) -> None:
    runs = [trained("one"), trained("two", seed=2)]
    found = compare([runs, runs[0]])
    scores = found.tasks["sst"].scores
    assert [len(seeds) for seeds in scores] == [2, 1]
    assert found.tasks["sst"].differences[0].difference == pytest.approx(scores[1][0] - np.mean(scores[0]))
    assert found.tasks["sst"].rows == 24


def test_the_command_prints_a_line_for_each_task_and_run(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(trained("one")), str(trained("two", seed=2)), str(trained("one"))]
    assert main(["compare", *runs, "--quiet"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["task", "metric", "rows", "run", "score", "difference", "95", "%", "interval"]
    assert [line.split()[0] for line in lines] == [name for name in ("sst", "para", "sts", "mean") for _ in range(3)]
    assert lines[2].split()[:4] == ["sst", "accuracy", "24", runs[0]]
    assert lines[2].split()[5:] == ["+0.000", "+0.000", "..", "+0.000", "tie"]
    found = compare(runs)
    assert f"{found.tasks['sst'].differences[0].low:+.3f} .. " in lines[1]
    assert main(["compare", *runs, "--json", "--quiet"]) == 0
    shown = json.loads(capsys.readouterr().out)
    difference = found.tasks["sts"].differences[0]
    side = shown["tasks"]["sts"]["runs"][1]
    assert (side["run"], side["difference"], side["low"], side["high"], side["tie"]) == (
        runs[1], difference.difference, difference.low, difference.high, difference.tie,
    )  # fmt: skip
    assert [side["run"] for side in shown["mean"]["runs"]] == runs


def test_the_commands_errors_are_one_line(trained: Trained, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = str(trained("one"))
    for argv, status, words in (
        ([run], 2, "runs must be at least two, got 1"),
        ([run, str(tmp_path / "none")], 1, "there is no such run folder"),
        ([run, run, "--split", "test"], 2, "tasks.sst.test must be the path"),
    ):
        assert main(["compare", *argv, "--quiet"]) == status
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert words in message


def test_a_run_that_is_not_finished_is_said_to_be(
    course_like: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tasks = tmp_path / "run", [course_task(course_like, "sst")]
    settings = TrainConfig(epochs=2, rounds=2)
    words: dict[str, Any] = {"tasks": tasks, "weights": tiny_weights, "settings": settings, "out": run}
    with pytest.raises(StoppedError):
        train(**words, progress=False, on_round=lambda record: "stop" if record.number == 3 else None)
    note = f"{run}: its training is not finished; its best epoch so far is taken\n"
    for command in (["compare", run, run], ["evaluate", run]):
        assert main([str(word) for word in command]) == 0
        assert capsys.readouterr().err.count(note) == 1
    train(**words, progress=False, resume=True)
    assert main(["evaluate", str(run)]) == 0
    assert note not in capsys.readouterr().err
