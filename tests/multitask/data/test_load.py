"""What prepare and read_split read of each task's files."""

from dataclasses import replace
from typing import Any

import pytest

from multitask.data.load import prepare, read_split
from multitask.errors import ConfigError


def test_a_limit_draws_rows_of_both_files_by_the_seed_in_their_order(make_config: Any) -> None:
    whole = prepare(make_config())
    data = prepare(make_config(), limit=17)
    for name in ("sst", "para", "sts"):
        for some, every in ((data.train[name], whole.train[name]), (data.dev[name], whole.dev[name])):
            lines = [row.line for row in some.examples]
            assert len(lines) == 17 < len(every)
            assert set(some.examples) <= set(every.examples)
            assert lines == sorted(lines) != [row.line for row in every.examples[:17]]
    assert prepare(make_config(), limit=17) == data
    assert prepare(make_config("train.seed=1"), limit=17).train != data.train


@pytest.mark.parametrize("with_dev", [True, False])
def test_read_split_gives_the_rows_of_prepare(with_dev: bool, make_config: Any) -> None:
    config = make_config()
    if not with_dev:
        config = replace(config, tasks=tuple(replace(task, dev=None) for task in config.tasks))
    prepared = prepare(config)
    assert read_split(prepared.config, "train") == prepared.train
    assert read_split(prepared.config, "dev") == prepared.dev
    assert {len(dataset) for dataset in prepared.dev.values()} == {24 if with_dev else 30}
    assert {len(dataset) for dataset in prepared.train.values()} == {300 if with_dev else 270}


def test_holding_out_what_has_dev_rows_of_its_own_is_said(make_config: Any) -> None:
    note = "train.hold_out holds nothing out, as all tasks have dev rows of their own (tasks.NAME.dev)"
    assert note in prepare(make_config("train.hold_out=true")).notes
    for sets in ((), ("train.hold_out=true", "tasks.sts.dev=none")):
        assert note not in prepare(make_config(*sets)).notes


def test_a_split_without_a_file_is_named(make_config: Any) -> None:
    config = make_config()
    config = replace(config, tasks=tuple(replace(task, test=None) for task in config.tasks))
    with pytest.raises(ConfigError, match=r"^tasks\.sst\.test must be the path of the test rows, or data"):
        read_split(config, "test")
