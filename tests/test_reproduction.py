"""The scripts that rebuild the tables: on sample rows, on what is committed, and on the real files where they are."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from multitask import DataError, StoppedError

PLAN = """
[[run]]
name = "small"
about = "a row of its own"
preset = "minilm"
seeds = [1, 2]
predict = true
set = ["train.epochs=1", "train.rounds=2", "encoder.weights={weights}"]

[[run]]
name = "student"
about = "a row that learns from another"
preset = "minilm"
seeds = [1]
select = "last"
distill = {{ teachers = ["small-1"], teacher_weight = 0.5, more_rows = 0.5 }}
set = ["train.epochs=2", "train.rounds=2", "encoder.weights={weights}"]

[[run]]
name = "tuned"
about = "a row whose rate is chosen"
preset = "minilm"
seeds = [1]
rates = [1e-5, 1e-3]
set = [
    "train.epochs=1", "encoder.weights={weights}",
    "tasks.sst.batch_size=8", "tasks.para.batch_size=8", "tasks.sts.batch_size=8",
]

[[claim]]
text = "the first is better"
better = "small"
than = "tuned"
task = "sts"
"""


@pytest.fixture
def names(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What examples/reproduction.py defines."""
    monkeypatch.syspath_prepend(str(root / "examples"))
    return importlib.import_module("reproduction")


@pytest.fixture
def files(root: Path, tmp_path: Path) -> Path:
    """The sample rows, named as the course's files are."""
    for name, stem in (("sst", "ids-sst"), ("para", "quora"), ("sts", "sts")):
        for split, end in (("train", "train"), ("dev", "dev"), ("dev", "test-student")):
            shutil.copy(root / "examples" / "data" / f"{name}-{split}.tsv", tmp_path / f"{stem}-{end}.csv")
    return tmp_path


def reproduce(root: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "error"}
    program = [sys.executable, root / "examples" / "reproduce_tables.py", *map(str, words)]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


def test_what_has_a_result_is_not_trained_again(root: Path, files: Path, tiny_weights: Path) -> None:
    (plan := files / "plan.toml").write_text(PLAN.format(weights=tiny_weights), encoding="utf-8")
    results = files / "results"
    words = ["--data", files, "--plan", plan, "--results", results, "--runs", files / "runs"]
    dev = [path.rename(path.with_suffix(".away")) for path in files.glob("*-dev.csv")]
    missing = reproduce(root, *words, "--only", "tuned")
    assert missing.stderr.splitlines()[-1] == f"error: --data {files} must hold ids-sst-dev.csv, there is none"
    assert not results.exists()
    for path in dev:
        path.with_suffix(".csv").mkdir()
    screens = reproduce(root, *words, "--only", "tuned")  # stops where the dev files are read
    assert screens.returncode == 1
    assert screens.stderr.splitlines()[-1] == f"error: [Errno 21] Is a directory: '{files / 'ids-sst-dev.csv'}'"
    assert sorted(path.name for path in results.iterdir()) == ["tuned-lr0.001-1.json", "tuned-lr1e-05-1.json"]
    for path in dev:
        path.with_suffix(".csv").rmdir()
        path.rename(path.with_suffix(".csv"))
    first = reproduce(root, *words)
    assert first.returncode == 0, first.stderr
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    assert sorted(before) == [
        "small-1.json",
        "small-1.tsv",
        "small-2.json",
        "student-1.json",
        "tuned-1.json",
        "tuned-lr0.001-1.json",
        "tuned-lr1e-05-1.json",
    ]
    more = (files / "runs" / "student-1-rows-0.5" / "sts.tsv").read_text(encoding="utf-8")
    assert len(more.splitlines()) == 1 + 54  # half of what is trained on, nine tenths of 120
    shutil.rmtree(files / "runs" / "small-1")
    for teacher in (False, True):  # the student's result was not written; its teacher is needed for another student
        (results / "student-1.json").unlink()
        again = reproduce(root, *words)
        assert again.returncode == 0, again.stderr
        assert (files / "runs" / "small-1").exists() == teacher
        for key in ("epochs", "dev", "predictions"):
            assert (
                json.loads((results / "student-1.json").read_bytes())[key] == json.loads(before["student-1.json"])[key]
            )
        shutil.rmtree(files / "runs")
        (files / "runs" / "student-1").mkdir(parents=True)  # what a kill before the first round leaves
        (files / "runs" / "student-1" / "teachers.safetensors").write_bytes(b"cut")
    (results / "student-1.json").write_bytes(before["student-1.json"])
    assert reproduce(root, *words).stdout == first.stdout
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before

    student = json.loads(before["student-1.json"])
    assert (student["kept"], student["select"]) == (2, "last")
    assert student["distill"] == {"teachers": ["small-1"], "teacher_weight": 0.5, "more_rows": 0.5}
    screened = {rate: json.loads(before[f"tuned-lr{rate}-1.json"]) for rate in ("1e-05", "0.001")}
    best = max(screened, key=lambda rate: float(screened[rate]["epochs"][0]["mean"]))
    tuned = json.loads(before["tuned-1.json"])
    assert f"tasks.sts.lr={best}" in tuned["set"]
    assert "dev" not in screened[best]
    seeds = [json.loads(before[f"small-{seed}.json"])["dev"]["sts"]["pearson"] for seed in (1, 2)]
    cells = next(line.split(" | ") for line in first.stdout.splitlines() if line.startswith("| small |"))
    assert cells[7] == f"{np.mean(seeds):.3f} ± {np.std(seeds, ddof=1):.3f}"
    answers = [line.split("\t") for line in before["small-1.tsv"].decode().splitlines()]
    assert answers[0] == ["task", "id", "prediction"]
    assert [float(answer) for task, _, answer in answers[1:] if task == "sts"] == pytest.approx(
        [float(each) for each in json.loads(before["small-1.json"])["predictions"]["sts"].split()], abs=1e-3
    )
    claim = next(line.split(" | ") for line in first.stdout.splitlines() if line.startswith("| the first is better"))
    assert float(claim[4]) == pytest.approx(np.mean(seeds) - tuned["dev"]["sts"]["pearson"], abs=2e-3)


def test_what_is_not_there_is_one_sentence(root: Path, files: Path, tiny_weights: Path) -> None:
    (plan := files / "plan.toml").write_text(PLAN.format(weights=tiny_weights), encoding="utf-8")
    (files / "small-1.json").write_text("{", encoding="utf-8")
    for words, message in (
        (["--plan", files / "none.toml"], f"error: [Errno 2] No such file or directory: '{files / 'none.toml'}'"),
        (["--plan", plan, "--results", files], f"error: {files / 'small-1.json'} must be a result file (Expecting"),
        (["--plan", plan, "--only", "smal"], f"--only must be rows of {plan}, small, student, tuned, got smal"),
    ):
        found = reproduce(root, "--print", *words)
        assert found.returncode in (1, 2)
        assert message in found.stderr.splitlines()[-1]


def test_a_screen_has_half_the_rounds(names: ModuleType, plans: ModuleType, files: Path) -> None:
    sets = tuple(f"tasks.{task}.batch_size={size}" for task, size in zip(names.TASKS, (9, 6, 10), strict=True))
    config = names.config_of(plans.Job("a", "minilm", sets, 1, screen=True), files)
    assert config.train.rounds == 5  # 108 of 120 rows in batches of 10 are ten rounds
    assert names.config_of(plans.Job("a", "minilm", sets, 1, screen=False), files).train.rounds is None


def test_results_and_settings_are_checked_before_the_first_training(
    root: Path, files: Path, tiny_weights: Path
) -> None:
    (plan := files / "plan.toml").write_text(PLAN.format(weights=tiny_weights), encoding="utf-8")
    words = ["--data", files, "--plan", plan, "--results", files / "results", "--runs", files / "runs"]
    plan.write_text(
        plan.read_text("utf-8").replace('"train.epochs=1", "encoder', '"train.epcohs=1", "encoder'), "utf-8"
    )
    late = reproduce(root, *words)
    assert "got 'epcohs' (did you mean epochs?)" in late.stderr.splitlines()[-1]
    assert not (files / "results").exists()
    for more, message in (
        ('rate_of = "tuned"\nset = ["train.epcohs=1"]', "got 'epcohs' (did you mean epochs?)"),
        ('select = "lats"', "select must be one of auto, last, mean, sst, para"),
        (
            'distill = { teachers = ["small-1"], temprature = 3 }',
            "error: late: distill must have settings of multitask",
        ),
        (
            'distill = { teachers = ["small-1"], temperature = 0 }',
            "temperature must be finite and at least 0.01 and at most 100, got 0",
        ),
    ):
        row = f'\n[[run]]\nname = "late"\nabout = ""\npreset = "minilm"\nseeds = [1]\n{more}\n'
        plan.write_text(PLAN.format(weights=tiny_weights) + row, encoding="utf-8")
        assert message in reproduce(root, *words).stderr.splitlines()[-1]
    place = files / "results" / "minilm-1.json"
    place.parent.mkdir()
    shutil.copy(root / "examples" / "results" / "tables" / "minilm-1.json", place)
    row = '[[run]]\nname = "minilm"\nabout = ""\npreset = "minilm"\nseeds = [1]\nset = ["train.epochs=5"]\n'
    plan.write_text(row, encoding="utf-8")
    for more in ([], ["--print"]):
        other = reproduce(root, *words, *more)
        assert other.stderr.splitlines()[-1].startswith(f"error: {place}: set must be ['train.epochs=5'], got []")
    assert not (files / "runs").exists()


def test_a_stop_says_how_it_goes_on(
    names: ModuleType, plans: ModuleType, files: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "train", partial(names.train, on_round=lambda done: "stop", progress=False))
    job = plans.Job("small", "minilm", ("train.rounds=2", f"encoder.weights={tiny_weights}"), 1, False)
    args = Namespace(data=files, runs=files / "runs", device="cpu")
    place = re.escape(str(files / "runs" / "small-1"))
    with pytest.raises(StoppedError, match=f"^stopped by on_round; the same command goes on with {place}$"):
        names.train_job(job, [], args)


def test_a_result_of_other_settings_or_rows_is_refused(
    root: Path, names: ModuleType, plans: ModuleType, files: Path
) -> None:
    place = root / "examples" / "results" / "tables" / "minilm-1.json"
    result = plans.read_result(place)
    job = plans.Job("minilm", "minilm", ("train.epochs=5",), 1, False)
    with pytest.raises(
        DataError, match=r"minilm-1.json: set must be \['train.epochs=5'\], got \[\]; name its --weights"
    ):
        names.check_result(result, job, place, files)
    with pytest.raises(DataError, match="must have the 1101 dev rows of sst that minilm-1 was scored on, got 40"):
        names.check_result(result, replace(job, sets=()), place, files)
    with pytest.raises(DataError, match="minilm-1.json: screen must be True, got False; name its"):
        names.check_result(result, replace(job, sets=(), screen=True), place, files)


def test_every_row_of_the_plan_can_be_trained(root: Path, names: ModuleType, plans: ModuleType, files: Path) -> None:
    plan, _ = plans.read_plan(root / "examples" / "results" / "plan.toml")
    for row in plan:
        tuned = plans.rate_sets(3e-5) if row.rates or row.rate_of else ()
        job = plans.Job(row.name, row.preset, (*row.set, *tuned), row.seeds[0], False)
        config = names.config_of(job, files)
        assert all(task.dev is None and task.test for task in config.tasks)
        assert config.train.hold_out
    rows = {row.name: row for row in plan}
    assert len(rows) == len(plan)
    assert all(row.rate_of is None or rows[row.rate_of].rates for row in plan)


def committed(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted((root / "examples/results/tables").glob("*.json"))]


def test_results_are_of_what_the_plan_says(root: Path, plans: ModuleType) -> None:
    plan, _ = plans.read_plan(root / "examples" / "results" / "plan.toml")
    folder = root / "examples" / "results" / "tables"
    wanted: dict[str, Any] = {}
    for row in plan:
        wanted |= {job.file: job for job in plans.jobs_of(row, plan, folder, "all-minilm-l6-v2")}
    for path in folder.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        stem, _, seed = path.stem.rpartition("-")
        assert (result["name"], str(result["seed"])) == (stem, seed)
        if path.name in wanted:
            job = wanted[path.name]
            assert (result["preset"], tuple(result["set"]), result["screen"]) == (job.preset, job.sets, job.screen)
            assert (result.get("select", "auto"), result.get("distill")) == (job.select, job.distill)
        else:
            assert re.sub(r"-lr[\d.e-]+$", "", stem) in {row.name for row in plan}, path.name


def test_scores_are_those_of_the_predictions(root: Path, names: ModuleType, course_data: Path) -> None:
    for result in committed(root):
        if result["screen"]:
            continue
        for task, (*_, metric) in names.COURSE.items():
            _, labels = names.read_rows(task, course_data, "dev")
            found = names.predictions_of(result, task)
            value = np.corrcoef(found, labels)[0, 1] if metric == "pearson" else np.mean(found == labels)
            assert value == pytest.approx(result["dev"][task][metric], abs=2e-4)


def test_the_page_has_the_tables_that_the_script_prints(root: Path, course_data: Path) -> None:
    page = (root / "docs" / "reproducing.md").read_text(encoding="utf-8")
    printed = reproduce(root, "--print", "--data", course_data)
    assert printed.returncode == 0, printed.stderr
    for table in printed.stdout.strip().split("\n\n"):
        assert table in page, table


def test_known_rows_of_the_real_files(
    root: Path, names: ModuleType, course_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "examples"))
    contamination = importlib.import_module("contamination")
    counts = {}
    for task in names.TASKS:
        train, dev = (
            contamination.single_spaced(names.read_rows(task, course_data, split)[0]) for split in ("train", "dev")
        )
        counts[task] = contamination.known_rows(train, dev, by_text=task == "para").sum()
    assert counts == {"sst": 2, "para": 422, "sts": 16}


def test_the_threshold_is_the_best_of_all(root: Path, names: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    contamination = importlib.import_module("contamination")
    rng = np.random.default_rng(3)
    for _ in range(20):
        values, labels = rng.integers(-3, 4, 12) / 4, rng.integers(0, 2, 12).astype(float)  # some are equal
        found = contamination.best_threshold(values, labels)
        right = [((values > each) == (labels == 1)).sum() for each in (found, *rng.uniform(-1, 1, 500))]
        assert right[0] == max(right)
