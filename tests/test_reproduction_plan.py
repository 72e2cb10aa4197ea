"""The plan of the tables: what is refused of one, and which trainings a row stands for."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from multitask import DataError


def test_a_plan_that_names_what_is_not_there_is_refused(plans: ModuleType, tmp_path: Path) -> None:
    row = '[[run]]\nname = "a"\nabout = ""\npreset = "minilm"\nseeds = [1]\n'
    claim = '[[claim]]\ntext = ""\nbetter = "a"\nthan = "a"\ntask = "sst"\n'
    for text, message in (
        ("run = 3", "must be a plan"),
        (row + "seed = 2", "must be a plan, .*'seed'"),
        (row + 'rate_of = "a"', "rate_of must be one of none, got a"),
        (row + 'rates = [1e-5]\nrate_of = "a"', "a row must have rates or rate_of, got both for a"),
        (row + "rates = 3", "must be a plan, .*set and rates must be lists, got 3"),
        (row + 'set = "train.epochs=1"', "set and rates must be lists, got 'train.epochs=1'"),
        (row.replace("[1]", "3"), "must be a plan, .*'int' object is not iterable"),
        (row + "distill = { more_rows = 1 }", "must be a plan, .*'teachers'"),
        (row + row, "a row's name must be its own, got a twice"),
        (row.replace("[1]", "[2]") + "screen = true", r"a screen's seeds must be \[1\], got \[2\] for a"),
        (
            row + row.replace('"a"', '"b"') + 'distill = { teachers = ["b-1"] }',
            "a teacher, .*, must be one of a-1, got b-1",
        ),
        (row + 'distill = { teachers = ["a-1"] }', "a teacher, of a row above, must be one of none, got a-1"),
        (row + claim.replace('than = "a"', 'than = "b"'), "a claim's row must be one of a, got b"),
        (row + claim.replace("sst", "sts2"), "a claim's task must be one of sst, para, sts, mean, got sts2"),
    ):
        (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            plans.read_plan(tmp_path / "plan.toml")


def test_the_trainings_of_a_row(plans: ModuleType, tmp_path: Path) -> None:
    published = plans.Planned("mtl", "", "mtl-slb-concat", seeds=[1], set=["train.clip=1"], epochs=5)
    for weights, sets in (
        ("bert-base-uncased", ("train.clip=1",)),
        ("google-bert/bert-base-uncased", ("encoder.weights=google-bert/bert-base-uncased", "train.clip=1")),
        ("all-minilm-l6-v2", ("encoder.weights=all-minilm-l6-v2", "train.clip=1", "train.epochs=5")),
    ):
        (job,) = plans.jobs_of(published, [published], tmp_path, weights)
        assert job.sets == sets
    tuned = plans.Planned("tuned", "", "minilm", seeds=[1, 2], rates=[1e-5, 1e-4], predict=True, log_conflict=True)
    other = plans.Planned("other", "", "minilm", seeds=[1], rate_of="tuned", set=["train.moments=shared"])
    plan, weights = [tuned, other], "all-minilm-l6-v2"
    screens = list(plans.jobs_of(other, plan, tmp_path, weights))  # without their results no more is known
    assert [(job.file, job.screen) for job in screens] == [
        ("tuned-lr1e-05-1.json", True),
        ("tuned-lr0.0001-1.json", True),
    ]
    for screen, mean in zip(screens, (0.5, 0.4), strict=True):
        (tmp_path / screen.file).write_text(json.dumps({"epochs": [{"mean": mean}, {"mean": 0.9}], "kept": 1}))
    assert list(plans.jobs_of(other, plan, tmp_path, weights))[:2] == screens
    assert list(plans.jobs_of(other, plan, tmp_path, weights))[2].sets == (*other.set, *plans.rate_sets(1e-5))
    trained = list(plans.jobs_of(tuned, plan, tmp_path, weights))[2:]
    assert [(job.seed, job.predict, job.log_conflict) for job in trained] == [(1, True, False), (2, False, True)]
