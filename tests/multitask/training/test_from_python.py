"""Training on rows in memory: the same bytes as on files, resumed only with the same rows, scored without files."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from multitask import EncoderConfig, Run, RunConfig, Task, TrainConfig, build_config
from multitask.__main__ import main
from multitask.errors import ConfigError, DataError, RunError
from multitask.settings.config import TABLES
from multitask.settings.presets import DEFAULT_PRESET, PRESETS
from multitask.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

COLUMNS: dict[str, Any] = {"text": "sentence", "label": "sentiment", "batch_size": 16}
SHORT = TrainConfig(epochs=1, rounds=3)
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def files(course_like: Path) -> dict[str, Path]:
    return {split: course_like / f"ids-sst-{split}.csv" for split in ("train", "dev")}


@pytest.fixture(scope="module")
def rows(files: dict[str, Path]) -> Rows:
    """The same rows as dicts, their labels as numbers."""
    result = {}
    for split, file in files.items():
        with file.open(encoding="utf-8", newline="") as stream:
            result[split] = [
                {**row, "sentiment": int(row["sentiment"])} for row in csv.DictReader(stream, delimiter="\t")
            ]
    return result


def trained(out: Path, rows: Any, weights: Path, **changes: Any) -> Run:
    """A short run of one task on rows in memory."""
    options = {"settings": SHORT, "progress": False, **changes}
    return train(tasks=[Task(name="sst", **COLUMNS)], data={"sst": rows}, weights=weights, out=out, **options)


def best(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.folder / "best").iterdir()}


def as_generators(rows: Rows) -> dict[str, Iterator[Any]]:
    return {split: (row for row in part) for split, part in rows.items()}


FORMS: dict[str, Callable[[Rows], Any]] = {
    "dicts": lambda rows: rows,
    "generators": as_generators,
    "DataFrames": lambda rows: {split: pd.DataFrame(part) for split, part in rows.items()},
    "DatasetDict": lambda rows: datasets.DatasetDict(
        {split: datasets.Dataset.from_list(part) for split, part in rows.items()}
    ),
}


def test_every_form_of_rows_trains_to_the_bytes_of_a_file(
    files: dict[str, Path], rows: Rows, tiny_weights: Path, tmp_path: Path
) -> None:
    task = Task(name="sst", **COLUMNS, **files)
    config = RunConfig(encoder=EncoderConfig(weights=tiny_weights), train=SHORT, tasks=[task])
    file = train(config, tmp_path / "file", progress=False)
    expected, log = best(file), (file.folder / "metrics.jsonl").read_bytes()
    described = json.loads(expected.pop("tasks.json"))
    described["tasks"]["sst"] |= {"train": None, "dev": None}
    for form, convert in FORMS.items():
        run = trained(tmp_path / form, convert(rows), tiny_weights)
        found = best(run)
        assert json.loads(found.pop("tasks.json")) == described
        assert found == expected, form
        assert (run.folder / "metrics.jsonl").read_bytes() == log
        assert run.evaluate("dev") == file.evaluate("dev")
        assert run.evaluate("train") == file.evaluate("train")
    assert len(expected) >= 4


def test_a_task_in_python_trains_to_the_bytes_of_one_in_toml(
    files: dict[str, Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["[train]", "rounds = 3", "epochs = 1", "[tasks.sst]", 'kind = "classification"']
    lines += [f"{key} = {json.dumps(value)}" for key, value in COLUMNS.items()]
    lines += [f"{split} = {json.dumps(str(file))}" for split, file in files.items()]
    (tmp_path / "own.toml").write_text("\n".join(lines), encoding="utf-8")
    config = build_config(tasks_file=tmp_path / "own.toml", weights=str(tiny_weights))
    toml = train(config, tmp_path / "toml", progress=False)
    monkeypatch.chdir(files["train"].parent)  # relative paths
    task = Task(name="sst", **COLUMNS, **{split: file.name for split, file in files.items()})
    python = train(
        tasks=[task],
        weights=tiny_weights,
        settings=TrainConfig(rounds=3),
        epochs=1,
        out=tmp_path / "python",
        progress=False,
    )
    assert python.config.to_dict() == {**toml.config.to_dict(), "preset": "own"}
    assert best(python) == best(toml)


def test_what_is_left_out_in_python_is_as_in_toml() -> None:
    preset = PRESETS[DEFAULT_PRESET]
    for section, key in (("encoder", "encoder"), ("train", "train"), ("tasks", "defaults")):
        told = {name: TABLES[section][name].default for name in preset[key]}
        assert told == preset[key]
    assert (EncoderConfig(), TrainConfig()) == (build_config().encoder, build_config().train)


def test_a_tenth_is_held_out_as_of_a_file(
    files: dict[str, Path], rows: Rows, tiny_weights: Path, tmp_path: Path
) -> None:
    run = trained(tmp_path / "memory", {"train": rows["train"]}, tiny_weights)
    task = Task(name="sst", **COLUMNS, train=files["train"])
    file = train(tasks=[task], weights=tiny_weights, settings=SHORT, out=tmp_path / "file", progress=False)
    for split, count in (("dev", 30), ("train", 270)):
        assert run.evaluate(split) == file.evaluate(split)
        assert run.evaluate(split)["sst"].n == count


def test_a_stopped_run_continues_with_the_same_rows_alone(
    rows: Rows,
    tiny_weights: Path,
    stopped_run: Callable[..., None],
    contents: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    settings = TrainConfig(epochs=2, rounds=5)
    trained(tmp_path / "whole", rows, tiny_weights, settings=settings, keep_optimizer=True)
    given: dict[str, Any] = {"tasks": [Task(name="sst", **COLUMNS)], "weights": tiny_weights, "settings": settings}
    stopped_run(None, tmp_path / "run", 3, data={"sst": rows}, **given)
    again: dict[str, Any] = {"settings": settings, "resume": True, "keep_optimizer": True}
    for split in ("train", "dev"):
        changed = {**rows, split: [*rows[split][:-1], {**rows[split][-1], "sentence": "another film"}]}
        with pytest.raises(RunError) as refused:
            trained(tmp_path / "run", changed, tiny_weights, **again)
        assert f"data.sst.{split} must be '{len(rows[split])} rows, SHA-256 " in str(refused.value)
    with pytest.raises(RunError, match=r"data\.sst\.dev must be '24 rows, SHA-256 .*', got None"):
        trained(tmp_path / "run", {"train": rows["train"]}, tiny_weights, **again)
    frames = {split: pd.DataFrame(part) for split, part in rows.items()}
    trained(tmp_path / "run", frames, tiny_weights, **again)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    finished = trained(tmp_path / "run", frames, tiny_weights, **again)  # as it is
    assert finished.evaluate()["sst"].n == 24
    with pytest.raises(RunError, match=r"data\.sst\.train must be '300 rows, SHA-256 .*', got '299 rows, SHA-256"):
        trained(tmp_path / "run", {**rows, "train": rows["train"][1:]}, tiny_weights, **again)


def test_rows_are_given_again_to_a_run_that_is_loaded(
    rows: Rows, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = trained(tmp_path / "both", rows, tiny_weights)
    alone = trained(tmp_path / "alone", {"train": rows["train"]}, tiny_weights)
    for run, split in ((both, "dev"), (alone, "train")):
        expected, loaded = run.evaluate(), Run.load(run.folder)
        message = (
            f"tasks.sst: the {split} rows came from memory when the run was trained; from Python, give them again:"
            f" run.evaluate('dev', data={{'sst': {{'{split}': rows}}}})"
        )
        with pytest.raises(ConfigError) as refused:
            loaded.evaluate("dev")
        assert str(refused.value) == message
        assert main(["evaluate", str(run.folder), "--quiet"]) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith(message)
        assert loaded.evaluate("dev", data={"sst": {split: rows[split]}}) == expected
    assert Run.load(both.folder).evaluate("dev", data={"sst": rows["dev"]}) == both.evaluate("dev")
    assert Run.load(alone.folder).evaluate("dev", data={"sst": pd.DataFrame(rows["dev"])})["sst"].n == 24
    assert Run.load(alone.folder).evaluate("train", data={"sst": rows["dev"]})["sst"].n == 24
    assert Run.load(alone.folder).evaluate("test", data={"sst": rows["dev"]})["sst"].n == 24
    with pytest.raises(
        DataError, match=r"^data\['sst'\], row 2: column 'sentiment' must be one of the classes 0, .* got 9$"
    ):
        alone.evaluate("dev", data={"sst": [rows["dev"][0], {**rows["dev"][1], "sentiment": 9}]})


def test_files_and_memory_may_be_mixed(
    files: dict[str, Path], rows: Rows, course_like: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    tasks = [
        Task(name="one", **COLUMNS, train=files["train"]),
        Task(name="two", **COLUMNS, dev=files["dev"]),
        Task(name="three", **COLUMNS, **files),
    ]
    data = {"one": {"dev": rows["dev"], "test": rows["train"][:7]}, "two": {"train": rows["train"]}}
    out = tmp_path / "run"
    run = train(tasks=tasks, data=data, weights=tiny_weights, settings=SHORT, out=out, progress=False)
    scores = run.evaluate("dev")
    assert [score.n for score in scores.values()] == [24, 24, 24]
    assert [score.n for score in run.evaluate("train").values()] == [300, 300, 300]
    loaded = Run.load(out)
    with pytest.raises(ConfigError, match=r"^tasks\.one: the dev rows came from memory"):
        loaded.evaluate("dev")
    assert loaded.evaluate("dev", data={"one": rows["dev"]}) == scores
    assert run.evaluate("dev", data=course_like) == scores
    with pytest.raises(ConfigError, match=r"^tasks\.two\.test must be the path of the test rows, or data"):
        run.evaluate("test")


def test_a_record_names_rows_and_a_limit_draws_of_them(rows: Rows, tiny_weights: Path, tmp_path: Path) -> None:
    bad = [{"sentence": None, "sentiment": 1}, {"sentence": "a film", "sentiment": 0.5}]
    task = Task(name="sst", **COLUMNS, labels=list("01234"))
    data = {"sst": {**rows, "train": [*rows["train"][:40], *bad, *rows["train"]]}}
    options: dict[str, Any] = {"weights": tiny_weights, "settings": SHORT, "progress": False}
    run = train(tasks=[task], data=data, out=tmp_path / "run", limit=48, bad_rows="skip", **options)
    record = json.loads((run.folder / "record.json").read_text(encoding="utf-8"))["tasks"]["sst"]
    assert record["from_memory"] == ["train", "dev"]
    assert (record["train_rows"], record["dev_rows"]) == (48, 24)
    assert record["skipped"] == [
        "data['sst']['train'], row 41: column 'sentence' must not be empty, got None",
        "data['sst']['train'], row 42: column 'sentiment' must be one of the classes 0, 1, 2, 3, 4, got 0.5",
    ]


def test_a_loss_that_is_not_finite_names_the_rows(rows: Rows, tiny_weights: Path, tmp_path: Path) -> None:
    task = Task(name="sst", **COLUMNS, lr=1e38)
    with pytest.raises(
        RunError, match=r"^round 2, task sst, rows (\d+, ){4}\d+ and 11 more of data\['sst'\]\['train'\]: the loss"
    ):
        train(
            tasks=[task], data={"sst": rows}, weights=tiny_weights, out=tmp_path / "run", settings=SHORT, progress=False
        )


def test_seed_and_epochs_are_settings(
    rows: Rows, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"data": {"sst": rows}, "settings": TrainConfig(rounds=2), "progress": False}
    encoder = EncoderConfig(weights=tiny_weights, freeze=True)
    run = train(tasks=[Task(name="sst", **COLUMNS)], weights=encoder, epochs=2, seed=5, **options)
    assert run.folder == Path("runs/own")
    assert (run.config.train, run.config.encoder) == (TrainConfig(rounds=2, epochs=2, seed=5), encoder)


TASKS = [Task(name="sst", **COLUMNS)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "train must be given config, tasks or from_run, got none of them"),
        ({"config": RunConfig(tasks=TASKS), "tasks": TASKS}, "train must be given either config or tasks, got both"),
        ({"config": RunConfig(tasks=TASKS), "epochs": 3}, "train must be given either config or epochs, got both"),
        ({"tasks": []}, "tasks must hold at least one task, got none"),
        ({"tasks": TASKS, "settings": {"epochs": 3}}, "settings must be a TrainConfig, got {'epochs': 3}"),
        ({"tasks": TASKS, "epochs": 0}, "train.epochs must be at least 1 and at most 1000000, got 0"),
        ({"tasks": TASKS, "weights": ""}, "encoder.weights must be a non-empty string, got ''"),
        (
            {"tasks": TASKS, "data": {"sst": {"dev": [{"sentence": "a", "sentiment": 1}]}}},
            "tasks.sst.train must be the path of the train rows, or data['sst']['train'] the rows themselves,"
            " got neither",
        ),
        (
            {
                "tasks": [Task(name="sst", **COLUMNS, dev="/dev.tsv")],
                "data": {"sst": dict.fromkeys(["train", "dev"], [{"sentence": "a", "sentiment": 1}])},
            },
            "tasks.sst.dev must be unset where data['sst']['dev'] has the rows, got /dev.tsv",
        ),
    ],
)
def test_what_train_can_not_be_told(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(out=tmp_path / "run", **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "arguments", [{"config": TASKS}, {"config": {}}, {"tasks": TASKS[0]}, {"tasks": [build_config()]}]
)
def test_tasks_are_a_list_of_tasks(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^(config must be a RunConfig|tasks must be a list of Task), got "):
        train(**arguments)
