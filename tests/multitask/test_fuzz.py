"""Whatever stands in a file or on the command line: an answer that holds together, or one of the package's errors."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from minbert.files.storage import sha256_of, write_json
from multitask.__main__ import main
from multitask.data.examples import Example, iter_examples, read_examples
from multitask.model.build import build_model
from multitask.run import Run
from multitask.settings.config import RunConfig, build_config
from multitask.settings.format import Format
from multitask.settings.task import Task
from multitask.training.checkpoints import latest_checkpoint, read_state, restore_checkpoint
from multitask.training.train import train
from multitask.updates.stepper import Stepper

Fuzz = Callable[..., None]
Attempt = Callable[[Callable[[], Any]], tuple[Any, str]]

CELLS = st.one_of(
    st.sampled_from(
        ["", " ", "a", "good film", "0", "1", "1.0", "3.5", "-0", "nan", "None", "1e999", "\ufeff", "🙂", "مرحبا", "\0"]
        + ['"', '""', '"a"', '"a,b"', '"a\tb"', '"a\nb"', '"open', 'x"y', '"a"b', "\r", "\x1b[0m", "\u2028", "x" * 5000]
        + ['{"a": 1}', "[]", "id", "a\tb", "a,b"]
    ),
    st.text(max_size=12),
)
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n \n"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Mostly a table with the tasks' columns, of odd cells; or JSON lines; or any bytes."""
    kind = draw(st.sampled_from(["table", "table", "table", "json", "array", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    end, rows = draw(LINE_ENDS), draw(st.integers(0, 6))
    if kind in ("json", "array"):
        keys = st.sampled_from(["a", "b", "y", "id", "other"])
        values = st.one_of(
            CELLS, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.integers(), max_size=2)
        )
        lines = [json.dumps(draw(st.dictionaries(keys, values, max_size=4))) for _ in range(rows)]
        lines += draw(st.lists(CELLS, max_size=1))
        lines = lines if kind == "json" else ["[" + ",\n".join(lines) + "]"]
    else:
        separator = draw(st.sampled_from([",", "\t", ";"]))
        header = draw(st.permutations(["a", "b", "y", "id"]))[draw(st.integers(0, 1)) :]
        lines = [separator.join(header)]
        for _ in range(rows):
            width = len(header) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
            lines.append(separator.join(draw(CELLS) for _ in range(width)))
    content = draw(st.sampled_from(["", "\ufeff"])) + end.join(lines) + draw(st.sampled_from(["", end]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "latin-1", "utf-16"]))
    return content.encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")


TASKS = (
    Task(name="single", text=("a",), label="y", labels=("0", "1", "2")),
    Task(name="pair", text=("a", "b"), label="y", kind="binary", labels=("0", "1"), id="id"),
    Task(name="number", text=("a", "b"), label="y", kind="regression", labels=(0.0, 5.0)),
    Task(name="places", text=("1",), label="2", id="3", labels=("0", "1", "2")),
    Task(name="set", text=("1",), label="2", labels=("0", "1"), format=Format(header=False, quoting="none")),
    Task(name="told", text=("a",), label="y", kind="regression", labels=(0.0, 5.0), format=Format(encoding="cp1252")),
)


def checked(task: Task, example: Example, labelled: bool) -> None:
    assert len(example.texts) == len(task.text)
    assert all(isinstance(text, str) and text.strip() and "\0" not in text for text in example.texts)
    for text in example.texts:
        text.encode()
    if not labelled:
        assert example.label is None
    elif task.kind == "regression":
        assert isinstance(example.label, float)
        assert 0 <= example.label <= 5
    else:
        assert example.label in range(len(task.classes))


@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_readers(fuzz: Fuzz, attempt: Attempt, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"

    def check(content: bytes, task: Task, labelled: bool, bad_rows: Any, as_stream: bool) -> None:
        path.write_bytes(content)
        skipped = list[Any]()
        if labelled:
            dataset, message = attempt(lambda: read_examples(path, task, bad_rows=bad_rows))
            found, skipped = ([], []) if dataset is None else (dataset.examples, dataset.skipped)
        else:
            source = io.BytesIO(content) if as_stream else path
            found, message = attempt(lambda: list(iter_examples(source, task, bad_rows=bad_rows, skipped=skipped)))
        assert not message or str(path) in message or (as_stream and not labelled)
        assert "\n" not in message
        for example in found or []:
            checked(task, example, labelled)
        lines = [row.line for row in (*(found or []), *skipped)]
        assert len(set(lines)) == len(lines)
        assert all(0 < line <= content.count(b"\n") + 1 for line in lines)

    choices = st.sampled_from(["missing", "error", "skip"])
    fuzz(check, files(), st.sampled_from(TASKS), st.booleans(), choices, st.booleans())


TOML_VALUES = st.sampled_from(
    ["1", "0", "-1", "2.5", "1e400", "nan", "true", '"none"', '"x"', '""', "[]", '["a"]', '["a", "b"]', "[1, 2]", "{}"]
    + ["1979-05-27", '"separate"', '"regression"', '"\\u0000"', "99999999999999999999999", "{ a = 1 }", '"a b"', "'"]
)
KEYS = st.sampled_from(
    ["weights", "dropout", "freeze", "update", "epochs", "rounds", "seed", "schedule", "warmup", "precision", "clip"]
    + [
        "task_order",
        "eps",
        "on_nonfinite",
        "train",
        "dev",
        "text",
        "label",
        "kind",
        "labels",
        "input",
        "pooling",
        "head",
    ]
    + ["reduction", "loss_weight", "class_weights", "lr", "decoder_lr", "weight_decay", "batch_size", "sample_size"]
    + ["encoder", "id", "nonsense", '"odd key"', "a.b"]
)
TABLES = st.sampled_from(
    ["", "[encoder]", "[train]", "[tasks]", "[tasks.mine]", "[tasks.sst]", '[tasks."a/b"]', "[[tasks.mine]]", "[other]"]
    + ['[tasks.""]', "[tasks.mine.text]", "not toml"]
)
LINES = st.tuples(KEYS, TOML_VALUES).map(" = ".join)
TOML = st.lists(st.tuples(TABLES, st.lists(LINES, max_size=5)), max_size=4).map(
    lambda parts: "\n".join(line for table, lines in parts for line in (table, *lines))
)
DOTTED = st.tuples(st.sampled_from(["encoder", "train", "tasks.sst", "tasks.mine", "tasks", "", "x"]), KEYS).map(
    ".".join
)
SETS = st.lists(st.tuples(DOTTED, TOML_VALUES).map("=".join) | st.text(max_size=8), max_size=3)


def test_settings(fuzz: Fuzz, attempt: Attempt, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"

    def check(content: str | bytes, sets: list[str]) -> None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        config, message = attempt(lambda: build_config(tasks_file=path, sets=sets))
        assert "\n" not in message
        if config is not None:
            assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config

    fuzz(check, TOML | st.binary(max_size=30), SETS)


WORDS = st.sampled_from(
    ["train", "evaluate", "predict", "presets", "fetch", "weights", "--help", "--version", "--preset", "minilm", "slt"]
    + ["--tasks", "--data", "--weights", "--out", "--epochs", "--rounds", "--seed", "--limit", "--bad-rows", "skip"]
    + ["--set", "train.lr=1", "--select", "--resume", "--save-every", "--keep", "--keep-optimizer", "--device", "cpu"]
    + ["--precision", "float32", "--threads", "--quiet", "--split", "dev", "--json", "--task", "sst", "--input"]
    + [
        "--output",
        "-",
        "nowhere",
        "/proc/nowhere",
        "a\0b",
        "x" * 300,
        "0",
        "-1",
        "1",
        "1e9",
        "",
        "=",
        "--",
        "é",
    ]
)


def test_command_line(
    fuzz: Fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no data, run or weights to be had, so that nothing is ever trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))

    def check(command: str, words: list[str]) -> None:
        status = main([command, *words])
        printed = capsys.readouterr()
        assert status in (0, 1, 2)
        assert status == 0 or "error" in printed.err

    fuzz(
        check,
        st.sampled_from(["train", "evaluate", "predict", "presets"]),
        st.lists(WORDS | st.text(max_size=6), max_size=7),
    )


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes cut, or some of them overwritten."""
    if draw(st.booleans()):
        return content[: draw(st.integers(0, len(content) - 1))]
    place = draw(st.integers(0, len(content) - 1))
    new = draw(
        st.binary(min_size=1, max_size=8) | st.sampled_from([b"null", b"-1", b'"x"', b"[]", b"{}", b"1e999", b"../"])
    )
    return content[:place] + new + content[place + len(new) :]


@pytest.fixture(scope="module")
def trained(course_like: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = build_config(data=course_like, weights=str(tiny_weights), epochs=1, rounds=1)
    config = replace(config, tasks=tuple(replace(task, batch_size=4) for task in config.tasks))
    out = tmp_path_factory.mktemp("fuzz") / "run"
    train(config, out, progress=False, keep_optimizer=True)
    return out


def test_run_folder(fuzz: Fuzz, attempt: Attempt, trained: Path, tmp_path: Path) -> None:
    names = ["config.json", "best/tasks.json", "best/config.json", "best/decoders.safetensors", "best/tokenizer.json"]
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)

    def check(changed: tuple[str, bytes]) -> None:
        name, content = changed
        (copy / name).write_bytes(content)
        answers, message = attempt(lambda: Run.load(copy).predict("sst", ["a good film"]))
        shutil.copy(trained / name, copy / name)
        if not message:
            assert answers[0].label in list("01234")
            assert sum(answers[0].probabilities) == pytest.approx(1, abs=1e-5)

    contents = {name: (trained / name).read_bytes() for name in names}
    fuzz(check, st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), spoiled(contents[name]))))


def test_checkpoints(fuzz: Fuzz, attempt: Attempt, trained: Path, tmp_path: Path) -> None:
    """Spoiled files of a checkpoint, some with a marker that holds their checksums all the same."""
    config = RunConfig.from_dict(json.loads((trained / "config.json").read_text(encoding="utf-8")))
    model, _ = build_model(config)
    update = Stepper(model, config.train, np.random.default_rng(0))
    whole = latest_checkpoint(trained / "checkpoints")
    assert whole is not None
    copy = tmp_path / whole.name
    shutil.copytree(whole, copy)
    names = ["model.safetensors", "optimizers.safetensors", "generators.safetensors", "state.json", "complete.json"]
    contents = {name: (whole / name).read_bytes() for name in names}

    def restore() -> dict[str, Any]:
        state = read_state(copy)
        restore_checkpoint(copy, model, update, state)
        return state

    def check(changed: tuple[str, bytes], marked: bool) -> None:
        name, content = changed
        (copy / name).write_bytes(content)
        if marked and name != "complete.json":
            write_json(copy / "complete.json", {file: sha256_of(copy / file) for file in names[:-1]})
        state, message = attempt(restore)
        assert message or state["round"] == 0 or marked
        assert marked or message or content == contents[name] or name == "complete.json"
        for file in (name, "complete.json"):
            (copy / file).write_bytes(contents[file])

    changes = st.sampled_from(names).flatmap(lambda name: st.tuples(st.just(name), spoiled(contents[name])))
    fuzz(check, changes, st.booleans())
