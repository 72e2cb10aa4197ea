"""One file for several tasks: rows without a task's label are counted, and a row is on one side for all of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from multitask import EncoderConfig, Run, RunConfig, Task, TrainConfig
from multitask.__main__ import main
from multitask.data.load import prepare, read_split
from multitask.data.memory import rows_by_task
from multitask.errors import ConfigError, DataError
from multitask.settings.format import Format
from multitask.training.train import train

MOODS, TOPICS = ("bad", "good"), ("film", "book", "song")
# Of 300 rows 200 have a mood and 150 a topic: 50 have both.
ROWS = [
    {
        "text": f"row {row} is a {MOODS[row % 2]} {TOPICS[row % 3]}",
        "mood": MOODS[row % 2] if row < 200 else "",
        "topic": TOPICS[row % 3] if row >= 150 else "",
    }
    for row in range(300)
]
MOOD = Task(name="mood", text="text", label="mood", batch_size=8)
TOPIC = Task(name="topic", text="text", label="topic", batch_size=8)


def config_of(*tasks: Task, **changes: Any) -> RunConfig:
    return RunConfig(encoder=EncoderConfig(), train=TrainConfig(**changes), tasks=tasks)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "all.tsv"
    pd.DataFrame(ROWS).to_csv(path, sep="\t", index=False)
    return path


@pytest.fixture
def config(file: Path) -> RunConfig:
    link = file.with_name("link.tsv")
    link.symlink_to(file)
    return config_of(replace(MOOD, train=file), replace(TOPIC, train=link))


def lines(dataset: Any) -> set[int]:
    return {example.line for example in dataset.examples}


@pytest.mark.parametrize("bad_rows", ["missing", "error", "skip"])
def test_rows_without_a_tasks_label_are_counted_and_not_listed(bad_rows: Any, config: RunConfig) -> None:
    data = prepare(config, bad_rows=bad_rows)
    assert {name: (each.unlabelled, each.skipped) for name, each in data.train.items()} == {
        "mood": (100, []),
        "topic": (150, []),
    }
    assert data.notes[2:4] == [
        "mood: 100 of 300 rows of all.tsv have no label of this task",
        "topic: 150 of 300 rows of link.tsv have no label of this task",
    ]


def test_a_row_without_a_label_is_not_the_tasks_whatever_else_it_lacks(file: Path) -> None:
    with file.open("a", encoding="utf-8") as rows:
        rows.write("\tgood\t\n")
    data = prepare(config_of(replace(MOOD, train=file), replace(TOPIC, train=file)))
    assert [row.line for row in data.train["mood"].skipped] == [302]
    assert (data.train["topic"].unlabelled, data.train["topic"].skipped) == (151, [])


def test_a_file_of_one_task_alone_lists_them(file: Path) -> None:
    alone = replace(MOOD, train=file)
    assert len(prepare(config_of(alone)).train["mood"].skipped) == 100
    # Another task of the same label makes it no file of several.
    data = prepare(config_of(alone, replace(alone, name="again")))
    assert {(len(each.skipped), each.unlabelled) for each in data.train.values()} == {(100, 0)}
    with pytest.raises(DataError, match=r"all\.tsv:202: column 'mood' must not be empty"):
        prepare(config_of(alone), bad_rows="error")


def test_a_label_that_no_row_has_is_named(file: Path) -> None:
    other = replace(TOPIC, train=file, labels=("x", "y"))
    pd.DataFrame(ROWS).assign(topic="").to_csv(file, sep="\t", index=False)
    wanted = r"usable row for task topic, got none \(300 rows without its label, column 'topic'\)"
    with pytest.raises(DataError, match=wanted):
        prepare(config_of(replace(MOOD, train=file), other))


@pytest.mark.parametrize("seed", range(5))
def test_a_row_is_on_the_same_side_for_all_tasks(seed: int, config: RunConfig) -> None:
    data = prepare(replace(config, train=TrainConfig(seed=seed)))
    train, dev = ({line for each in part.values() for line in lines(each)} for part in (data.train, data.dev))
    assert not train & dev
    assert len(train | dev) == 300
    assert {name: len(each) for name, each in data.dev.items()} == {"mood": 20, "topic": 15}
    assert [data.dev["mood"].labels.count(label) for label in (0, 1)] == [10, 10]
    assert [data.dev["topic"].labels.count(label) for label in (0, 1, 2)] == [5, 5, 5]
    assert data.notes[-1] == "mood, topic: a row of all.tsv is in train or in dev for all of them alike"
    assert prepare(replace(config, train=TrainConfig(seed=seed))) == data
    assert prepare(replace(config, train=TrainConfig(seed=seed + 1))).dev != data.dev


def test_rows_of_one_line_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps([{"text": "", "mood": "good", "topic": "film"}, *ROWS]), encoding="utf-8")
    data = prepare(config_of(replace(MOOD, train=path), replace(TOPIC, train=path)))
    train, dev = ({row.where for each in part.values() for row in each.examples} for part in (data.train, data.dev))
    assert (train | dev, train & dev) == ({(1, place) for place in range(2, 302)}, set())
    assert {name: len(each) for name, each in data.dev.items()} == {"mood": 20, "topic": 15}
    texts = {row.where: row.texts for row in data.train["mood"].examples}
    assert all(texts.get(row.where, row.texts) == row.texts for row in data.train["topic"].examples)


@pytest.mark.parametrize(("sheet", "same"), [(None, True), ("moods", True), ("topics", False)])
def test_sheets_of_a_workbook_are_files_of_their_own(sheet: str | None, same: bool, tmp_path: Path) -> None:
    path = tmp_path / "all.xlsx"
    with pd.ExcelWriter(path) as book:
        for name in ("moods", "topics"):
            pd.DataFrame(ROWS).to_excel(book, sheet_name=name, index=False)
    topic = replace(TOPIC, train=path, format=Format(sheet=sheet))
    data = prepare(config_of(replace(MOOD, train=path), topic))
    assert data.held_with == (
        dict.fromkeys(("mood", "topic"), ("mood", "topic")) if same else {"mood": ("mood",), "topic": ("topic",)}
    )
    assert [each.unlabelled for each in data.train.values()] == ([100, 150] if same else [0, 0])


def test_few_rows_of_a_task_still_give_it_a_dev_row(file: Path) -> None:
    few = [{**row, "topic": row["topic"] if index >= 292 else ""} for index, row in enumerate(ROWS)]
    pd.DataFrame(few).to_csv(file, sep="\t", index=False)
    for seed in range(5):
        data = prepare(config_of(replace(MOOD, train=file), replace(TOPIC, train=file), seed=seed))
        assert len(data.dev["topic"]) == 1
        assert set(data.train["topic"].labels) == {0, 1, 2}


def test_read_split_holds_out_the_same_rows(config: RunConfig) -> None:
    prepared = prepare(config)
    for split, wanted in (("train", prepared.train), ("dev", prepared.dev)):
        assert read_split(prepared.config, split) == wanted
        alone = {name: (name,) for name in wanted}
        assert read_split(prepared.config, split, held_with=alone) != wanted


def test_a_task_with_a_dev_file_says_that_it_trains_on_anothers_dev_rows(config: RunConfig) -> None:
    mood, topic = config.tasks
    data = prepare(config_of(mood, replace(topic, dev=topic.train)))
    shared = lines(data.dev["mood"]) & lines(data.train["topic"])
    assert 0 < len(shared) < 20
    assert data.notes[-1] == (
        f"topic: trains on {len(shared)} rows that are dev rows of mood, since it has a dev file and tasks.mood.dev"
        " is unset"
    )


def test_rows_in_memory_are_shared_if_they_are_one_object() -> None:
    frame = pd.DataFrame(ROWS)
    tasks = (MOOD, TOPIC)
    both = rows_by_task({"mood": {"train": frame}, "topic": {"train": frame}}, tasks)
    data = prepare(config_of(*tasks), given=both)
    assert [each.unlabelled for each in data.train.values()] == [100, 150]
    assert not lines(data.train["mood"]) & lines(data.dev["topic"])
    copies = rows_by_task({"mood": {"train": frame}, "topic": {"train": frame.copy()}}, tasks)
    assert [len(each.skipped) for each in prepare(config_of(*tasks), given=copies).train.values()] == [100, 150]
    # Given again as copies, a trained run's record still says which rows were held out together.
    assert read_split(data.config, "dev", given=copies, held_with=data.held_with) == data.dev
    half = {"mood": copies["mood"], "topic": {"dev": copies["topic"]["train"]}}
    with pytest.raises(ConfigError, match=r"tasks\.topic\.train must be the path of the train rows, or data"):
        read_split(data.config, "dev", given=half, held_with=data.held_with)


def test_from_the_command_line(
    file: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], read_log: Callable[..., Any]
) -> None:
    toml = tmp_path / "tasks.toml"
    tables = [
        f'[tasks.{name}]\ntrain = "all.tsv"\ntext = "text"\nlabel = "{name}"\nkind = "classification"\n'
        for name in ("mood", "topic")
    ]
    toml.write_text("".join(tables), encoding="utf-8")
    out = tmp_path / "run"
    words = ["train", "--tasks", toml, "--weights", tiny_weights, "--out", out, "--epochs", 1, "--bad-rows", "error"]
    sizes = [f"--set=tasks.{name}.batch_size=8" for name in ("mood", "topic")]
    assert main([str(word) for word in [*words, *sizes, "--rounds", 3]]) == 0
    said = capsys.readouterr().err
    record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    for note in record["notes"]:
        assert said.count(f"{note}\n") == 1
    assert "mood: 100 of 300 rows of all.tsv have no label of this task" in record["notes"]
    mood, topic = record["tasks"]["mood"], record["tasks"]["topic"]
    assert (mood["train_rows"], mood["dev_rows"], mood["unlabelled_train_rows"]) == (180, 20, 100)
    assert (topic["train_rows"], topic["dev_rows"], topic["unlabelled_train_rows"]) == (135, 15, 150)
    assert (mood["held_with"], mood["skipped"]) == (["mood", "topic"], [])
    assert main(["evaluate", str(out), "--json", "--quiet"]) == 0
    scores = json.loads(capsys.readouterr().out)["tasks"]
    logged = {line["task"]: line["value"] for line in read_log(out / "metrics.jsonl") if line.get("split") == "dev"}
    for name, rows in (("mood", 20), ("topic", 15)):
        assert (scores[name]["n"], scores[name]["left_out"]) == (rows, 0)
        assert scores[name]["value"] == pytest.approx(logged[name])


def test_a_run_on_rows_in_memory_is_scored_on_its_own_dev_rows_later(tiny_weights: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    data = {name: {"train": frame} for name in ("mood", "topic")}
    settings = TrainConfig(epochs=1, rounds=2)
    run = train(
        tasks=(MOOD, TOPIC), data=data, weights=tiny_weights, settings=settings, out=tmp_path / "run", progress=False
    )
    scores = run.evaluate("dev")
    again = {name: {"train": frame.copy()} for name in ("mood", "topic")}
    assert Run.load(tmp_path / "run").evaluate("dev", data=again, bad_rows="error") == scores
    assert {name: score.n for name, score in scores.items()} == {"mood": 20, "topic": 15}
