"""Presets, TOML and --set: the words of every refusal."""

from pathlib import Path

import pytest

from multitask.errors import ConfigError
from multitask.settings.config import RunConfig, build_config


def refusal(**arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(**arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("tasks.sst.lr", "--set must be KEY=VALUE, such as train.seed=1, got 'tasks.sst.lr'"),
        ("tasks.sst.poolin=mean", "--set: a key of tasks.sst must be one of text, label, id, kind"),
        ("tasks.sst.poolin=mean", ", got 'poolin' (did you mean pooling?)"),
        ("tasks.stt.lr=1", "--set: the task must be one of sst, para, sts, got 'stt' (did you mean sts?)"),
        (
            "trian.seed=1",
            "--set: the section must be one of encoder, train, tasks, got 'trian' (did you mean train?)",
        ),
        ("train.sed=1", "did you mean seed?"),
        ("train=1", "--set: the key must be train.KEY, with KEY one of update, optimizer"),
        ("train=1", ", got 'train'"),
        ("tasks.lr=1", "--set: the key must be tasks.NAME.KEY, with KEY one of text, label"),
        ("train.seed.x=1", "--set: the key must be train.KEY"),
        ("train.seed=1.5", "train.seed must be a whole number, got 1.5"),
        ("train.seed=-1", "train.seed must be at least 0"),
        ("train.seed=1\nencoder.freeze=true", "train.seed must be a whole number"),
        ("train.epochs=0", "train.epochs must be at least 1 and at most 1000000, got 0"),
        ("train.rounds=0", "train.rounds must be at least 1, got 0"),
        ("train.warmup=1.1", "train.warmup must be finite and at least 0 and at most 1, got 1.1"),
        ("train.clip=0", "train.clip must be finite and above 0, got 0"),
        ("train.eps=0", "train.eps must be finite and above 0"),
        ("train.update=sum", "must be one of separate, combined, pcgrad, uncertainty, famo and 1 more, got 'sum'"),
        ("train.schedule=step", "must be one of constant, linear, cosine"),
        ("train.precision=fp16", "must be one of auto, float32, bfloat16"),
        ("train.task_order=random", "must be one of fixed, shuffled"),
        ("encoder.dropout=1", "encoder.dropout must be finite and at least 0 and below 1, got 1"),
        ("encoder.freeze=1", "encoder.freeze must be true or false, got 1"),
        ("encoder.weights=7", "encoder.weights must be a non-empty string"),
        ("encoder.weights=none2=", None),
        ("tasks.sst.lr=-1", "tasks.sst.lr must be finite and at least 0, got -1"),
        ("tasks.sst.lr=nan", "tasks.sst.lr must be finite"),
        ("tasks.sst.lr=none", "tasks.sst.lr must be a number, got 'none'"),
        ("tasks.sst.train=", "tasks.sst.train must be a non-empty string"),
        ("tasks.sst.train=3", "tasks.sst.train must be a non-empty string, got 3"),
        (
            "tasks.sts.head=cosine",
            "head = 'cosine' must have two text columns and input = 'separate', got 2 and 'joint'",
        ),
        (
            "tasks.sst.head=cosine",
            "head = 'cosine' must have two text columns and input = 'separate', got 1 and 'joint'",
        ),
    ],
)
def test_refused_sets(assignment: str, message: str | None) -> None:
    if message is None:
        assert build_config(sets=[assignment]).encoder.weights == "none2="
        return
    shown = refusal(sets=[assignment])
    assert message in shown


def test_refusals_of_flags() -> None:
    assert refusal(preset="minlm").startswith("preset must be one of minilm, mpnet, slt")
    assert refusal(preset="minlm").endswith(", got 'minlm' (did you mean minilm?)")
    assert "train.seed must be set once, by --set or by its own option, got two values" in refusal(
        sets=["train.seed=1", "train.seed=2"]
    )
    assert "train.seed must be set once, by --set or by its own option, got two values" in refusal(
        sets=["train.seed=1"], seed=1
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tasks.a]\nlr = 1\nlr = 2", "own.toml must be a TOML file ("),
        ("[train]\nseed = 1\n[train]\nseed = 2", "own.toml must be a TOML file ("),
        ("[trian]\nseed = 1", "did you mean train?"),
        ("[train]\nsede = 1", "own.toml: a key of train must be one of update, optimizer"),
        ("[train]\nsede = 1", ", got 'sede' (did you mean seed?)"),
        ("[tasks.sst]\nsede = 1", "own.toml: a key of tasks.sst must be one of text, label"),
        ("[tasks.sst]\nsede = 1", ", got 'sede'"),
        ("train = 3", "own.toml: train must be a table, got 3"),
        ("tasks = 3", "own.toml: tasks must be a table"),
        ("[tasks]\nsst = 3", "own.toml: tasks.sst must be a table"),
        ("[tasks]", "at least one task"),
        (
            "[tasks.x]\nlr = 1",
            "tasks.x must have text, label, kind, lr, batch_size, "
            "lacks text, label, kind: minilm has them for sst, para, sts only",
        ),
        ("[tasks.sst]\nlr = 1979-05-27", "tasks.sst.lr must be a number"),
        ('[tasks."a.b"]\ntext = "t"\nlabel = "l"\nkind = "binary"', "a task's name must be letters"),
    ],
)
def test_refused_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    assert message in refusal(tasks_file=path)


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(tasks_file=tmp_path / "no.toml").endswith("no.toml can't be read: No such file or directory")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# caf\xe9\n")
    assert "latin.toml must be a TOML file ('utf-8' codec can't decode" in refusal(tasks_file=path)


def test_refused_dictionaries() -> None:
    good = build_config().to_dict()
    for change, message in [
        ({"format": "2"}, "format of the configuration must be '1', got '2'"),
        ({"extra": 1}, "a key of the configuration must be one of format, preset, encoder, train, tasks, got 'extra'"),
        ({"tasks": {}}, "at least one task"),
        ({"train": good["train"] | {"sed": 1}}, "did you mean seed?"),
        ({"encoder": {}}, "encoder.weights must be a non-empty string"),
        ({"tasks": {"a": 1}}, "tasks.a must be a table, got 1"),
    ]:
        with pytest.raises(ConfigError) as caught:
            RunConfig.from_dict(good | change)
        assert message in str(caught.value)
    with pytest.raises(
        ConfigError, match="the configuration must have format, preset, encoder, train, tasks, lacks format, preset"
    ):
        RunConfig.from_dict({key: good[key] for key in ("encoder", "train", "tasks")})
    task = build_config().tasks[0]
    with pytest.raises(ConfigError, match="tasks must have different names, got sst twice"):
        RunConfig(preset="x", encoder=build_config().encoder, train=build_config().train, tasks=(task, task))
