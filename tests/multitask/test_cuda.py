"""On a GPU: a training learns, is stopped and resumed, and its run predicts the same on the CPU.

Left out unless asked for: python -m pytest -m cuda
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from multitask import Run
from multitask.errors import StoppedError
from multitask.training import train

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
NO_DROPOUT = ("encoder.dropout=0.0", *(f"tasks.{name}.dropout=0.0" for name in ("sst", "para", "sts")))
SETS = ("train.rounds=5", "train.warmup=0.7")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("update", ["separate", "combined", "pcgrad"])
def test_a_training_learns_and_is_the_cpus_within_rounding(
    make_config: Any, read_log: Any, update: str, precision: str, tmp_path: Path
) -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        config = make_config(*SETS, *NO_DROPOUT, f"train.update={update}", f"train.precision={precision}")
        train.train(config, tmp_path / device, device=device, progress=False)
        losses[device] = [line["loss"] for line in read_log(tmp_path / device / "metrics.jsonl") if "loss" in line]
    assert len(losses["cuda"]) == len(losses["cpu"]) > 0
    for found, expected in zip(losses["cuda"], losses["cpu"], strict=True):
        assert found == pytest.approx(expected, rel=1e-3 if precision == "float32" else 0.05)


def test_a_stopped_training_goes_on(
    make_config: Any,
    read_log: Any,
    stop_after: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(*SETS, "train.precision=float32")
    train.train(config, tmp_path / "whole", device="cuda", progress=False)
    with monkeypatch.context() as patch:
        stop_after(patch, 4 * 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError):
            train.train(config, tmp_path / "run", device="cuda", progress=False)
    train.train(config, tmp_path / "run", device="cuda", progress=False, resume=True)
    # Not to the bit, as on the CPU: a GPU adds a gradient's parts in no fixed order. Other dropout draws, other batches
    # or lost moments would show.
    whole, resumed = (read_log(tmp_path / name / "metrics.jsonl") for name in ("whole", "run"))
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (whole, resumed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_a_run_predicts_on_the_cpu_what_it_does_on_the_gpu(make_config: Any, tmp_path: Path) -> None:
    train.train(make_config(*SETS), tmp_path / "run", device="cuda", progress=False)
    rows = [{"sentence1": "A man plays.", "sentence2": "Somebody plays."}, {"sentence1": "No.", "sentence2": "Yes."}]
    values = []
    for device in ("cuda", "cpu"):
        run = Run.load(tmp_path / "run", device=device)
        values.append([prediction.label for prediction in run.predict("sts", rows)])
    assert values[0] == pytest.approx(values[1], abs=1e-3)
