"""The picture of the tasks' gradients: what it draws is what was logged."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest


def log(run: Path, cosine: float) -> str:
    """Write the log of one round; the run's folder."""
    run.mkdir(parents=True)
    line = json.dumps({"round": 1, "task": "sst", "cosines": {"para": cosine}})
    (run / "metrics.jsonl").write_text(f"{line}\n{line[:20]}", encoding="utf-8")  # half of the next one
    return str(run)


def test_runs_of_one_name_have_a_panel_each(root: Path, tmp_path: Path) -> None:
    runs = [log(tmp_path / "a" / "run", 0.5), log(tmp_path / "b" / "run", -0.5)]
    words = [sys.executable, "examples/plot_conflict.py", *runs, "--out", str(tmp_path / "picture.svg")]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == runs
    assert len(list(ElementTree.parse(tmp_path / "picture.svg").iter("{http://www.w3.org/2000/svg}polyline"))) == 2
    done = subprocess.run([*words, "--window", "-1"], cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("error: --window must be at least 1, got -1")
    out = str(tmp_path / "none" / "picture.svg")
    done = subprocess.run([*words[:-1], out], cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines() == [f"error: [Errno 2] No such file or directory: '{out}'"]


def test_conflicts_are_drawn_as_they_were_logged(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a<b").mkdir()
    with (tmp_path / "a<b" / "metrics.jsonl").open("w", encoding="utf-8") as log:
        for number, cosine in enumerate([0.5, -0.5, -0.25, 0.75], 1):
            for task, other in (("sst", "para"), ("para", "sst")):
                log.write(json.dumps({"round": number, "task": task, "cosines": {other: cosine, "sts": None}}) + "\n")
        log.write(json.dumps({"epoch": 1, "split": "dev", "task": "sst", "metric": "accuracy", "value": 1.0}) + "\n")
    out = tmp_path / "picture.svg"
    words = [sys.executable, "examples/plot_conflict.py", str(tmp_path / "a<b"), "--out", str(out), "--window", "2"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["a<b  sst / para  mean +0.125  below zero in 50% of the rounds"]
    (line,) = ElementTree.parse(out).iter("{http://www.w3.org/2000/svg}polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    # Means of two: 0.5, 0, -0.375, 0.25; a picture counts from the top.
    assert np.diff(heights) == pytest.approx(np.array([0.5, 0.375, -0.625]) * (heights[1] - heights[0]) / 0.5, abs=0.2)
    assert heights[1] > heights[0]


def test_a_run_without_cosines_is_refused(root: Path, tmp_path: Path) -> None:
    words = [sys.executable, "examples/plot_conflict.py", str(tmp_path)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == f"{tmp_path / 'metrics.jsonl'}: has no cosines; train with --log-conflict"
