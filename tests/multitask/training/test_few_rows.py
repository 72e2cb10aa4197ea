"""Few rows: a decoder that starts from a probe, rounds enough to learn, and no choice by a handful of dev rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert import BertModel, BertTokenizer, encode
from multitask import Run, Task, TrainConfig
from multitask.data.batches import EncodedTexts, label_tensor
from multitask.errors import ConfigError, DataError, StoppedError
from multitask.evaluation import outputs_of
from multitask.model.probe import cross_validate, fit_probe
from multitask.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

SINGLE = Task(name="mood", text="text", label="mood")
PAIR = Task(name="alike", text=("a", "b"), label="score", kind="regression")
STILL = TrainConfig(epochs=1, rounds=1, precision="float32")  # with rates of 0 a round that changes nothing
WORDS = ["warm", "cold", "good", "bad", "long", "short", "new", "old", "red", "blue"]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows for both tasks: texts of drawn words, a mood that follows from them, and a score of how many they share."""
    generator = np.random.default_rng(seed)
    drawn = [[list(generator.choice(WORDS, 4, replace=False)) for _ in "ab"] for _ in range(count)]
    return [
        {"text": " ".join(a), "mood": "yes" if "good" in a or "warm" in a else "no", "a": " ".join(a), "b": " ".join(b)}
        | {"score": float(len(set(a) & set(b)))}
        for a, b in drawn
    ]


def trained(out: Path, task: Task, weights: Path, count: int = 24, **options: Any) -> Run:
    settings = options.pop("settings", TrainConfig(epochs=2, min_rounds=8))
    data = {task.name: {"train": rows(count), **options.pop("splits", {})}}
    return train(tasks=[task], data=data, weights=weights, settings=settings, out=out, progress=False, **options)


def record_of(run: Run) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run.folder / "record.json").read_text())
    return record


def still(task: Task, **changes: Any) -> Task:
    return Task(**{**task.to_dict(), "name": task.name, "lr": 0.0, "decoder_lr": 0.0, **changes})


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_at_the_start_the_model_gives_the_probes_outputs(tmp_path: Path, tiny_weights: Path, pooling: str) -> None:
    run = trained(tmp_path / "run", still(SINGLE, pooling=pooling), tiny_weights, settings=STILL)
    model, tokenizer = BertModel.from_pretrained(tiny_weights).eval(), BertTokenizer.from_pretrained(tiny_weights)
    texts = [row["text"] for row in rows(24)]
    vectors = encode(model, tokenizer, texts)
    task = run.model.tasks["mood"]
    labels = label_tensor(task, [task.classes.index(row["mood"]) for row in rows(24)])
    weight, bias = fit_probe(task, vectors, labels)
    wanted = vectors.double() @ weight.T + bias
    encoded = EncodedTexts(task, [(text,) for text in texts], tokenizer, 100)
    found = outputs_of(run.model, "mood", encoded, device=torch.device("cpu"), dtype=torch.float32)
    assert (found - wanted).abs().max() < 1e-4
    assert wanted.std() > 0.01
    crossed = cross_validate(task, vectors, labels).argmax(1)
    assert record_of(run)["cross_validated"]["mood"]["value"] == pytest.approx((crossed == labels).double().mean())


def test_of_pairs_the_cosine_is_not_penalized(tmp_path: Path, tiny_weights: Path) -> None:
    run = trained(tmp_path / "run", still(PAIR), tiny_weights, settings=STILL)
    head = run.model.decoders["alike"].head
    texts = [(row["a"], row["b"]) for row in rows(24)]
    encoded = EncodedTexts(run.model.tasks["alike"], texts, run.tokenizer, 100)
    device, dtype = torch.device("cpu"), torch.float32
    found = outputs_of(run.model, "alike", encoded, device=device, dtype=dtype)[:, 0].double()
    labels = torch.tensor([row["score"] for row in rows(24)], dtype=torch.float64)
    # Neither the bias nor the cosine's weight is penalized, so that the residuals are orthogonal to both.
    decoder, encoder = run.model.decoders["alike"], run.model.encoder_of("alike")
    with torch.no_grad():
        features = head.features(*decoder.vectors(encoder(**encoded.tokens(np.arange(24)))))
    assert abs((found - labels).sum()) < 1e-3
    assert abs(((found - labels) * features[:, -1]).sum()) < 1e-3


def test_a_published_preset_and_start_random_have_random_heads(tmp_path: Path, tiny_weights: Path) -> None:
    heads = []
    for name, start in (("a", "random"), ("b", "probe")):
        run = trained(tmp_path / name, still(SINGLE, start=start), tiny_weights, settings=STILL)
        heads.append(run.model.decoders["mood"].head.linear)
    assert not heads[0].bias.any()
    assert heads[1].bias.any()


def test_probe_rows_are_drawn_by_the_seed_from_many(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multitask.training.start.PROBE_ROWS", 12)
    weights = [
        trained(tmp_path / str(number), still(SINGLE), tiny_weights, settings=STILL, seed=seed).model.decoders["mood"]
        for number, seed in enumerate((1, 1, 2))
    ]
    first, again, other = (decoder.head.linear.weight for decoder in weights)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("count", "held", "explicit"), [(199, 0, None), (200, 20, None), (40, 4, True), (300, 0, False)]
)
def test_dev_rows_are_held_out_of_200_rows_or_more(
    tmp_path: Path, tiny_weights: Path, count: int, held: int, explicit: bool | None
) -> None:
    settings = TrainConfig(epochs=1, rounds=1, hold_out=explicit)
    run = trained(tmp_path / "run", SINGLE, tiny_weights, count, settings=settings)
    task = record_of(run)["tasks"]["mood"]
    assert (task["train_rows"], task["dev_rows"]) == (count - held, held)
    assert ("mood" in record_of(run)["cross_validated"]) is not bool(held)
    if held:
        assert run.evaluate("dev")["mood"].n == held
    else:
        with pytest.raises(
            DataError, match=r"^tasks.mood.dev must be a file of dev rows, .*all its rows were trained on"
        ):
            run.evaluate("dev")
        assert run.evaluate("dev", data={"mood": rows(7, seed=1)})["mood"].n == 7
        assert run.evaluate("train")["mood"].n == count


def test_a_run_from_before_is_scored_on_the_rows_it_held_out(tmp_path: Path, tiny_weights: Path) -> None:
    settings = TrainConfig(epochs=1, rounds=1, hold_out=True)
    run = trained(tmp_path / "run", SINGLE, tiny_weights, 40, settings=settings)
    expected = run.evaluate("dev", data={"mood": {"train": rows(40)}})
    config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    del config["train"]["hold_out"]
    record = record_of(run)
    del record["tasks"]["mood"]["held_with"]
    for name, content in (("config", config), ("record", record)):
        (run.folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    again = Run.load(run.folder).evaluate("dev", data={"mood": {"train": rows(40)}})
    assert again == expected
    assert again["mood"].n == 4


def test_few_rows_make_rounds_enough(tmp_path: Path, tiny_weights: Path) -> None:
    run = trained(tmp_path / "run", SINGLE, tiny_weights, 24, settings=TrainConfig(epochs=2))
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in lines if "round" in line] == [6] * 60
    notes = "\n".join(record_of(run)["notes"])
    assert "mood: batches of 6 of its 24 rows (tasks.mood.batch_size)" in notes
    assert "mood: 24 rows are passed over 7.5 times in an epoch (train.min_rounds)" in notes
    assert "all 24 rows are trained on" in notes
    assert "the last epoch is kept, as 0 dev rows of mood are fewer than the 100" in notes


def test_each_decision_can_be_overruled(tmp_path: Path, tiny_weights: Path) -> None:
    task = Task(**{**SINGLE.to_dict(), "name": "mood", "batch_size": 12, "start": "random"})
    settings = TrainConfig(epochs=2, min_rounds=None, hold_out=False)
    run = trained(tmp_path / "run", task, tiny_weights, 24, settings=settings, select="last")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in lines if "round" in line] == [12] * 4
    assert record_of(run)["notes"] == ["mood: all 24 rows are trained on (train.hold_out)"]
    assert not record_of(run)["cross_validated"]


@pytest.mark.parametrize(
    ("dev", "select", "kept"),
    [(99, "auto", "last"), (100, "auto", "best"), (99, "mean", "best"), (100, "last", "last")],
)
def test_a_handful_of_dev_rows_chooses_no_epoch(
    tmp_path: Path, tiny_weights: Path, dev: int, select: str, kept: str
) -> None:
    # Later epochs are worse: their labels are the contrary of the dev rows'.
    contrary = [{**row, "mood": {"yes": "no", "no": "yes"}[row["mood"]]} for row in rows(dev, seed=1)]
    epochs: list[float] = []
    run = trained(
        tmp_path / "run",
        Task(**{**SINGLE.to_dict(), "name": "mood", "start": "random", "lr": 1e-3, "decoder_lr": 1e-2}),
        tiny_weights,
        settings=TrainConfig(epochs=3, min_rounds=18, schedule="constant"),
        splits={"dev": contrary},
        select=select,
        on_epoch=lambda scores: epochs.append(scores["mood"].value),
    )
    assert max(epochs) > epochs[-1]
    assert run.evaluate("dev")["mood"].value == pytest.approx(max(epochs) if kept == "best" else epochs[-1])


def test_of_equal_epochs_the_later_is_kept(tmp_path: Path, tiny_weights: Path) -> None:
    task = Task(**{**SINGLE.to_dict(), "name": "mood", "lr": 0.0, "decoder_lr": 1e-6})
    written: list[float] = []

    def note(scores: object) -> None:
        written.append((tmp_path / "run" / "best" / "decoders.safetensors").stat().st_mtime_ns)

    splits = {"dev": rows(100, seed=1)}
    trained(tmp_path / "run", task, tiny_weights, splits=splits, select="mood", on_epoch=note)
    assert written[0] < written[1]


def test_patience_needs_a_dev_score(tmp_path: Path, tiny_weights: Path) -> None:
    settings, splits = TrainConfig(patience=1), {"dev": rows(100, seed=1)}
    with pytest.raises(ConfigError, match=r"^train.patience must be unset where there are no dev rows"):
        trained(tmp_path / "none", SINGLE, tiny_weights, settings=settings)
    splits = {"dev": rows(100, seed=1)}
    with pytest.raises(ConfigError, match=r"^train.patience must be unset where select is last"):
        trained(tmp_path / "last", SINGLE, tiny_weights, splits=splits, settings=settings, select="last")
    with pytest.raises(ConfigError, match=r"^select must be auto or last where there are no dev rows"):
        trained(tmp_path / "named", SINGLE, tiny_weights, select="mood")


def test_a_small_task_does_not_hold_up_a_large_one(tmp_path: Path, tiny_weights: Path) -> None:
    many = Task(name="many", text="text", label="mood")
    run = train(
        tasks=[SINGLE, many],
        data={"mood": {"train": rows(8)}, "many": {"train": rows(400, seed=1)}},
        weights=tiny_weights,
        settings=TrainConfig(epochs=1, min_rounds=10),
        out=tmp_path / "run",
        progress=False,
    )
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in lines if line.get("round") and line["task"] == "mood"] == [4] * 10
    assert [line["rows"] for line in lines if line.get("round") and line["task"] == "many"] == [32] * 10


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_stopped_run_of_few_rows_ends_in_the_same_bytes(tmp_path: Path, tiny_weights: Path, stop: int) -> None:
    whole = trained(tmp_path / "whole", PAIR, tiny_weights, on_round=lambda done: None)
    with pytest.raises(StoppedError):
        trained(tmp_path / "parts", PAIR, tiny_weights, on_round=lambda done: "stop" if done.number == stop else None)
    parts = trained(tmp_path / "parts", PAIR, tiny_weights, resume=True)
    assert record_of(parts)["cross_validated"] == record_of(whole)["cross_validated"] != {}
    for name in ("model.safetensors", "decoders.safetensors"):
        assert (parts.folder / "best" / name).read_bytes() == (whole.folder / "best" / name).read_bytes()
