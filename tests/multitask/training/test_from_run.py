"""A new run from another's encoders, tokenizer and decoders: what is taken, what is new, what a resume then needs."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minbert.files.storage import read_tensors
from multitask import Run, Task, TrainConfig, build_config
from multitask.__main__ import main
from multitask.data.examples import read_examples
from multitask.errors import ConfigError, RunError, StoppedError
from multitask.settings.config import EncoderConfig, RunConfig
from multitask.training.origin import Origin
from multitask.training.train import train

MakeConfig = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("one_thread")
STILL = [f"tasks.{name}.{rate}=0.0" for name in ("sst", "para", "sts") for rate in ("lr", "decoder_lr")]


@pytest.fixture(scope="module")
def first(course_like: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the three tasks, in which every tensor has moved."""
    sets = [f"tasks.{name}.batch_size=8" for name in ("sst", "para", "sts")]
    sets += [f"tasks.{name}.lr=1e-3" for name in ("sst", "para", "sts")]
    config = build_config(data=course_like, sets=sets, weights=str(tiny_weights), epochs=1, rounds=3)
    return train(config, tmp_path_factory.mktemp("first") / "run", progress=False).folder


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of a run's weights."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "best").rglob("*.safetensors"))}


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "record.json").read_text(encoding="utf-8"))
    return found


def config_of(run: Path) -> RunConfig:
    return RunConfig.from_dict(json.loads((run / "config.json").read_text(encoding="utf-8")))


def test_a_run_that_does_not_move_has_the_others_weights(first: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    out = train(make_config(*STILL, epochs=1), tmp_path / "b", from_run=first, progress=False).folder
    assert tensors(out) == tensors(first)
    origin, before = record(out)["from"], json.loads((first / "best" / "scores.json").read_text())
    assert origin["folder"] == str(first)
    assert (origin["epoch"], origin["dev"]) == (1, before["dev"])
    assert json.loads((out / "best" / "scores.json").read_text())["dev"] == before["dev"]
    assert origin["taken"] == {"encoders": ["shared"], "decoders": ["sst", "para", "sts"]}
    assert origin["new"] == {"encoders": {}, "decoders": {}}


def test_more_epochs_need_the_run_alone(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--from", str(first), "--epochs", "2", "--out", "b", "--set", "tasks.sst.lr=3e-5"]) == 0
    said = capsys.readouterr().err
    assert said.count("begins from") == 1
    assert f"begins from {first} (epoch 1, dev sst accuracy " in said
    assert ": encoder shared and decoders sst, para, sts\n" in said
    before, now = config_of(first), config_of(tmp_path / "b")
    tasks = [replace(task, lr=3e-5) if task.name == "sst" else task for task in before.tasks]
    assert now == replace(before, train=replace(before.train, epochs=2), tasks=tasks)


def test_a_finished_run_that_is_resumed_for_more_names_the_option(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--from", str(first), "--out", str(first), "--epochs", "3", "--quiet"]) == 2
    assert "out must be another folder than the run to begin from" in capsys.readouterr().err
    with pytest.raises(RunError, match=rf"epochs must be 1, got 3; .* with --from {first}, in Python from_run="):
        train(replace(config_of(first), train=replace(config_of(first).train, epochs=3)), first, resume=True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": ("0", "1", "2", "3")}, "labels is 0, 1, 2, 3, was 0, 1, 2, 3, 4; name the old ones in labels"),
        ({"kind": "regression", "labels": (0.0, 4.0)}, "kind is regression, was classification"),
        ({"pooling": "mean"}, "pooling is mean, was attention"),
        ({"text": ("sentence", "id"), "id": None}, "texts are 2, were 1"),
        ({"encoder": "own"}, "encoder is own, was shared"),
        ({"name": "mood"}, "there is none of its name"),
    ],
)
def test_a_decoder_of_another_task_is_new_and_the_reason_is_said(
    first: Path, changes: dict[str, Any], why: str
) -> None:
    origin, config = Origin.load(first), config_of(first)
    changed = replace(config.task("sst"), **changes)
    start = origin.build(replace(config, tasks=(changed, config.task("sts"))), {})
    assert start.origin is not None
    assert start.origin["taken"]["decoders"] == ["sts"]
    assert list(start.origin["new"]["decoders"]) == [changed.name]
    assert f"decoder {changed.name} ({why}" in start.notes[0]
    mine, old = start.model.decoders["sts"].state_dict(), origin.run.model.decoders["sts"].state_dict()
    assert all(mine[name].equal(old[name]) for name in old)


def test_what_does_not_change_the_decoders_meaning_keeps_it(first: Path) -> None:
    config = config_of(first)
    changed = replace(
        config.task("sst"), lr=1e-3, dropout=0.0, batch_size=2, metric="f1:3", class_weights=(1, 2, 1, 1, 1)
    )
    start = Origin.load(first).build(replace(config, tasks=(changed,)), {})
    assert start.origin is not None
    assert start.origin["taken"]["decoders"] == ["sst"]


def test_a_further_task_joins(first: Path, tiny_weights: Path, tmp_path: Path) -> None:
    further = replace(config_of(first).task("sst"), name="mood")
    tasks = [*config_of(first).tasks, further]
    settings = TrainConfig(epochs=1, rounds=2)
    run = train(tasks=tasks, settings=settings, from_run=first, out=tmp_path / "b", progress=False)
    assert record(run.folder)["from"]["new"] == {"encoders": {}, "decoders": {"mood": "there is none of its name"}}
    assert run.config.encoder.weights == str(tiny_weights)  # where a new encoder would start
    assert set(run.evaluate()) == {"sst", "para", "sts", "mood"}


def test_each_encoder_is_taken_by_its_name(first: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    own = make_config("tasks.sst.encoder=a", "tasks.para.encoder=b", "tasks.sts.encoder=b", epochs=1)
    several = train(own, tmp_path / "several", progress=False).folder
    start = Origin.load(several).build(own, {})
    for name in ("a", "b"):
        saved = read_tensors(several / "best" / name / "model.safetensors")
        found = start.model.encoders[name].state_dict()
        assert found["embeddings.word_embeddings.weight"].equal(saved["embeddings.word_embeddings.weight"])
    joined = make_config("tasks.sst.encoder=c", "tasks.para.encoder=b", *STILL, epochs=1)
    run = train(replace(joined, tasks=joined.tasks[:2]), tmp_path / "joined", from_run=several, progress=False)
    origin = record(run.folder)["from"]
    assert origin["taken"] == {"encoders": ["b"], "decoders": ["para"]}
    assert origin["new"]["encoders"] == {"c": "there is none of its name"}
    pretrained = read_tensors(Path(str(own.encoder.weights)) / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert run.model.encoders["c"].state_dict()[name].equal(pretrained[f"bert.{name}"])


@pytest.mark.parametrize("removed", [False, True])
def test_a_resumed_run_comes_to_the_same_bytes(
    first: Path, make_config: MakeConfig, contents: Callable[..., Any], tmp_path: Path, removed: bool
) -> None:
    origin, config = tmp_path / "a", make_config()
    shutil.copytree(first, origin)
    train(config, tmp_path / "b", from_run=origin, progress=False, keep_optimizer=True)
    expected = contents(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "b", from_run=origin, progress=False, on_round=lambda done: "stop")
    before = record(tmp_path / "b")["from"]
    if removed:
        shutil.rmtree(origin)
    options: dict[str, Any] = {"progress": False, "resume": True, "keep_optimizer": True}
    train(config, tmp_path / "b", from_run=origin, **options)
    assert contents(tmp_path / "b") == expected
    assert record(tmp_path / "b")["from"] == before
    train(config, tmp_path / "b", from_run=origin, **options)  # finished: as it is
    assert contents(tmp_path / "b") == expected
    if removed:
        again = train(from_run=origin, out=tmp_path / "b", **options)
        assert again.config == config_of(tmp_path / "b")


def test_a_resume_from_something_else_is_refused(first: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    config, out = make_config(), tmp_path / "b"
    with pytest.raises(StoppedError):
        train(config, out, from_run=first, progress=False, on_round=lambda done: "stop")
    with pytest.raises(RunError, match=rf"from must be '{first}, sha256 .*', got None"):
        train(config, out, progress=False, resume=True)
    other = train(make_config(epochs=1), tmp_path / "other", progress=False).folder
    with pytest.raises(RunError, match=rf"from must be '{first}, .*', got '{other}, "):
        train(config, out, from_run=other, progress=False, resume=True)
    with pytest.raises(RunError, match=r"from must be .*, got '.*none, sha256 unknown, since there is no such folder'"):
        train(config, out, from_run=tmp_path / "none", progress=False, resume=True)


def test_a_run_without_a_checkpoint_is_not_begun_anew_from_something_else(
    first: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    config, out = make_config(), tmp_path / "b"
    with pytest.raises(StoppedError):
        train(config, out, from_run=first, progress=False, on_round=lambda done: "stop")
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(RunError, match=r"from must be '.*', got None"):
        train(config, out, progress=False, resume=True)
    train(config, out, from_run=first, progress=False, resume=True)


def test_a_run_still_in_training_has_a_best_epoch_to_begin_from(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    with pytest.raises(StoppedError):
        train(config, tmp_path / "a", progress=False, on_epoch=lambda scores: "stop")
    run = train(from_run=tmp_path / "a", out=tmp_path / "b", epochs=1, progress=False)
    assert record(run.folder)["from"]["epoch"] == 1


def test_rows_from_memory_are_given_anew_or_instead_of_files(first: Path, tmp_path: Path) -> None:
    rows = [{"sentence": f"{word} film", "sentiment": i % 5} for i, word in enumerate(["good", "bad", "great"] * 20)]
    config = config_of(first)
    one = replace(config, tasks=(config.task("sst"),))
    files = train(one, tmp_path / "files", from_run=first, progress=False, epochs=None).folder
    run = train(from_run=files, data={"sst": {"train": rows}}, out=tmp_path / "memory", epochs=1, progress=False)
    task = run.config.task("sst")
    assert (task.train, task.dev) == (None, config.task("sst").dev)
    assert record(run.folder)["tasks"]["sst"]["train_rows"] == 60
    with pytest.raises(ConfigError, match=r"data\['sst'\]\['train'\] the rows"):
        train(from_run=run.folder, out=tmp_path / "none", progress=False)
    train(from_run=run.folder, data={"sst": {"train": rows}}, out=tmp_path / "more", progress=False)


def test_dev_rows_that_were_trained_on_are_said(tmp_path: Path, course_like: Path, tiny_weights: Path) -> None:
    task = Task(name="sst", text="sentence", label="sentiment", train=course_like / "ids-sst-train.csv", batch_size=16)
    settings = TrainConfig(epochs=1, rounds=2)
    a = train(tasks=[task], weights=tiny_weights, settings=settings, out=tmp_path / "a", progress=False).folder
    said = f"sst: {a} may have trained on some of its dev rows"
    same = train(from_run=a, out=tmp_path / "same", progress=False).folder
    assert not any(note.startswith(said) for note in record(same)["notes"])
    seed = train(from_run=a, out=tmp_path / "seed", seed=5, progress=False).folder
    assert any(note.startswith(said) for note in record(seed)["notes"])
    other = replace(task, train=course_like / "ids-sst-dev.csv", batch_size=4)
    dev = replace(config_of(a), tasks=[other], train=replace(settings, hold_out=True))
    rows = train(dev, tmp_path / "rows", from_run=a, progress=False).folder
    assert any(note.startswith(said) for note in record(rows)["notes"])


def test_dev_rows_are_said_to_be_known_where_there_are_any_and_all_were_trained_on(first: Path, tmp_path: Path) -> None:
    settings = {hold: TrainConfig(epochs=1, rounds=1, hold_out=hold) for hold in (False, True)}
    rows = read_examples(config_of(first).task("sst").train, config_of(first).task("sst")).examples[:40]
    data = {"t": {"train": [{"text": row.texts[0], "label": str(row.label)} for row in rows]}}
    task = Task(name="t", text="text", label="label", batch_size=8)
    runs: list[Path] = []
    for hold in (False, False, True, True):
        origin = runs[-1] if runs else first
        out = tmp_path / str(len(runs))
        run = train(tasks=[task], data=data, from_run=origin, settings=settings[hold], out=out, progress=False)
        runs.append(run.folder)
    said = [any("may have trained on some of its dev rows" in note for note in record(run)["notes"]) for run in runs]
    assert said == [False, False, True, False]
    assert f"begins from {runs[0]} (epoch 1): encoder" in record(runs[1])["notes"][0]


def test_an_input_that_comes_to_the_same_keeps_the_decoder(first: Path) -> None:
    config = config_of(first)
    sst, sts = (replace(config.task(name), input=None) for name in ("sst", "sts"))
    start = Origin.load(first).build(replace(config, tasks=(sst, sts)), {})
    assert start.origin is not None
    assert start.origin["new"]["decoders"] == {"sts": "input is both, was joint"}


def test_what_can_not_be_begun_from(
    first: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = make_config(), tmp_path / "b"
    with pytest.raises(ConfigError, match=rf"got the run {first}; --from {first} \(in Python from_run\)"):
        train(replace(config, encoder=EncoderConfig(weights=first)), out)
    with pytest.raises(ConfigError, match=rf"or be those that {first} started from, '.*tiny-bert', got 'bert-base-"):
        train(replace(config, encoder=EncoderConfig(weights="bert-base-uncased")), out, from_run=first)
    with pytest.raises(RunError, match=r"none: there is no such run folder"):
        train(from_run=tmp_path / "none", out=out)
    with pytest.raises(RunError, match=r"must be a run folder, with best/tasks.json or tasks.json in it"):
        train(config, out, from_run=tmp_path)
    assert main(["train", "--from", str(first)]) == 2
    assert "--out must be the folder of the new run where --from is given alone" in capsys.readouterr().err


def test_two_processes_begin_from_the_same(start: Any, finish: Any, first: Path, tmp_path: Path) -> None:
    words = ["-m", "multitask", "train", "--from", first, "--epochs", "1", "--out", tmp_path / "b", "--quiet"]
    words += [word for each in STILL for word in ("--set", each)]
    finish(start(2, *words))
    assert tensors(tmp_path / "b") == tensors(first)
    assert Run.load(tmp_path / "b").config.train.epochs == 1


def test_a_run_with_a_part_of_ones_own_needs_its_file(
    first: Path,
    tmp_path: Path,
    remember_parts: Callable[[], Callable[[], None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plugin = ["--plugin", str(Path(__file__).parents[2] / "plugins" / "weighted.py")]
    forget = remember_parts()
    try:
        words = ["train", "--epochs", "1", "--rounds", "1", "--from"]
        pooling = ["--set", "tasks.sst.pooling=weighted"]
        assert main([*words, str(first), *plugin, *pooling, "--out", str(tmp_path / "a")]) == 0
        assert "new: decoder sst (pooling is weighted, was attention)" in capsys.readouterr().err
        assert main([*words, str(tmp_path / "a"), *plugin, "--out", str(tmp_path / "b")]) == 0
        assert ": encoder shared and decoders sst, para, sts\n" in capsys.readouterr().err
    finally:
        forget()
    assert main([*words, str(tmp_path / "a"), "--out", str(tmp_path / "c")]) == 1
    assert "a: the pooling 'weighted' must be registered, by --plugin weighted.py" in capsys.readouterr().err
