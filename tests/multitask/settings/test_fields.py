"""A setting stands once: what its dataclass says is what the command line and every check say."""

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import minbert
from multitask.cli.parser import build_parser
from multitask.errors import ConfigError
from multitask.settings.checks import check_integer
from multitask.settings.choices import SCHEDULES, UPDATES, Registry
from multitask.settings.config import OPTIONS, TABLES, build_config
from multitask.settings.fields import check_settings, setting, settings_of
from multitask.settings.tables import EncoderConfig, TrainConfig
from multitask.settings.task import Task

ROOT = Path(__file__).parents[3]


def train_options() -> dict[str, argparse.Action]:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {action.dest: action for action in commands.choices["train"]._actions}


def test_the_command_line_has_what_the_fields_say() -> None:
    assert OPTIONS.keys() == {
        *("weights", "epochs", "rounds", "minutes", "patience", "seed", "precision", "log_conflict", "on_nonfinite")
    }
    for name, key in OPTIONS.items():
        section, _, field = key.partition(".")
        known, action = TABLES[section][field], train_options()[name]
        assert action.option_strings == [f"--{name.replace('_', '-')}"]
        assert action.help == known.help
        assert (action.choices or []) == list(known.choices)


def test_every_setting_has_a_phrase_of_help() -> None:
    for section, table in TABLES.items():
        for name, known in table.items():
            assert len(known.help) >= 5, (section, name)
            assert not known.help.endswith("."), (section, name)
    for table in (EncoderConfig, TrainConfig, Task):
        plain = {field.name for field in dataclasses.fields(table)} - settings_of(table).keys()
        assert plain <= {"name"}, "a field without help, check and choices"


def test_a_default_is_allowed_and_unset_follows_the_annotation() -> None:
    for section, table in TABLES.items():
        for name, known in table.items():
            if known.default is not dataclasses.MISSING and known.default is not None:
                assert known.check("key", known.default) == known.default, (section, name)
            assert known.optional or known.default is not None, (section, name)
    optional = {name for table in TABLES.values() for name, known in table.items() if known.optional}
    assert optional == {
        *("dropout", "rounds", "clip", "id", "labels", "class_weights", "decoder_lr", "sample_size"),
        *("metric", "minutes", "patience", "label_separator", "missing", "threshold"),
        *("input", "batch_size", "min_rounds", "hold_out", "pooling"),
        *("train", "dev", "test", "group"),
    }
    assert not TABLES["tasks"]["dropout"].optional


def test_a_new_setting_is_one_field() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine:
        plain: int = 3
        word: str = setting("a word", choices=("a", "b"), default="a")
        count: int | None = setting("a count", partial(check_integer, low=1), default=None, option=True)

    mine = Mine(count=2)
    check_settings(mine, "mine")
    known = settings_of(Mine)
    assert list(known) == ["word", "count"]
    assert (known["count"].types[0], known["count"].optional, known["count"].option) == (int, True, True)
    for change, message in (
        ({"word": "c"}, "mine.word must be one of a, b, got 'c'"),
        ({"word": None}, "mine.word must be one of a, b, got None"),
        ({"count": 0}, "mine.count must be at least 1, got 0"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_settings(dataclasses.replace(mine, **change), "mine")
        assert str(caught.value) == message


def test_an_option_that_is_none_of_them_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        build_config(epoch=3)


def test_schedules_are_minberts_and_updates_stand_in_files_of_their_names() -> None:
    assert dict(SCHEDULES) == minbert.SCHEDULES
    assert [update.__module__ for update in UPDATES.values()] == [f"multitask.updates.{name}" for name in UPDATES]


def test_no_list_of_choices_stands_twice() -> None:
    """The words of a choice stand in settings/ alone, not again in the command line's parser."""
    parser = (ROOT / "multitask" / "__main__.py").read_text(encoding="utf-8")
    for table in TABLES.values():
        for name, known in table.items():
            found = [word for word in known.choices if f'"{word}"' in parser]
            assert len(found) < 2, name  # one may be a word of something else: "mean" is a choice of --select, too


class TestRegistry:
    def test_names_are_known_before_anything_is_imported(self) -> None:
        registry: Registry[Any] = Registry("thing", {"one": "no.such.module:Thing"})
        assert list(registry) == ["one"]
        assert "one" in registry
        assert "two" not in registry
        with pytest.raises(ModuleNotFoundError):
            _ = registry["one"]

    def test_what_is_registered_is_found_and_comes_last(self) -> None:
        registry: Registry[Any] = Registry("thing", {"one": "math:pi"})

        @registry.register("two")
        def thing() -> int:
            return 2

        assert (registry["two"], thing()) == (thing, 2)
        assert list(registry) == ["one", "two"]
        assert len(registry) == 2
        with pytest.raises(KeyError):
            _ = registry["three"]

    @pytest.mark.parametrize("name", ["one", "two"])
    def test_a_name_is_given_once(self, name: str) -> None:
        registry: Registry[Any] = Registry("thing", {"one": "math:pi"})
        registry.register("two")(abs)
        with pytest.raises(ConfigError, match=f"the name of a new thing must not be taken, got '{name}'"):
            registry.register(name)(max)
