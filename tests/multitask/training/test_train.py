"""Training into a folder: what is written and kept, which epoch, which parts learn, and what is refused."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minbert.files.storage import read_tensors, write_tensors
from minbert.model import BertModel
from multitask.errors import ConfigError, RunError
from multitask.metrics import Score
from multitask.model.model import MultitaskModel
from multitask.run import Run
from multitask.training import session
from multitask.training.train import train

NAMES = ("sst", "para", "sts")


def test_dev_rows_that_stand_in_train_are_counted_and_said(
    make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = tmp_path / "dev.tsv"
    rows = ["a film without a twin in train", "story story story the the the", "good  bad", "bad good"]
    dev.write_text("sentence\tsentiment\n" + "".join(f"{row}\t1\n" for row in rows), encoding="utf-8")
    both = tmp_path / "train.tsv"
    both.write_text(dev.read_text(encoding="utf-8").replace("a film without", "another film with"), encoding="utf-8")
    config = make_config(f'tasks.sst.train="{both}"', f'tasks.sst.dev="{dev}"', "tasks.sst.batch_size=1", epochs=1)
    run = train(config, tmp_path / "run")
    record = json.loads((run.folder / "record.json").read_text(encoding="utf-8"))
    assert record["tasks"]["sst"]["dev_rows_also_in_train"] == 3
    assert "sst: 3 dev rows are also in train" in capsys.readouterr().err


def test_metrics_are_the_same_bytes_each_time(make_config: Any, tmp_path: Path, read_log: Any) -> None:
    train(make_config(), tmp_path / "a", progress=False)
    train(make_config(), tmp_path / "b", progress=True)  # the estimate and bars leave no trace
    train(make_config("train.seed=7"), tmp_path / "c", progress=False)
    first, second, other = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in "abc")
    assert first == second
    assert first != other
    weights = [(tmp_path / name / "best" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    lines = read_log(tmp_path / "a" / "metrics.jsonl")
    assert [set(line) for line in lines if "round" in line] == [
        {"round", "epoch", "task", "rows", "loss", "lr", "grad_norm"}
    ] * 18
    scores = [line for line in lines if "round" not in line]
    assert [(line["epoch"], line["task"]) for line in scores] == [(n, name) for n in (1, 2) for name in NAMES]
    assert all(set(line) == {"epoch", "split", "task", "metric", "value"} for line in scores)


# Which epoch is kept. Dev scores of three epochs as they are dealt out to the run, in the order of NAMES:
DEALT = [(0.9, 0.1, 0.2), (0.5, 0.6, 0.4), (0.1, 0.7, 0.3)]


@pytest.mark.parametrize(("select", "epoch"), [("mean", 2), ("sst", 1), ("para", 3), ("sts", 2)])
def test_the_best_epoch_is_kept(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str, epoch: int
) -> None:
    seen: list[dict[str, Tensor]] = []

    def deal(model: MultitaskModel, data: Any, **_: Any) -> dict[str, Score]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        values = zip(NAMES, DEALT[len(seen) - 1], strict=True)
        return {name: Score(value, math.nan, math.nan, 24, "accuracy") for name, value in values}

    monkeypatch.setattr(session, "evaluate_tasks", deal)
    run = train(make_config("train.rounds=1", epochs=3), tmp_path / "run", select=select, progress=False)
    kept = run.model.state_dict()
    same = [all(torch.equal(kept[name], value) for name, value in state.items()) for state in seen]
    assert same == [number == epoch for number in (1, 2, 3)]


def test_a_score_that_is_not_defined_keeps_the_first_epoch(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_log: Any
) -> None:
    nothing = {"sts": Score(math.nan, math.nan, math.nan, 24, "pearson")}
    monkeypatch.setattr(session, "evaluate_tasks", lambda *_, **__: nothing)
    run = train(make_config("train.rounds=1"), tmp_path / "run", select="sts", progress=False)
    assert (run.folder / "best" / "tasks.json").is_file()
    assert [line["value"] for line in read_log(run.folder / "metrics.jsonl") if "value" in line] == [None, None]


def test_without_a_dev_file_a_tenth_is_held_out(make_config: Any, tmp_path: Path) -> None:
    run = train(make_config("tasks.sst.dev=none", epochs=1), tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["tasks"]["sst"]["train_rows"], record["tasks"]["sst"]["dev_rows"]) == (270, 30)
    last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-3:]
    score = run.evaluate("dev")["sst"]
    assert score.n == 30
    assert json.loads(last[0])["value"] == pytest.approx(score.value)  # the same rows, drawn again
    assert run.evaluate("train")["sst"].n == 270


def moments(folder: Path) -> list[str]:
    return [name for file in folder.rglob("*.safetensors") for name in read_tensors(file) if "exp_avg" in name]


def test_a_finished_run_keeps_no_moments_unless_asked(make_config: Any, tmp_path: Path) -> None:
    train(make_config(epochs=1), tmp_path / "lean", progress=False)
    assert not moments(tmp_path / "lean")
    assert not list((tmp_path / "lean").rglob("checkpoints/*"))
    train(make_config(epochs=1), tmp_path / "whole", keep_optimizer=True, progress=False)
    assert moments(tmp_path / "whole")


def test_freeze_trains_the_decoders_alone(make_config: Any, tiny_weights: Path, tmp_path: Path) -> None:
    run = train(make_config("encoder.freeze=true", epochs=1), tmp_path / "run", progress=False)
    start = BertModel.from_pretrained(tiny_weights).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in run.model.encoder_of("sst").state_dict().items())
    fresh = train(make_config("encoder.freeze=true", "train.rounds=1", epochs=1), tmp_path / "less", progress=False)
    for name, decoder in run.model.decoders.items():
        assert not torch.equal(decoder.head.linear.weight, fresh.model.decoders[name].head.linear.weight)


def test_encoders_of_their_own_are_saved_and_loaded(make_config: Any, tmp_path: Path) -> None:
    rates = [f"tasks.{name}.lr=1e-3" for name in NAMES]
    sets = (*rates, *(f"tasks.{name}.batch_size=8" for name in NAMES))
    run = train(make_config(*sets, preset="slt", epochs=1), tmp_path / "run", progress=False)
    assert {path.parent.name for path in (tmp_path / "run" / "best").glob("*/config.json")} == set(NAMES)
    weights = [run.model.encoder_of(name).layers[0].output.weight for name in NAMES]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    again = Run.load(tmp_path / "run")
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert again.evaluate() == run.evaluate()
    # One task's training is what it would be without the others.
    alone = [f"tasks.{name}.lr=0" for name in ("para", "sts")]
    other = train(make_config(*sets[3:], rates[0], *alone, preset="slt", epochs=1), tmp_path / "b", progress=False)
    assert torch.equal(
        other.model.encoder_of("para").layers[0].output.weight, other.model.encoders["sts"].layers[0].output.weight
    )
    assert not torch.equal(
        other.model.encoder_of("sst").layers[0].output.weight, other.model.encoders["sts"].layers[0].output.weight
    )


def without_pooler(weights: Path, folder: Path) -> Path:
    shutil.copytree(weights, folder)
    tensors = read_tensors(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if ".pooler." not in name and not name.startswith("cls")}
    assert len(kept) < len(tensors)
    write_tensors(folder / "model.safetensors", kept)
    return folder


def test_weights_without_a_pooler(make_config: Any, tiny_weights: Path, tmp_path: Path) -> None:
    weights = without_pooler(tiny_weights, tmp_path / "weights")
    with pytest.raises(
        ConfigError, match=r"tasks\.sst\.pooling must be one of cls, mean, max, .*no pooler, got 'attention'"
    ):
        train(make_config("tasks.sst.pooling=attention", weights=weights), tmp_path / "run", progress=False)
    run = train(make_config("tasks.sts.pooling=max", weights=weights, epochs=1), tmp_path / "open", progress=False)
    assert run.model.encoder_of("sst").pooler is None
    assert [task.pooling for task in run.model.tasks.values()] == ["mean", "mean", "max"]
    said = "sst, para: pooling is mean, as the encoder has no pooler for attention to ask with (tasks.NAME.pooling)"
    assert json.loads((tmp_path / "open" / "record.json").read_text())["notes"].count(said) == 1
    assert Run.load(tmp_path / "open").evaluate() == run.evaluate()
    named = [f"tasks.{name}.pooling={pooling}" for name, pooling in zip(NAMES, ("mean", "mean", "max"), strict=True)]
    other = train(make_config(*named, weights=weights, epochs=1), tmp_path / "named", progress=False)
    assert other.evaluate() == run.evaluate()
    assert "pooler" not in str(json.loads((tmp_path / "named" / "record.json").read_text())["notes"])


def test_limit(make_config: Any, tmp_path: Path) -> None:
    config = make_config("train.rounds=2", epochs=1)
    train(config, tmp_path / "run", limit=17, progress=False)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert {(task["train_rows"], task["dev_rows"]) for task in record["tasks"].values()} == {(17, 17)}


def test_refusals(make_config: Any, tmp_path: Path) -> None:
    config = make_config()
    with pytest.raises(
        ConfigError, match="select must be one of auto, last, mean, sst, para and 1 more, or TASK.METRIC, got 'best'"
    ):
        train(config, tmp_path / "run", select="best", progress=False)
    with pytest.raises(ConfigError, match="limit must be at least 1, got 0"):
        train(config, tmp_path / "run", limit=0, progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="full: must be empty, got a folder with files in it"):
        train(config, tmp_path / "full", progress=False)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]


def test_rows_left_out_are_counted_also_when_quiet(
    make_config: Any, course_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (course_like / "ids-sst-train.csv").read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rpartition("\t")[0] + "\t"
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    train(make_config(f'tasks.sst.train="{file}"', "train.rounds=1", epochs=1), tmp_path / "run", progress=False)
    said = capsys.readouterr().err
    assert said == f"sst: left out 1 row, the first: {file}:4: column 'sentiment' must not be empty, got ''\n"
