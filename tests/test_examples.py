"""Each example is run, as a user runs it: in a process of its own."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tokenize
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from minbert import BertModel, BertTokenizer

BENCHMARK = {f"benchmark/{name}.py" for name in ("benchmark", "lora", "peers", "pretraining", "processes", "tools")}
NUMBERED = {
    "01_encode.py",
    "02_one_task.py",
    "03_three_tasks.py",
    "04_own_loop.py",
    "05_dataframe.py",
    "06_own_parts.py",
    "07_look_inside.py",
    "08_few_rows.py",
}
CALLBACKS = {"callbacks/to_csv.py", "callbacks/to_tensorboard.py"}
PLUGINS = {f"plugins/{name}.py" for name in ("cagrad", "dwa")}  # run by tests/multitask/updates
# Run by tests/test_reproduction.py.
TABLES = {"contamination.py", "reproduce_tables.py", "reproduction.py", "reproduction_plan.py"}
PICTURES = {"plot_conflict.py"}
ROWS = {"more_rows.py"}
SCRIPTS = BENCHMARK | NUMBERED | CALLBACKS | PLUGINS | TABLES | PICTURES | ROWS


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


def test_an_example_says_first_what_it_prints_and_how_long_it_takes(root: Path) -> None:
    for path in sorted((root / "examples").glob("[0-9]*.py")):
        opening = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert f"python examples/{path.name}" in opening, path.name
        assert re.search(r"\bPrints?\b", opening), path.name
        assert re.search(r"\b(minutes?|seconds?)\b", opening), path.name


def test_no_example_imports_what_is_private(root: Path) -> None:
    """Only what the packages themselves export, so that the examples hold for any user."""
    for path in sorted((root / "examples").glob("[0-9]*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if re.match(r"(minbert|multitask)\.", name)], path.name


def test_encode_finds_the_similar_sentence(root: Path, minilm_weights: Path) -> None:
    lines = run(root, "examples/01_encode.py", "--weights", minilm_weights).splitlines()
    same, similar, other = (float(line.split()[0]) for line in lines)
    assert same == pytest.approx(1, abs=1e-3)
    assert same > similar > other


@pytest.mark.smoke
def test_encode_runs_on_any_weights(root: Path, tiny_weights: Path) -> None:
    lines = run(root, "examples/01_encode.py", "One.", "Two.", "--weights", tiny_weights).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["One.", "Two."]


@pytest.mark.smoke
def test_own_loop_runs_on_any_weights(root: Path, tiny_weights: Path) -> None:
    lines = run(root, "examples/04_own_loop.py", tiny_weights).splitlines()
    losses = [float(line.split()[3]) for line in lines]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


def test_own_loop_learns_and_is_short(root: Path, minilm_weights: Path) -> None:
    *_, last = run(root, "examples/04_own_loop.py", minilm_weights).splitlines()
    right, of = re.findall(r"right (\d+) of (\d+)", last)[0]
    assert int(right) > int(of) / 2  # of five grades, eight rows each
    source = (root / "examples/04_own_loop.py").read_text(encoding="utf-8")
    words = (word for word in tokenize.generate_tokens(StringIO(source).readline) if word.string.strip())
    code = {word.start[0] for word in words if word.type != tokenize.COMMENT and not word.string.startswith('"""')}
    assert len(code) <= 40


def test_look_inside_shows_shares_that_a_mean_would_have_as_one(root: Path, tiny_weights: Path) -> None:
    options = ["--weights", tiny_weights, "--epochs", 1, "--heads"]
    first, *lines = run(root, "examples/07_look_inside.py", "The film was good.", *options).splitlines()
    assert re.fullmatch("topic: (account|billing|delivery|fault)", first)
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows] == ["[CLS]", "the", "film", "was", "good", ".", "[SEP]"]
    shares = [float(row[1]) for row in rows]
    assert sum(shares) == pytest.approx(len(rows), abs=0.01)
    for row, share in zip(rows, shares, strict=True):
        heads = [float(number) for number in row[2:6]]
        assert sum(heads) / 4 == pytest.approx(share, abs=0.01)
        assert set("".join(row[6:])) <= {"+" if share > 1 else "-"}
    assert max(len("".join(row[6:])) for row in rows) == 40


def test_look_inside_refuses_an_encoder_that_attention_can_not_ask_before_it_trains(
    root: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    BertModel.from_pretrained(tiny_weights, add_pooling_layer=False).save_pretrained(tmp_path)
    BertTokenizer.from_pretrained(tiny_weights).save_pretrained(tmp_path)
    words = [sys.executable, "examples/07_look_inside.py", "--weights", str(tmp_path), "--epochs", "1000000"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert re.fullmatch(r"error: tasks\.topic\.pooling must be one of .* no pooler, got 'attention'\n", done.stderr)


@pytest.mark.smoke
def test_one_task_answers_new_messages(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = ["--weights", tiny_weights, "--epochs", 1, "--out", tmp_path / "run"]
    _, score, *answers = run(root, "examples/02_one_task.py", *options).splitlines()
    assert re.fullmatch(r"accuracy [\d.]+ cross-validated on 60 rows, 95 % interval [\d.]+ to [\d.]+", score)
    assert len(answers) == 3
    for answer in answers:
        assert re.match(r"(account|billing|delivery|fault) +0\.\d\d  \w", answer)


@pytest.mark.smoke
def test_three_tasks_run_to_the_end(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed = run(root, "examples/03_three_tasks.py", "--weights", tiny_weights, "--epochs", 1, "--out", out)
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


@pytest.fixture
def course_files(root: Path, tmp_path: Path) -> Path:
    """The sample rows, named as the course's files are."""
    for name, stem in (("sst", "ids-sst"), ("para", "quora"), ("sts", "sts")):
        for split in ("train", "dev"):
            shutil.copy(root / "examples" / "data" / f"{name}-{split}.tsv", tmp_path / f"{stem}-{split}.csv")
    return tmp_path


def test_few_rows_measures_what_is_not_there_yet(root: Path, tiny_weights: Path, course_files: Path) -> None:
    results = course_files / "results.jsonl"
    program = ["examples/08_few_rows.py", "--data", course_files, "--weights", tiny_weights, "--results", results]
    run(root, *program, "--only", "sst5", "--rows", 8, "--draws", 6, "--methods", "probe", "ours")
    before = results.read_text(encoding="utf-8")
    options = ["--rows", 8, "--draws", "5-6", "--methods", "probe", "cosine"]
    printed = run(root, *program, "--only", "sst5", "sst2", "para", "sts", *options)
    assert results.read_text(encoding="utf-8").startswith(before)
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    assert len({(line["task"], line["draw"], line["method"]) for line in lines}) == len(lines) == 13
    for line in lines:
        assert -1 <= line["score"] <= 1
        assert line["fit_seconds"] > 0
        assert line["predict_seconds"] > 0
    scores = {line["method"]: line["score"] for line in lines if (line["task"], line["draw"]) == ("sst5", 6)}
    assert f"{scores['ours'] - scores['probe']:.3f} ± nan (1)" in printed


def test_few_rows_fits_the_probe_to_the_least_loss(root: Path) -> None:
    logistic = runpy.run_path(str(root / "examples" / "08_few_rows.py"))["logistic"]
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    for classes in (2, 3):
        targets = torch.randint(classes, (30,), generator=generator)
        found = torch.from_numpy(logistic(features.numpy(), targets.numpy(), classes))
        if classes == 2:
            found = torch.stack([torch.zeros(5, dtype=torch.float64), found[:, 1] - found[:, 0]], dim=1)
        found.requires_grad_()
        loss = cross_entropy(features @ found[:-1] + found[-1], targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss + found[:-1].square().sum() / 2, found)
        free = gradient[:, 1:] if classes == 2 else gradient
        assert free.abs().max() < 1e-4


def test_few_rows_draws_by_its_rule_alone(root: Path, course_files: Path) -> None:
    names = runpy.run_path(str(root / "examples" / "08_few_rows.py"))
    problem = names["PROBLEMS"]["sst2"]
    rows = names["read"](problem, course_files, "train")
    drawn = names["draw_rows"](rows, problem, 3, 6)
    rng = np.random.default_rng((6, 3))
    high, low = ([place for place, label in enumerate(rows["label"]) if label == each] for each in ("high", "low"))
    places = [*rng.choice(high, 3, replace=False), *rng.choice(low, 3, replace=False)]
    assert list(drawn["sentence"]) == [rows["sentence"].iloc[place] for place in places]


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


def test_benchmark_refuses_weights_that_its_peers_would_read_as_others(root: Path) -> None:
    words = [sys.executable, "examples/benchmark/benchmark.py", "--tasks", "examples/tasks.toml", "--weights"]
    done = subprocess.run([*words, "weights/tiny-mpnet"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: --weights must be a bert with a pooler, as its peers are, got a mpnet\n"


def test_pretraining_is_timed_beside_training(root: Path, tiny_weights: Path) -> None:
    options = ["--tasks", "examples/tasks.toml", "--weights", tiny_weights, "--rounds", 2]
    printed = run(root, "examples/benchmark/pretraining.py", *options)
    assert len(re.findall(r"^time .* pretrain / train \d+\.\d\d, of the pairs \d", printed, re.MULTILINE)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_tasks_beat_their_baselines(root: Path, minilm_weights: Path, tmp_path: Path, seed: int) -> None:
    printed = run(
        root, "examples/03_three_tasks.py", "--weights", minilm_weights, "--seed", seed, "--out", tmp_path / "run"
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


@pytest.mark.smoke
def test_own_parts_train_beside_the_built_in_ones(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    options = ["--weights", tiny_weights, "--epochs", 1, "--out", tmp_path / "runs"]
    header, *rows = run(root, "examples/06_own_parts.py", *options).splitlines()
    assert header.split() == ["pooling", "update", "topic", "sst"]
    assert [row.split()[:2] for row in rows] == [["attention", "combined"], ["mean-max", "learned-weights"]]
    assert all(0 <= float(score) <= 1 for row in rows for score in row.split()[2:])


def test_callbacks_write_while_it_trains(root: Path, tiny_weights: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "examples", tmp_path / "examples")
    settings = [f"encoder.weights={tiny_weights}", "train.epochs=1"]
    for name in ("to_csv", "to_tensorboard"):
        words = [sys.executable, f"examples/callbacks/{name}.py", *settings]
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "error"}
        subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True)
        script = (root / "examples" / "callbacks" / f"{name}.py").read_text(encoding="utf-8")
        assert len([line for line in script.splitlines() if line.strip() and '"""' not in line]) <= 15
    header, *lines = (tmp_path / "live.csv").read_text(encoding="utf-8").splitlines()
    assert header == "round,task,rows,loss,lr,grad_norm"
    log = (tmp_path / "runs" / "live" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in log if '"round"' in line]
    assert [line.split(",") for line in lines] == [
        [str(each[key]) for key in ("round", "task", "rows", "loss", "lr", "grad_norm")] for each in logged
    ]
    assert len(lines) == 3 * 4
    assert len(list((tmp_path / "runs" / "board-events").rglob("events.out.*"))) == 7  # the root's, 3 losses, 3 scores
