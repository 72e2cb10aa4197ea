"""Preset, TOML and --set: which wins, and what each may hold."""

import json
from pathlib import Path

import pytest

from multitask.errors import ConfigError
from multitask.settings.config import RunConfig, build_config, load_tasks
from multitask.settings.presets import preset_names

OWN = """
[encoder]
weights = "./weights"
dropout = "none"

[train]
epochs = 2
clip = 1

[tasks.topic]
train = "rows/topic.tsv"
text = "title"
label = "topic"
kind = "classification"

[tasks.sts]
lr = 1e-5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(**arguments: object) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(**arguments)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", preset_names())
def test_config_json_round_trip_is_exact(name: str) -> None:
    config = build_config(preset=name, data="folder", seed=7, sets=["tasks.sst.lr=1", "tasks.para.sample_size=300"])
    text = json.dumps(config.to_dict(), allow_nan=False)
    again = RunConfig.from_dict(json.loads(text))
    assert again == config
    assert json.dumps(again.to_dict()) == text
    assert [task.name for task in again.tasks] == ["sst", "para", "sts"]


def test_paths_are_absolute_and_known_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = build_config(data="folder")
    assert config.task("sst").train == str(tmp_path / "folder" / "ids-sst-train.csv")
    assert config.task("para").dev == str(tmp_path / "folder" / "quora-dev.csv")
    assert config.task("sts").test == str(tmp_path / "folder" / "sts-test-student.csv")
    moved = config.with_data("/elsewhere")
    assert moved.task("sst").train == "/elsewhere/ids-sst-train.csv"
    assert moved.task("sts").test == "/elsewhere/sts-test-student.csv"
    assert moved.train == config.train
    assert build_config(sets=["tasks.sst.train=x.csv"]).task("sst").train == str(tmp_path / "x.csv")


def test_two_files_of_one_name_do_not_fit_into_one_folder(tmp_path: Path) -> None:
    toml = [f'[tasks.{name}]\ntrain = "{name}/train.tsv"\ntext = "t"\nlabel = "l"\nkind = "binary"' for name in "ab"]
    config = build_config(tasks_file=write(tmp_path, "\n".join(toml)))
    with pytest.raises(ConfigError) as caught:
        config.with_data("/data")
    assert str(caught.value) == (
        f"{tmp_path}/a/train.tsv and {tmp_path}/b/train.tsv must have different names "
        "to be read from one folder, got /data/train.tsv for both"
    )
    # One file for both tasks stays one file.
    shared = build_config(tasks_file=write(tmp_path, "\n".join(toml).replace("b/train", "a/train")))
    assert [task.train for task in shared.with_data("/data").tasks] == ["/data/train.tsv"] * 2


def test_a_folder_of_weights_is_absolute_and_a_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for given, kept in [
        ("./w", tmp_path / "w"),
        ("../w", tmp_path.parent / "w"),
        ("~/w", tmp_path / "home" / "w"),
        ("models/mine", tmp_path / "models" / "mine"),
        (".", tmp_path),
        ("models/other", "models/other"),
        ("all-minilm-l6-v2", "all-minilm-l6-v2"),
        (str(tmp_path / "w"), tmp_path / "w"),
    ]:
        assert build_config(weights=given).encoder.weights == str(kept)
        assert build_config(sets=[f"encoder.weights={given}"]).encoder.weights == str(kept)
    # In a TOML file it is relative to that file.
    (tmp_path / "toml").mkdir()
    path = write(tmp_path / "toml", '[encoder]\nweights = "./w"\n')
    assert build_config(tasks_file=path).encoder.weights == str(tmp_path / "toml" / "w")


def test_an_empty_table_keeps_one_task_of_the_preset(tmp_path: Path) -> None:
    config = build_config(tasks_file=write(tmp_path, "[tasks.para]\n"), data="/data")
    assert config.tasks == (build_config(data="/data").task("para"),)


def test_what_was_tuned_for_the_presets_files_is_left_with_them(tmp_path: Path) -> None:
    path = write(tmp_path, '[tasks.para]\ntrain = "mine.tsv"\n[tasks.sts]\nlr = 1e-5\n')
    para, sts = build_config(tasks_file=path).tasks
    assert (para.input, para.start, para.decoder_lr, para.batch_size) == (None, "probe", None, None)
    assert (sts.input, sts.start, sts.decoder_lr, sts.batch_size) == ("joint", "random", 2e-4, 22)
    slt = build_config(tasks_file=path, preset="slt").task("para")
    assert (slt.input, slt.start, slt.batch_size) == ("separate", "random", 32)


def test_toml_over_preset_and_set_over_toml(tmp_path: Path) -> None:
    path = write(tmp_path, OWN)
    config = build_config(tasks_file=path, data="/data", sets=["train.epochs=5", "tasks.topic.pooling=mean"])
    assert [task.name for task in config.tasks] == ["topic", "sts"]
    assert config.encoder.weights == str(tmp_path / "weights")
    assert config.encoder.dropout is None
    assert (config.train.epochs, config.train.clip, config.train.schedule) == (5, 1.0, "linear")
    topic, sts = config.tasks
    assert topic.train == str(tmp_path / "rows" / "topic.tsv")
    assert (topic.text, topic.labels, topic.dev, topic.pooling) == (("title",), None, None, "mean")
    assert (topic.lr, topic.decoder_lr, topic.batch_size) == (5e-5, None, None)
    assert (sts.lr, sts.decoder_lr, sts.batch_size, sts.dev) == (1e-5, 2e-4, 22, "/data/sts-dev.csv")
    assert load_tasks(path)[0] == build_config(tasks_file=path).tasks[0]


def test_a_task_with_rows_or_kind_of_its_own_keeps_less_of_the_preset(tmp_path: Path) -> None:
    path = write(tmp_path, '[tasks.sst]\ntrain = "mine.tsv"\nkind = "binary"\nlabels = [0, 1.5]\n')
    (task,) = build_config(tasks_file=path, data="/data").tasks
    assert (task.train, task.dev, task.test) == (str(tmp_path / "mine.tsv"), None, None)
    assert (task.kind, task.labels, task.label) == ("binary", ("0", "1.5"), "sentiment")


def test_without_tasks_a_toml_leaves_the_presets(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff[train]\r\nseed = 3\r\n")
    config = build_config(preset="slt", tasks_file=path)
    assert (len(config.tasks), config.train.seed) == (3, 3)
    with pytest.raises(ConfigError, match=r"own.toml must have a \[tasks.NAME\] table, got none"):
        load_tasks(path)


def test_own_tasks_under_a_published_preset(tmp_path: Path) -> None:
    path = write(tmp_path, '[tasks.x]\ntrain = "x"\ntext = "t"\nlabel = "l"\nkind = "binary"\n')
    assert refusal(preset="slt", tasks_file=path) == (
        f"{path}: tasks.x must have text, label, kind, lr, batch_size, "
        "lacks lr, batch_size: slt has them for sst, para, sts only"
    )
    config = build_config(preset="slt", tasks_file=path, sets=["tasks.x.lr=1e-5", "tasks.x.batch_size=8"])
    assert (config.tasks[0].encoder, config.tasks[0].dropout, config.tasks[0].input) == ("x", 0.3, "separate")


def test_values_of_set() -> None:
    sets = [
        "tasks.sst.lr = 3e-5",
        "tasks.sst.labels=['a', 'b']",
        "tasks.sst.class_weights=[1, 2.5]",
        "tasks.para.decoder_lr=none",
        "tasks.para.text=['q=1', 'q2']",
        "encoder.freeze=true",
        "encoder.weights=some/hub-id",
        "train.clip=none",
    ]
    config = build_config(sets=sets)
    sst, para = config.task("sst"), config.task("para")
    assert (sst.lr, sst.labels, sst.class_weights) == (3e-5, ("a", "b"), (1.0, 2.5))
    assert (para.decoder_lr, para.text) == (None, ("q=1", "q2"))
    assert (config.encoder.freeze, config.encoder.weights, config.train.clip) == (True, "some/hub-id", None)
    flags = build_config(weights="w", epochs=9, rounds=8, seed=7, precision="float32")
    assert (flags.encoder.weights, flags.train.epochs, flags.train.rounds) == ("w", 9, 8)
    assert (flags.train.seed, flags.train.precision) == (7, "float32")


def test_presets_are_not_written_to() -> None:
    build_config(sets=["tasks.sst.lr=1", "train.seed=1"], data="/data")
    assert build_config().task("sst").lr == 5e-5
