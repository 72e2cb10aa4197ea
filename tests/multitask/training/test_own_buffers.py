"""Buffers of a pooling of one's own, such as running means: trained, saved, resumed, and equal in all processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from minbert.files.storage import write_json
from multitask.plugins import load_plugin
from multitask.run import Run
from multitask.settings.choices import METRICS, POOLINGS
from multitask.training.train import train as train_run

pytestmark = pytest.mark.usefixtures("one_thread")
# One buffer counts, two are written to, one is replaced, one begins as None and one grows.
PLUGIN = """
import torch
from torch import nn
from multitask import METRICS, POOLINGS
from multitask.distributed import is_main

calls = 0

@METRICS.register("drawn")
def drawn(predictions, labels):  # falls in the main process, rises in others
    global calls
    calls += 1
    return -calls if is_main() else calls

@POOLINGS.register("running")
class Running(nn.Module):
    def __init__(self, task, config):
        super().__init__()
        self.norm = nn.BatchNorm1d(config.hidden_size)
        self.register_buffer("lowest", torch.full((config.hidden_size,), float("inf")))
        self.register_buffer("first", None)
        self.register_buffer("recent", torch.zeros(0, config.hidden_size))

    def forward(self, encoded):
        pooled = encoded.packing.mean(encoded.packed)
        if self.training:
            self.lowest = torch.minimum(self.lowest, pooled.detach().amin(0))
            self.first = pooled.detach().clone() if self.first is None else self.first
            self.recent = torch.cat([self.recent, pooled.detach()])[-100:]
        return self.norm(pooled) - self.lowest.clamp(max=0)
"""
# The last of two rounds has 7 rows: 4 of the main process and 3 of the other.
ODD = ("train.rounds=none", *(f"tasks.{name}.sample_size=23" for name in ("sst", "para", "sts")))
SETS = ("tasks.sst.pooling=running", "train.precision=float32")


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for registry in (POOLINGS, METRICS):
        for name in ("_entries", "_origins"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    file = tmp_path / "running.py"
    file.write_text(PLUGIN)
    load_plugin(file)
    return file


def test_a_pooling_with_buffers_trains_resumes_and_is_loaded(
    short_config: Any, train: Any, stopped_run: Any, contents: Any, tmp_path: Path
) -> None:
    config = short_config(*SETS)
    train(config, tmp_path / "whole")
    stopped_run(config, tmp_path / "run", 14)
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    run = Run.load(tmp_path / "run")
    assert run.model.decoders["sst"].pooling.norm.num_batches_tracked in (5, 10)
    assert run.predict("sst", ["good film"])


def test_the_estimate_moves_no_buffer(short_config: Any, train: Any, contents: Any, tmp_path: Path) -> None:
    config = short_config(*SETS)
    train(config, tmp_path / "quiet")
    train_run(config, tmp_path / "run", save_every=2, keep_optimizer=True, progress=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "quiet")


def test_all_processes_have_the_main_ones_buffers_and_scores(
    make_config: Any, read_log: Any, plugin: Path, tmp_path: Path
) -> None:
    """Each process scores a share of the dev rows: with buffers of its own it would be another model's score."""
    config = make_config(*SETS, *ODD, "train.patience=1", "tasks.sts.metric=drawn", epochs=4)
    write_json(tmp_path / "config.json", config.to_dict())
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    (tmp_path / "script.py").write_text(SCRIPT)
    words += map(str, (tmp_path / "script.py", plugin, tmp_path / "config.json", tmp_path / "run"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in read_log(tmp_path / "run" / "metrics.jsonl") if "split" in line]
    logged = {line["task"]: line["value"] for line in lines}
    assert logged.pop("sts") == -2  # all have stopped after the second epoch, as the main process scored it
    found = {name: score.value for name, score in Run.load(tmp_path / "run").evaluate("dev").items()}
    logged = {line["task"]: line["value"] for line in lines if line["epoch"] == 1}
    assert {name: found[name] for name in ("sst", "para")} == pytest.approx(
        {name: logged[name] for name in ("sst", "para")}, abs=1e-6
    )
    one, two = (load_file(tmp_path / f"run-{rank}.safetensors") for rank in range(2))
    assert len(one) == 6
    assert all(torch.equal(value, two[name]) for name, value in one.items())


SCRIPT = """
import json, sys, torch
from pathlib import Path
from minbert.files.storage import write_tensors
from multitask import RunConfig, load_plugin
from multitask.distributed import process_group, rank
from multitask.training import session
from multitask.training.train import train
torch.set_num_threads(1)
load_plugin(sys.argv[1])
config = RunConfig.from_dict(json.loads(Path(sys.argv[2]).read_text()))
finish = session.Session.finish

def finished(self, keep_optimizer):
    write_tensors(Path(f"{sys.argv[3]}-{rank()}.safetensors"), dict(self.model.named_buffers()))
    finish(self, keep_optimizer)

session.Session.finish = finished
with process_group():
    train(config, sys.argv[3], progress=False, select="sts")
"""
