"""Resuming refuses what would not be the same run, and says what has changed in the machine."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import minbert
import multitask.precision
from minbert.files.storage import sha256_of, write_json
from multitask.errors import RunError
from multitask.settings.config import RunConfig
from multitask.training import train as training
from multitask.training.checkpoints import latest_checkpoint

MakeConfig = Callable[..., RunConfig]
Train = Callable[..., None]
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_changed_configuration_is_refused_with_what_changed(
    train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    stopped_run(short_config(), tmp_path / "run")
    with pytest.raises(RunError, match=r"tasks\.sst\.lr must be 5e-05, got 0\.001"):
        train(short_config("tasks.sst.lr=1e-3"), tmp_path / "run", resume=True)


def test_changed_data_is_refused(train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path) -> None:
    config = short_config()
    source = Path(str(config.task("sst").train))
    moved = tmp_path / "sst.tsv"
    moved.write_bytes(source.read_bytes())
    config = short_config(f'tasks.sst.train="{moved}"')
    stopped_run(config, tmp_path / "run")
    moved.write_bytes(source.read_bytes().replace(b"film", b"story"))
    with pytest.raises(RunError, match=r"data\.sst\.train must be '"):
        train(config, tmp_path / "run", resume=True)


def test_another_tokenizer_in_the_weights_folder_is_refused(
    train: Train, stopped_run: Train, short_config: MakeConfig, tiny_weights: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    config = short_config(weights=weights)
    stopped_run(config, tmp_path / "run")
    tokens = (weights / "vocab.txt").read_text().splitlines()
    special = [token for token in tokens if token.startswith("[")]
    others = [token for token in tokens if token not in special]
    (weights / "tokenizer.json").unlink(missing_ok=True)
    (weights / "vocab.txt").write_text("\n".join([*special, *reversed(others)]) + "\n")
    with pytest.raises(RunError, match="run: to be resumed, it must have the tokenizer of its training so far"):
        train(config, tmp_path / "run", resume=True)


def test_another_order_of_the_tasks_is_refused(
    train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    """What a batch holds is drawn by a task's place among the others."""
    config = short_config()
    stopped_run(config, tmp_path / "run")
    turned = replace(config, tasks=config.tasks[::-1])
    with pytest.raises(
        RunError, match=r"order of tasks must be \['sst', 'para', 'sts'\], got \['sts', 'para', 'sst'\]"
    ):
        train(turned, tmp_path / "run", resume=True)


def test_a_flipped_bit_of_a_checkpoint_is_refused(
    train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    stopped_run(short_config(), tmp_path / "run")
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    content = bytearray((last / "optimizers.safetensors").read_bytes())
    content[-5] ^= 1
    (last / "optimizers.safetensors").write_bytes(content)
    with pytest.raises(RunError, match="optimizers.safetensors: must have the checksum that was written, got another"):
        train(short_config(), tmp_path / "run", resume=True)


def test_a_finished_run_of_other_settings_is_refused(short_config: MakeConfig, tmp_path: Path) -> None:
    training.train(short_config(), tmp_path / "run", progress=False)
    with pytest.raises(RunError, match=r"config\.train\.seed must be 11711, got 5"):
        training.train(short_config("train.seed=5"), tmp_path / "run", progress=False, resume=True)


@pytest.mark.parametrize("saved", [True, False], ids=["checkpoint", "none yet"])
def test_a_run_of_a_version_with_fewer_settings_is_resumed(
    saved: bool,
    train: Train,
    stopped_run: Train,
    short_config: MakeConfig,
    contents: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    """Before there were DistilBERTs, each task named its pooling."""
    train(short_config(), tmp_path / "whole")
    stopped_run(short_config(), out := tmp_path / "run")
    config = json.loads((out / "config.json").read_text())
    for table, key in (("encoder", "checkpoint_layers"), ("train", "moments")):
        del config[table][key]
    for task in config["tasks"].values():
        task["pooling"] = "attention"
    write_json(out / "config.json", config)
    last = latest_checkpoint(out / "checkpoints")
    assert last is not None
    if saved:
        state = json.loads((last / "state.json").read_text())
        state["identity"]["config"] = config
        write_json(last / "state.json", state)
        files = [path for path in last.iterdir() if path.name != "complete.json"]
        write_json(last / "complete.json", {path.name: sha256_of(path) for path in files})
    else:
        shutil.rmtree(out / "checkpoints")
        shutil.rmtree(out / "best", ignore_errors=True)
    with pytest.raises(RunError, match=r"config\.train\.moments must be 'own', got 'shared'"):
        train(short_config("train.moments=shared"), out, resume=True)
    train(short_config(), out, resume=True)
    assert contents(out) == contents(tmp_path / "whole")


def test_another_decoder_is_refused_by_its_setting_not_by_its_tensors(
    train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    stopped_run(short_config(), tmp_path / "run")
    with pytest.raises(RunError, match=r"tasks\.sst\.pooling must be 'attention', got 'mean'"):
        train(short_config("tasks.sst.pooling=mean"), tmp_path / "run", resume=True)


def test_a_checkpoint_of_another_format_is_refused(
    train: Train, stopped_run: Train, short_config: MakeConfig, tmp_path: Path
) -> None:
    """The first format had the moments in another order, which would fit other parameters of the same shape."""
    stopped_run(short_config(), tmp_path / "run")
    last = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    state = json.loads((last / "state.json").read_text())
    del state["format"]
    write_json(last / "state.json", state)
    files = [path for path in last.iterdir() if path.name != "complete.json"]
    write_json(last / "complete.json", {path.name: sha256_of(path) for path in files})
    with pytest.raises(RunError, match="state.json: format must be 3, got None"):
        train(short_config(), tmp_path / "run", resume=True)


@contextmanager
def environment(
    patch: pytest.MonkeyPatch, threads: int = 1, precision: str = "float32", kernels: str = "fast"
) -> Iterator[None]:
    """Within, this machine is another one, as far as training can see."""
    torch.set_num_threads(threads)
    has = precision == "bfloat16"
    patch.setattr(multitask.precision, "_bfloat16_support", lambda device: (has, "the test says so"))
    with minbert.kernels(kernels):
        yield


@pytest.mark.parametrize(
    ("what", "before", "now"),
    [("threads", 1, 2), ("precision", "float32", "bfloat16"), ("kernels", "fast", "reference")],
)
def test_another_environment_is_said_and_recorded(
    stopped_run: Train,
    short_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    before: Any,
    now: Any,
) -> None:
    config, out = short_config("train.precision=auto"), tmp_path / "run"
    with environment(monkeypatch):
        stopped_run(config, out)
    with environment(monkeypatch, **{what: now}):
        training.train(config, out, resume=True)
    said = f"resumed with other {what}, so not to the same bytes: {before} before, {now} now"
    messages = capsys.readouterr().err
    assert said in messages
    assert messages.count("resumed with other") == 1
    record = json.loads((out / "record.json").read_text())
    assert record[what] == now
    assert record["resumed_with_changes"] == [{what: [before, now]}]


def test_every_change_stays_recorded_over_later_resumes(
    stopped_run: Train, short_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = short_config(), tmp_path / "run"
    recorded = []
    for lines, kernels in ((8, "fast"), (8, "reference"), (8, "reference"), (8, "fast")):
        with environment(monkeypatch, kernels=kernels):
            stopped_run(config, out, lines, resume=True)
        recorded.append(json.loads((out / "record.json").read_text())["resumed_with_changes"])
    there, back = {"kernels": ["fast", "reference"]}, {"kernels": ["reference", "fast"]}
    assert recorded == [[], [there], [there], [there, back]]
