"""RoundSampler: counts, no row twice, any position at once, and the refusals with their sizes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from multitask.data.sampling import CheckedSampler, Indices, RoundSampler, batch_size_of
from multitask.errors import ConfigError
from multitask.settings.task import Task

SIZES = {"sst": 100, "para": 205, "sts": 61}
BATCHES = {"sst": 10, "para": 20, "sts": 7}


def make(seed: int = 1, **settings: object) -> RoundSampler:
    return RoundSampler(SIZES, BATCHES, seed=seed, **settings)  # type: ignore[arg-type]


def rounds_of(sampler: RoundSampler, epoch: int) -> list[dict[str, Indices]]:
    return [sampler.round(epoch, index) for index in range(sampler.rounds_per_epoch)]


def drawn(sampler: RoundSampler, epoch: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {name: [] for name in sampler.sizes}
    for batch in rounds_of(sampler, epoch):
        for name, indices in batch.items():
            rows[name] += indices.tolist()
    return rows


def test_an_epoch_is_as_long_as_the_smallest_task_allows() -> None:
    sampler = make()
    assert sampler.rounds_per_epoch == 8  # 100 // 10, 205 // 20, 61 // 7
    assert sampler.rows_per_epoch == {"sst": 80, "para": 160, "sts": 56}
    rounds = rounds_of(sampler, 0)
    assert len(rounds) == 8
    for batch in rounds:
        assert [(name, len(rows)) for name, rows in batch.items()] == [("sst", 10), ("para", 20), ("sts", 7)]
        assert all(rows.dtype == np.int64 for rows in batch.values())


def test_course_sizes() -> None:
    sizes = {"sst": 8544, "para": 14213, "sts": 6040}
    assert RoundSampler(sizes, {"sst": 32, "para": 53, "sts": 22}, seed=0).rounds_per_epoch == 267
    assert RoundSampler(sizes, {"sst": 30, "para": 150, "sts": 30}, seed=0).rounds_per_epoch == 94
    assert RoundSampler(sizes, {"sst": 32, "para": 32, "sts": 32}, seed=0).rounds_per_epoch == 188


def test_no_row_twice_and_afresh_each_epoch() -> None:
    sampler = make()
    first, second = drawn(sampler, 0), drawn(sampler, 1)
    for name, size in SIZES.items():
        assert len(set(first[name])) == len(first[name]) == sampler.rows_per_epoch[name]
        assert set(first[name]) <= set(range(size))
        assert first[name] != second[name]
        # Which rows are left out changes too: the draw is over all rows, not over the first ones.
        assert set(first[name]) != set(second[name])
    assert drawn(make(), 0) == first
    assert drawn(make(seed=2), 0) != first


def test_tasks_of_one_size_have_orders_of_their_own() -> None:
    rows = drawn(RoundSampler({"a": 50, "b": 50}, {"a": 5, "b": 5}, seed=0), 0)
    assert sorted(rows["a"]) == sorted(rows["b"]) == list(range(50))
    assert rows["a"] != rows["b"]


def test_any_position_at_once() -> None:
    through = [batch for epoch in range(3) for batch in rounds_of(make(), epoch)]
    fresh = make()
    for position in (23, 0, 9, 16):
        batch = fresh.round(*divmod(position, 8))
        for name in SIZES:
            assert batch[name].tolist() == through[position][name].tolist()
    with pytest.raises(IndexError, match="index must be from 0 to 7, got 8$"):
        fresh.round(0, 8)


def test_shuffled_task_order() -> None:
    sampler = make(task_order="shuffled")
    orders = {tuple(batch) for epoch in range(10) for batch in rounds_of(sampler, epoch)}
    assert len(orders) == 6
    fixed = make().round(3, 2)
    assert {name: rows.tolist() for name, rows in sampler.round(3, 2).items()} == {
        name: rows.tolist() for name, rows in fixed.items()
    }


def test_sample_sizes_and_rounds() -> None:
    sampler = make(sample_sizes={"sst": 35, "para": 80, "sts": None})
    assert sampler.rounds_per_epoch == 4
    counts = [[len(rows) for rows in batch.values()] for batch in rounds_of(sampler, 0)]
    assert counts == [[10, 20, 7]] * 3 + [[5, 20, 7]]
    assert sampler.rows_per_epoch == {"sst": 35, "para": 80, "sts": 28}
    assert make(rounds=2).rounds_per_epoch == 2
    assert make(rounds=8).rounds_per_epoch == 8
    assert make(rounds=9, sample_sizes={"sts": 61}).rounds_per_epoch == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_sizes": {"sts": 62}}, "tasks.sts.sample_size must be at most the task's 61 rows, got 62"),
        (
            {"sample_sizes": {"sst": 50, "para": 80}},
            "rounds (sample_size / batch_size) must be equal for all tasks, got sst 50 / 10 = 5, para 80 / 20 = 4",
        ),
        ({"sample_sizes": {"sst": 50}, "rounds": 4}, "got sst 50 / 10 = 5, and train.rounds 4"),
        (
            {"rounds": 9},
            "task sts must have at least 63 rows for 9 rounds of 7, got 61: "
            "set train.rounds to at most 8, or tasks.sts.batch_size to at most 6",
        ),
        (
            {"sample_sizes": {"sst": 100}},
            "task sts must have at least 70 rows for 10 rounds of 7, got 61: "
            "set the other tasks' sample_size lower, or tasks.sts.batch_size to at most 6",
        ),
        (
            {"rounds": 62},
            "task sst must have at least 620 rows for 62 rounds of 10, got 100: set train.rounds to at most 10, or "
            "tasks.sst.batch_size to at most 1",
        ),
        ({"rounds": 0}, "train.rounds must be at least 1, got 0"),
        ({"task_order": "random"}, "must be one of fixed, shuffled"),
    ],
)
def test_refusals(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "rows", "processes", "wanted"),
    [
        *(({}, rows, 1, batch) for rows, batch in ((1, 1), (3, 3), (5, 4), (40, 10), (127, 31), (128, 32), (9999, 32))),
        *(({}, rows, 2, batch) for rows, batch in ((5, 4), (128, 32), (9999, 64))),
        *(({"batch_size": 20}, rows, processes, batch) for rows, processes, batch in ((7, 1, 7), (30, 2, 30))),
        *(({"sample_size": sample}, 40, 1, batch) for sample, batch in ((3, 3), (30, 10))),
    ],
)
def test_a_batch_is_a_quarter_of_few_rows(settings: dict[str, Any], rows: int, processes: int, wanted: int) -> None:
    assert batch_size_of(Task(name="t", text="a", label="b", **settings), rows, processes) == wanted


def test_fewer_rows_than_a_batch() -> None:
    for rounds in (None, 9):
        with pytest.raises(ConfigError) as caught:
            RoundSampler({"a": 3}, {"a": 4}, seed=0, rounds=rounds)
        assert str(caught.value) == (
            "task a must have at least the 4 rows of its batch_size, got 3: set tasks.a.batch_size to at most 3, "
            "or give it more rows (a higher --limit, if one is set)"
        )
    with pytest.raises(ConfigError, match=r"^task a must have at least the 2 rows of its batch_size, got 1: "):
        RoundSampler({"a": 1}, {"a": 2}, seed=0)
    with pytest.raises(
        ConfigError, match=r"at least 18 rows for 9 rounds of 2, got 3: set train\.rounds to at most 1$"
    ):
        RoundSampler({"a": 3}, {"a": 2}, seed=0, rounds=9)
    with pytest.raises(ConfigError, match="^sizes must name at least one task, got none$"):
        RoundSampler({}, {}, seed=0)


class Own:
    """A sampler of a user's own that gives what it is told."""

    def __init__(self, *rounds: Any, count: Any = 3) -> None:
        self.rounds = list(rounds)
        if count is not None:
            self.rounds_per_epoch = count

    def round(self, epoch: int, index: int) -> Any:
        return self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]


def test_a_sampler_of_ones_own_may_leave_out_tasks_and_repeat_rows() -> None:
    sampler = CheckedSampler(Own({"b": [3, 3, 0]}), {"a": 2, "b": 4})
    drawn = sampler.round(1, 2)
    assert list(drawn) == ["b"]
    assert drawn["b"].dtype == np.int64
    assert drawn["b"].tolist() == [3, 3, 0]
    assert sampler.rounds_per_epoch == 3


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (Own({"a": [0]}, count=None), "rounds_per_epoch of the sampler Own must be a whole number, got None"),
        (Own({"a": [0]}, count=0), "rounds_per_epoch of the sampler Own must be at least 1, got 0"),
        (SimpleNamespace(rounds_per_epoch=2), "the sampler SimpleNamespace must have a method round, got none"),
        (Own({}), "round 0 of epoch 0 of the sampler Own must be a dict of at least one task's row indices, got {}"),
        (Own([0]), "round 0 of epoch 0 of the sampler Own must be a dict of at least one task's row indices, got [0]"),
        (Own({"c": [0]}), "a task in round 0 of epoch 0 of the sampler Own must be one of a, b, got 'c'"),
        (Own({"a": [2]}), "a in round 0 of epoch 0 of the sampler Own must be from 0 to 1, got 2"),
        (Own({"a": [0, -1]}), "a in round 0 of epoch 0 of the sampler Own must be from 0 to 1, got -1"),
        (
            Own({"a": []}),
            "a in round 0 of epoch 0 of the sampler Own must be at least one whole number in a row, got []",
        ),
        (
            Own({"a": [[0]]}),
            "a in round 0 of epoch 0 of the sampler Own must be at least one whole number in a row, got",
        ),
        (
            Own({"a": [0.5]}),
            "a in round 0 of epoch 0 of the sampler Own must be at least one whole number in a row, got",
        ),
        (Own({"a": 0}), "a in round 0 of epoch 0 of the sampler Own must be at least one whole number in a row, got 0"),
        (
            Own({"a": [0]}, {"a": [1]}),
            "a round of the sampler Own must follow from seed, epoch and index alone, got two",
        ),
        (
            Own({"a": [0]}, {"b": [0]}),
            "a round of the sampler Own must follow from seed, epoch and index alone, got two",
        ),
    ],
)
def test_what_a_sampler_of_ones_own_gives_is_checked(own: Own, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CheckedSampler(own, {"a": 2, "b": 4})
    assert str(caught.value).startswith(message)
