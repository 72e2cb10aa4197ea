"""The table [sweep] of a file: what it trains, and what is refused with file and key."""

from pathlib import Path

import pytest

from multitask.errors import ConfigError
from multitask.settings.config import build_config
from multitask.settings.sweep import read_sweep

HEAD = "[sweep]\nseeds = [3, 1]\n"
TASK = '[tasks.topic]\ntrain = "rows/train.csv"\ntext = "message"\nlabel = "topic"\nkind = "classification"\n'


def write(folder: Path, text: str) -> Path:
    (folder / "study.toml").write_text(text, encoding="utf-8")
    return folder / "study.toml"


def test_each_run_is_what_train_would_build(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"""{TASK}
        [train]
        epochs = 5
        {HEAD}
        [sweep.settings.baseline]
        [sweep.settings.fast]
        "tasks.topic.lr" = 1e-3
        train.epochs = 2
        train.clip = "none"
        """,
    )
    sweep = read_sweep(file)
    assert [name for name, _ in sweep.runs()] == ["baseline-3", "fast-3", "baseline-1", "fast-1"]
    runs = dict(sweep.runs())
    sets = ["tasks.topic.lr=1e-3", "train.epochs=2", "train.clip=none"]
    assert runs["fast-1"] == build_config(tasks_file=file, sets=sets, seed=1)
    assert runs["baseline-3"] == build_config(tasks_file=file, seed=3)


def test_a_sweep_may_be_of_a_preset_alone(tmp_path: Path) -> None:
    file = write(tmp_path, f'{HEAD}preset = "slt"\n[sweep.settings.baseline]\n')
    wanted = build_config(preset="slt", data=tmp_path, seed=3)
    assert dict(read_sweep(file, data=tmp_path).runs())["baseline-3"] == wanted


def test_weights_that_a_setting_names_choose_the_preset_as_for_train(tmp_path: Path) -> None:
    file = write(tmp_path, f'{HEAD}[sweep.settings.large]\nencoder.weights = "all-mpnet-base-v2"\n')
    assert read_sweep(file).settings["large"] == build_config(tasks_file=file, weights="all-mpnet-base-v2")
    assert read_sweep(file).settings["large"].preset == "mpnet"


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    changes = 'tasks.topic.train = "half.csv"\ntasks.topic.test = "none"\nencoder.weights = "./tiny"\n'
    config = read_sweep(write(tmp_path, f"{TASK}{HEAD}[sweep.settings.half]\n{changes}")).settings["half"]
    assert config.task("topic").train == str(tmp_path / "half.csv")
    assert config.task("topic").test is None
    assert config.encoder.weights == str(tmp_path / "tiny")


def test_the_format_of_a_tasks_files_may_be_changed(tmp_path: Path) -> None:
    file = write(
        tmp_path, f'{TASK}{HEAD}[sweep.settings.tabs]\n[sweep.settings.tabs.tasks.topic.format]\nseparator = "tab"\n'
    )
    assert read_sweep(file).settings["tabs"] == build_config(tasks_file=file, sets=["tasks.topic.format.separator=tab"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a table [sweep], got none"),
        ("sweep = 3", ": sweep must be a table, got 3"),
        (HEAD, ": sweep.settings must have a table, such as [sweep.settings.baseline], got none"),
        ("[sweep]\n[sweep.settings.a]", ": sweep.seeds must be a list of seeds, such as [1, 2, 3], got None"),
        ("[sweep]\nseeds = 3\n[sweep.settings.a]", ": sweep.seeds must be a list of seeds, such as [1, 2, 3], got 3"),
        ("[sweep]\nseeds = [1, -1]\n[sweep.settings.a]", ": sweep.seeds must be at least 0 and at most"),
        ("[sweep]\nseeds = [1, 1.5]\n[sweep.settings.a]", ": sweep.seeds must be a whole number, got 1.5"),
        ("[sweep]\nseeds = [1, 2, 1]\n[sweep.settings.a]", ": sweep.seeds must have each seed once, got 1 twice"),
        (f"{HEAD}setings = 1", ": a key of sweep must be one of seeds, preset, settings, got 'setings' (did you mean"),
        (f"{HEAD}preset = 'x'\n[sweep.settings.a]", ": sweep.preset must be one of minilm"),
        (f"{HEAD}settings.a = 1", ": sweep.settings.a must be a table, got 1"),
        (f"{HEAD}[sweep.settings.'a.b']", ": a name in sweep.settings must be letters, digits, '_' and '-'"),
        (f"{HEAD}[sweep.settings.a]\n'train.epcohs' = 1", ": sweep.settings.a: a key of train must be one of "),
        (f"{HEAD}[sweep.settings.a]\ntrian.epochs = 1", ": sweep.settings.a: the section must be one of encoder"),
        (f"{HEAD}[sweep.settings.a]\n'train.epochs' = 0", ": sweep.settings.a: train.epochs must be at least 1"),
        (f"{HEAD}[sweep.settings.a]\ntasks.nope.lr = 1", ": sweep.settings.a: the task must be one of topic, got"),
        (f"{HEAD}[sweep.settings.a]\nepochs = 1", ": sweep.settings.a: the section must be one of encoder"),
        (f"{HEAD}[sweep.settings.a]\ntrain.seed = 1", ": sweep.settings.a: train.seed must be left to sweep.seeds"),
        (
            f"{HEAD}[sweep.settings.a]\n'train.epochs' = 1\ntrain.epochs = 2",
            ": sweep.settings.a: train.epochs must be set once, got two values",
        ),
        (f"{HEAD}[sweep.settings.a]\n[train]\nepochs = 0", ": train.epochs must be at least 1 and at most"),
        (f"{HEAD}[sweep.settings.a]\n[trian]\nepochs = 1", ": a table must be one of encoder, train, tasks, got"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, f"{text}\n{TASK}")
    with pytest.raises(ConfigError) as caught:
        read_sweep(file)
    assert str(caught.value).startswith(f"{file}{message}" if message[0] == ":" else f"{file} {message}")


def test_train_takes_the_file_without_its_sweep(tmp_path: Path) -> None:
    plain = build_config(tasks_file=write(tmp_path, TASK))
    assert build_config(tasks_file=write(tmp_path, f"{TASK}{HEAD}[sweep.settings.a]\n'train.epochs' = 9\n")) == plain
