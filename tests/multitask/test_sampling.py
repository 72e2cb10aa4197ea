"""RoundSampler: counts, no row twice, any position at once, and the refusals with their sizes."""

import json

import numpy as np
import pytest

from multitask.errors import ConfigError, RunError
from multitask.sampling import RoundSampler

SIZES = {"sst": 100, "para": 205, "sts": 61}
BATCHES = {"sst": 10, "para": 20, "sts": 7}


def make(seed: int = 1, **settings: object) -> RoundSampler:
    return RoundSampler(SIZES, BATCHES, seed=seed, **settings)  # type: ignore[arg-type]


def drawn(sampler: RoundSampler, epoch: int) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {name: [] for name in sampler.sizes}
    for batch in sampler.rounds(epoch):
        for name, indices in batch.items():
            rows[name] += indices.tolist()
    return rows


def test_an_epoch_is_as_long_as_the_smallest_task_allows() -> None:
    sampler = make()
    assert sampler.rounds_per_epoch == 8  # 100 // 10, 205 // 20, 61 // 7
    assert sampler.rows_per_epoch == {"sst": 80, "para": 160, "sts": 56}
    rounds = list(sampler.rounds(0))
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
    through = [batch for epoch in range(3) for batch in make().rounds(epoch)]
    fresh = make()
    for position in (23, 0, 9, 16):
        batch = fresh.round(*divmod(position, 8))
        for name in SIZES:
            assert batch[name].tolist() == through[position][name].tolist()
    with pytest.raises(IndexError):
        fresh.round(0, 8)


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
@pytest.mark.parametrize("order", ["fixed", "shuffled"])
def test_resume_goes_on_where_it_stopped(stop: int, order: str) -> None:
    whole = [
        {k: v.tolist() for k, v in batch.items()}
        for epoch in range(2)
        for batch in make(task_order=order).rounds(epoch)
    ]
    sampler = make(task_order=order)
    seen = []
    while len(seen) < stop:
        for batch in sampler.rounds(sampler.epoch, sampler.index):
            seen.append({k: v.tolist() for k, v in batch.items()})
            if len(seen) == stop:
                break
    state = json.loads(json.dumps(sampler.state_dict()))
    assert (state["epoch"], state["round"]) == divmod(stop, 8)
    other = make(task_order=order)
    other.load_state_dict(state)
    while other.epoch < 2:
        seen += [{k: v.tolist() for k, v in batch.items()} for batch in other.rounds(other.epoch, other.index)]
    assert seen == whole
    assert [list(batch) for batch in seen] == [list(batch) for batch in whole]


def test_a_state_of_other_rows_is_refused() -> None:
    state = make().state_dict()
    with pytest.raises(RunError, match="the sampler's seed was 1 and is now 2"):
        make(seed=2).load_state_dict(state)
    with pytest.raises(RunError, match="rows_per_epoch was"):
        make(rounds=3).load_state_dict(state)
    with pytest.raises(RunError, match="position 0, 8 is outside"):
        make().load_state_dict(state | {"round": 8})


def test_shuffled_task_order() -> None:
    sampler = make(task_order="shuffled")
    orders = {tuple(batch) for epoch in range(10) for batch in sampler.rounds(epoch)}
    assert len(orders) == 6
    fixed = make().round(3, 2)
    assert {name: rows.tolist() for name, rows in sampler.round(3, 2).items()} == {
        name: rows.tolist() for name, rows in fixed.items()
    }


def test_sample_sizes_and_rounds() -> None:
    sampler = make(sample_sizes={"sst": 35, "para": 80, "sts": None})
    assert sampler.rounds_per_epoch == 4
    assert [[len(rows) for rows in batch.values()] for batch in sampler.rounds(0)] == [[10, 20, 7]] * 3 + [[5, 20, 7]]
    assert sampler.rows_per_epoch == {"sst": 35, "para": 80, "sts": 28}
    assert make(rounds=2).rounds_per_epoch == 2
    assert make(rounds=8).rounds_per_epoch == 8
    assert make(rounds=9, sample_sizes={"sts": 61}).rounds_per_epoch == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_sizes": {"sts": 62}}, "tasks.sts.sample_size is 62, but there are 61 rows"),
        (
            {"sample_sizes": {"sst": 50, "para": 80}},
            "tasks differ in their rounds (sample_size / batch_size: sst 50 / 10 = 5, para 80 / 20 = 4)",
        ),
        ({"sample_sizes": {"sst": 50}, "rounds": 4}, "sst 50 / 10 = 5), and train.rounds is 4"),
        ({"rounds": 9}, "task sts has 61 rows, too few for 9 rounds of 7"),
        ({"sample_sizes": {"sst": 100}}, "task sts has 61 rows, too few for 10 rounds of 7"),
        ({"rounds": 0}, "train.rounds must be at least 1, not 0"),
        ({"task_order": "random"}, "must be one of fixed, shuffled"),
    ],
)
def test_refusals(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert message in str(caught.value)


def test_fewer_rows_than_a_batch() -> None:
    with pytest.raises(ConfigError, match="task a has 3 rows, too few for 1 rounds of 4"):
        RoundSampler({"a": 3}, {"a": 4}, seed=0)
    with pytest.raises(ConfigError, match="at least one task"):
        RoundSampler({}, {}, seed=0)
