"""Each example is run, as a user runs it: in a process of its own."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARK = {f"benchmark/{name}.py" for name in ("benchmark", "lora", "peers", "processes", "tools")}
SCRIPTS = BENCHMARK | {"05_dataframe.py", "encode.py", "quickstart.py"}


def run(root: Path, *argv: object) -> str:
    """Runs a Python program from the project's folder and returns what it printed; warnings are errors."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "error"}
    words = [sys.executable, *(str(word) for word in argv)]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_script_is_run_here(root: Path) -> None:
    examples = root / "examples"
    assert {path.relative_to(examples).as_posix() for path in examples.rglob("*.py")} == SCRIPTS


def test_encode_finds_the_similar_sentence(root: Path, minilm_weights: Path) -> None:
    lines = run(root, "examples/encode.py", "--weights", minilm_weights).splitlines()
    same, similar, other = (float(line.split()[0]) for line in lines)
    assert same == pytest.approx(1, abs=1e-3)
    assert same > similar > other


@pytest.mark.smoke
def test_encode_runs_on_any_weights(root: Path, tiny_weights: Path) -> None:
    lines = run(root, "examples/encode.py", "One.", "Two.", "--weights", tiny_weights).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["One.", "Two."]


@pytest.mark.smoke
def test_quickstart_runs_to_the_end(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed = run(root, "examples/quickstart.py", "--weights", tiny_weights, "--epochs", 1, "--out", out)
    for words in ("sst   accuracy", "para  accuracy", "sts   pearson", "New rows:", str(out)):
        assert words in printed
    assert (out / "best" / "tasks.json").is_file()


def test_rows_of_a_dataframe_are_answered_in_a_dataframe(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = ["--weights", tiny_weights, "--epochs", 1, "--out", tmp_path / "run"]
    lines = run(root, "examples/05_dataframe.py", *options).splitlines()
    assert any(line.startswith("accuracy 0.") and line.endswith("on 12 rows that were held out") for line in lines)
    (header,) = (place for place, line in enumerate(lines) if "prediction" in line)
    assert lines[header].split() == ["message", "prediction", "p_account", "p_billing", "p_delivery", "p_fault"]
    assert [line.split()[0] for line in lines[header + 1 : header + 4]] == ["first", "second", "third"]


def test_benchmark_compares_both_sides(root: Path, tiny_weights: Path) -> None:
    pytest.importorskip("transformers", reason="the benchmark's peer")
    sections = ["training", "list", "batch", "lora", "adamw"]
    options = ["--tasks", "examples/tasks.toml", "--weights", tiny_weights, "--rounds", 1, "--json"]
    report = json.loads(run(root, "examples/benchmark/benchmark.py", *options, "--only", *sections))
    lines = {line["what"]: line for line in report["lines"]}
    assert len(lines) == 7 + all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))
    for line in lines.values():
        assert line["seconds"] > 0
        assert all(ratio > 0 for ratio in line["ratios"].values())
    assert lines["LoRA on query and value, 32 pairs"]["rows/s"] > 0
    assert {"float32", "B0", "B1"} == set(lines["training round, 3 x 32 rows"]["ratios"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_quickstart_beats_the_baselines(root: Path, minilm_weights: Path, tmp_path: Path, seed: int) -> None:
    printed = run(
        root, "examples/quickstart.py", "--weights", minilm_weights, "--seed", seed, "--out", tmp_path / "run"
    )
    rows = [line.split() for line in printed.splitlines() if line.startswith(("sst ", "para ", "sts "))]
    for _, _, baseline, score, *_ in rows[:3]:
        assert float(score) > float(baseline)


@pytest.mark.smoke
def test_own_task_trains_and_predicts_its_own_labels(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "run", tmp_path / "rows.txt"
    rows.write_text("My parcel is late.\nI was billed twice.\n", encoding="utf-8")
    # The command that pip installed beside this Python: a script of Python's, too.
    command, options = Path(sys.executable).with_name("multitask"), ["--weights", tiny_weights, "--epochs", 1]
    run(root, command, "train", "--tasks", "examples/own_task.toml", *options, "--out", out)
    lines = run(root, command, "predict", out, "--input", rows).splitlines()
    topics = ["account", "billing", "delivery", "fault"]
    assert lines[0].split("\t") == ["id", "prediction", *(f"p_{topic}" for topic in topics)]
    assert len(lines) == 3
    assert all(line.split("\t")[1] in topics for line in lines[1:])
