"""What ends a run before its last epoch: a callback, its minutes, its patience."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask.distributed import is_main
from multitask.errors import ConfigError, StoppedError
from multitask.evaluation import Selection
from multitask.metrics import Score
from multitask.run import Run
from multitask.settings.config import RunConfig
from multitask.training import session
from multitask.training.checkpoints import latest_checkpoint
from multitask.training.loop import RoundRecord
from multitask.training.train import train as train_run

MakeConfig = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def scores_by_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """A function of numbers: what the epochs score, instead of what they do."""

    def score(values: list[float]) -> None:
        given = iter(values)
        monkeypatch.setattr(Selection, "value", lambda self, scores: next(given))

    return score


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The session's clock, in seconds: it shows its one number."""
    now = [1000.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    return now


def record_of(out: Path) -> Any:
    return json.loads((out / "record.json").read_text(encoding="utf-8"))


def rounds_of(read_log: Any, out: Path) -> list[int]:
    return [line["round"] for line in read_log(out / "metrics.jsonl") if line.get("task") == "sst" and "round" in line]


# Callbacks


def test_callbacks_see_every_round_and_epoch(
    short_config: MakeConfig, read_log: Any, whole: Any, contents: Any, train: Any, tmp_path: Path
) -> None:
    config, expected = whole("separate")
    records: list[RoundRecord] = []
    epochs: list[dict[str, Score]] = []
    train(config, tmp_path / "run", on_round=records.append, on_epoch=epochs.append)
    assert contents(tmp_path / "run") == expected  # they change nothing
    lines = [line for line in read_log(tmp_path / "run" / "metrics.jsonl") if "round" in line]
    seen = [
        {"round": r.number, "epoch": r.epoch, "task": name, **vars(step)}
        for r in records
        for name, step in r.tasks.items()
    ]
    assert seen == lines
    assert len(epochs) == 2
    logged = [line["value"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if line.get("split") == "dev"]
    assert [score.value for scores in epochs for score in scores.values()] == logged


@pytest.mark.parametrize("number", [1, 4, 5, 7])
def test_a_round_that_says_stop_saves_and_resumes_to_the_same_bytes(
    train: Any, contents: Any, whole: Any, tmp_path: Path, number: int
) -> None:
    config, expected = whole("separate")
    with pytest.raises(StoppedError, match="stopped by on_round; resume=True continues") as stopped:
        train(config, tmp_path / "run", save_every=1000, on_round=lambda r: "stop" if r.number == number else None)
    assert stopped.value.callback == "on_round"
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name == f"round-{number:08d}"
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected


def test_an_epoch_that_says_stop_has_been_kept(train: Any, contents: Any, whole: Any, tmp_path: Path) -> None:
    config, expected = whole("separate")
    with pytest.raises(StoppedError, match="stopped by on_epoch"):
        train(config, tmp_path / "run", on_epoch=lambda scores: "stop")
    assert Run.load(tmp_path / "run").predict("sst", ["good film"])
    # The last epoch has nothing left to stop.
    train(config, tmp_path / "run", resume=True, on_epoch=lambda scores: "stop")
    assert contents(tmp_path / "run") == expected


@pytest.mark.parametrize("answer", [True, False, 0, "halt"])
def test_another_answer_is_refused(train: Any, short_config: MakeConfig, tmp_path: Path, answer: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^on_round must return None or 'stop', got {answer!r}$"):
        train(short_config(), tmp_path / "run", on_round=lambda record: answer)


def test_what_a_callback_raises_is_the_callers(train: Any, contents: Any, whole: Any, tmp_path: Path) -> None:
    config, expected = whole("separate")

    def fail(record: RoundRecord) -> None:
        if record.number == 6:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        train(config, tmp_path / "run", on_round=fail)
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == expected
    assert is_main()


# Patience


def test_patience_ends_a_run_that_scores_no_better(
    make_config: MakeConfig, read_log: Any, scores_by_epoch: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scores_by_epoch([0.5, 0.7, 0.6, 0.7, 0.9])
    config = make_config("train.patience=2", "train.rounds=1", epochs=5)
    train_run(config, tmp_path / "run")
    assert rounds_of(read_log, tmp_path / "run") == [1, 2, 3, 4]  # a tie is no better
    assert record_of(tmp_path / "run")["ended_early"] == {"why": "patience", "rounds": 4}
    assert "stopped after 4 rounds: no better dev score in 2 epochs" in capsys.readouterr().err
    again = train_run(config, tmp_path / "run", resume=True, progress=False)
    assert rounds_of(read_log, again.folder) == [1, 2, 3, 4]


def test_patience_counts_over_a_resume(
    make_config: MakeConfig, read_log: Any, scores_by_epoch: Any, train: Any, tmp_path: Path
) -> None:
    scores_by_epoch([0.7, 0.5, 0.6, 0.9])
    config = make_config("train.patience=2", "train.rounds=1", epochs=4)
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", on_round=lambda record: "stop" if record.number == 3 else None)
    train(config, tmp_path / "run", resume=True)
    assert rounds_of(read_log, tmp_path / "run") == [1, 2, 3]
    assert record_of(tmp_path / "run")["ended_early"]["why"] == "patience"


def test_the_last_epoch_ends_no_run_early(make_config: MakeConfig, scores_by_epoch: Any, tmp_path: Path) -> None:
    scores_by_epoch([0.7, 0.5])
    train_run(make_config("train.patience=1", "train.rounds=1"), tmp_path / "run", progress=False)
    assert record_of(tmp_path / "run")["ended_early"] is None


# Minutes


def test_minutes_end_a_run_within_an_epoch_which_is_scored(
    short_config: MakeConfig, read_log: Any, clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def pass_time(record: RoundRecord) -> None:
        clock[0] += 25

    config = short_config("train.minutes=3")  # two epochs of five rounds
    train_run(config, tmp_path / "run", on_round=pass_time)
    assert rounds_of(read_log, tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["epoch"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if "split" in line] == [1] * 3 + [
        2
    ] * 3
    assert record_of(tmp_path / "run")["ended_early"] == {"why": "minutes", "rounds": 8}
    assert "stopped after 8 rounds: the 3 minutes are over" in capsys.readouterr().err
    assert Run.load(tmp_path / "run").predict("sst", ["good film"])


def test_minutes_that_end_an_epoch_before_the_last_are_said_once_with_their_rounds(
    make_config: MakeConfig, clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def pass_time(record: RoundRecord) -> None:
        clock[0] += 25

    train_run(make_config("train.minutes=3", "train.rounds=5", epochs=3), tmp_path / "run", on_round=pass_time)
    assert record_of(tmp_path / "run")["ended_early"] == {"why": "minutes", "rounds": 8}
    assert capsys.readouterr().err.count("stopped after") == 1


def test_minutes_that_are_over_with_the_last_round_end_nothing_early(
    make_config: MakeConfig, clock: list[float], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def pass_time(record: RoundRecord) -> None:
        clock[0] += 100

    train_run(make_config("train.minutes=3", "train.rounds=2", epochs=1), tmp_path / "run", on_round=pass_time)
    assert record_of(tmp_path / "run")["ended_early"] is None
    assert "stopped after" not in capsys.readouterr().err


def test_what_ended_a_run_first_is_why(
    make_config: MakeConfig, scores_by_epoch: Any, clock: list[float], tmp_path: Path
) -> None:
    def pass_time(scores: Any) -> None:
        clock[0] += 100

    scores_by_epoch([0.7, 0.5, 0.9])
    config = make_config("train.patience=1", "train.minutes=3", "train.rounds=1", epochs=3)
    train_run(config, tmp_path / "run", on_epoch=pass_time, progress=False)
    assert record_of(tmp_path / "run")["ended_early"] == {"why": "patience", "rounds": 2}


def test_minutes_that_are_over_with_the_epoch_end_the_run_there(
    short_config: MakeConfig, read_log: Any, clock: list[float], tmp_path: Path
) -> None:
    def pass_time(scores: Any) -> None:
        clock[0] += 400

    train_run(short_config("train.minutes=3"), tmp_path / "run", on_epoch=pass_time, progress=False)
    assert rounds_of(read_log, tmp_path / "run") == [1, 2, 3, 4, 5]


def test_minutes_count_over_a_resume(
    short_config: MakeConfig, read_log: Any, clock: list[float], train: Any, tmp_path: Path
) -> None:
    def pass_time(record: RoundRecord) -> str | None:
        clock[0] += 50
        return "stop" if record.number == 2 else None

    config = short_config("train.minutes=3")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", on_round=pass_time)
    clock[0] += 86400  # the night between
    train(config, tmp_path / "run", resume=True, on_round=pass_time)
    assert rounds_of(read_log, tmp_path / "run") == [1, 2, 3, 4]


def test_a_run_of_no_time_trains_a_round(short_config: MakeConfig, read_log: Any, tmp_path: Path) -> None:
    train_run(short_config("train.minutes=1e-9"), tmp_path / "run", progress=False)
    assert rounds_of(read_log, tmp_path / "run") == [1]
