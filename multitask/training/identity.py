"""Whether a run may continue in a folder: what it was trained from, compared with what it is to be trained from."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from minbert.files.storage import sha256_of
from minbert.tokenizer import BertTokenizer
from multitask.data.batches import TaskData
from multitask.data.memory import Given
from multitask.distributed import gathered, rank, size
from multitask.errors import ConfigError, RunError
from multitask.evaluation import Selection
from multitask.plugins import Parts, own_parts
from multitask.run import read_record
from multitask.settings.checks import listed, shown
from multitask.settings.choices import DEFAULT_POOLING
from multitask.settings.config import RunConfig
from multitask.training.checkpoints import latest_checkpoint

__all__ = [
    "finished_identity",
    "identity_of",
    "known_identity",
    "plugins_of",
    "refuse_changes",
    "refuse_different_starts",
    "refuse_differences",
    "refuse_to_overwrite",
    "tokenizer_digest",
]


def finished_identity(out: Path) -> dict[str, Any] | None:
    """Return what a finished run was trained from; None where there is none."""
    finished: dict[str, Any] | None = read_record(out).get("finished")
    return finished


def known_identity(out: Path) -> dict[str, Any] | None:
    """Return what a run, finished or not, is trained from; None where neither record nor checkpoint says so."""
    finished, last = finished_identity(out), latest_checkpoint(out / "checkpoints")
    if finished is not None or last is None:
        return finished
    try:
        found: dict[str, Any] = json.loads((last / "state.json").read_text(encoding="utf-8"))["identity"]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def identity_of(
    config: RunConfig, select: str, limit: int | None, given: Given | None = None, origin: str | None = None
) -> dict[str, Any]:
    """Collect what must not change in a run: settings, SHA-256 of files, rows and plugins, number of processes.

    What else decides its bytes is its environment (record.environment_of) and the machine.

    :param origin: the run that it begins from, as one phrase.
    """
    digests: dict[str, dict[str, str]] = {}
    for task in config.tasks:
        paths = {split: getattr(task, split) for split in ("train", "dev")}
        digests[task.name] = {split: sha256_of(Path(path)) for split, path in paths.items() if path is not None}
        rows = (given or {}).get(task.name, {})
        digests[task.name] |= {split: rows[split].digest for split in paths if split in rows}
    # As one phrase each, which a message can say.
    plugins = {part: f"{of['file']}, sha256 {of['sha256']}" for part, of in plugins_of(config, select).items()}
    return {
        "config": config.to_dict(),
        "select": select,
        "limit": limit,
        "data": digests,
        "plugins": plugins,
        "from": origin,
        "ranks": size(),
    }


def plugins_of(config: RunConfig, select: str) -> Parts:
    """Describe the user's parts that a run takes: see plugins.own_parts."""
    metric = Selection.parse(select, config.tasks).metric
    return own_parts(config.encoder, config.train, *config.tasks, metrics=[] if metric is None else [metric])


def tokenizer_digest(tokenizer: BertTokenizer, train: Mapping[str, TaskData]) -> str:
    """Return the SHA-256 of a vocabulary and of each task's first training rows as tokens, which tell other rules."""
    digest = sha256(json.dumps(sorted(tokenizer.vocabulary.items())).encode())
    for rows in train.values():
        digest.update(rows.texts.tokens(np.arange(min(len(rows), 100))).input_ids.numpy().tobytes())
    return digest.hexdigest()


def refuse_to_overwrite(out: Path, config: RunConfig, origin: str | None = None) -> None:
    """Allow a resumed run without a checkpoint to start anew only in an empty folder, or over a run that had none yet.

    :param origin: as in identity_of.
    :raises RunError: naming what would be overwritten.
    """
    there = {entry.name for entry in out.iterdir()} - {".lock", "teachers.safetensors"}
    if not there or latest_checkpoint(out / "checkpoints") is not None:
        return
    ours = {"config.json", "record.json", "metrics.jsonl", "timing.jsonl", "checkpoints", ".best.new"}
    if there - ours or "config.json" not in there:
        raise RunError(
            f"{out}: must hold a complete checkpoint to resume from, got only {listed(sorted(there))}, which"
            " starting anew would overwrite; name a new folder, or remove this one"
        )
    try:
        before = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{out / 'config.json'}: can't be read ({error}); name a new folder") from None
    refuse_changes(
        out, {"config": before, "from": _origin_in_record(out)}, {"config": config.to_dict(), "from": origin}
    )


def _origin_in_record(out: Path) -> str | None:
    """Return the run that one without a checkpoint began from, as one phrase."""
    try:
        origin = read_record(out)["from"]
        return None if origin is None else f"{origin['folder']}, sha256 {origin['sha256']}"
    except (KeyError, TypeError):
        return None


def refuse_changes(out: Path, before: Any, now: Any, advice: str | None = None) -> None:
    """Raise RunError, naming what changed, if a run was trained otherwise.

    :param advice: ends the message, instead of how a new run begins from this one.
    """
    changed = _differences(_as_written_now(before), _as_written_now(now))
    if changed:
        if advice is None and (out / "best").is_dir():
            advice = f"; a new run begins from its best epoch with --from {out}, in Python from_run={str(out)!r}"
        raise RunError(f"{out}: to be resumed, {listed(changed, join='; ')}{advice or ''}")


def _as_written_now(identity: Any) -> Any:
    """Return an identity with the settings that its version did not know yet, at what they stand for."""
    try:
        config = RunConfig.from_dict(identity["config"]).to_dict()
    except (ConfigError, KeyError, TypeError):  # broken, or with settings that are gone: compared as it is
        return identity
    for task in config["tasks"].values():
        # Of one encoder both are the same: without a pooler no run that names attention gets here.
        task["pooling"] = task["pooling"] or DEFAULT_POOLING
    # What a batch holds depends on the order, too, which two objects of JSON are equal without.
    return {**identity, "config": config, "order of tasks": list(config["tasks"])}


def refuse_differences(main: Any, own: Any) -> None:
    """Raise RunError if this process was told something else than the main one, or reads other data."""
    differing = _differences(main, own)
    if differing:
        raise RunError(f"process {rank()} must agree with the main one: {listed(differing, join='; ')}")


def refuse_different_starts(out: Path, model: nn.Module, position: tuple[int, int]) -> None:
    """Raise RunError if processes begin with different weights, seen by their sums, or at different positions.

    :param position: the next round: its epoch, and its number in that.
    """
    if size() == 1:
        return
    sums = [parameter.detach().double().sum().item() for parameter in model.parameters()]
    starts = gathered(torch.tensor([*position, *sums], dtype=torch.float64))
    if any(not start.equal(starts[0]) for start in starts):
        raise RunError(
            f"{out}: processes must begin with the same weights and checkpoint, got different ones; all have to see"
            " one folder"
        )


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """List where two JSON values differ, as sentences that name the key and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        found = [_differences(before.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [difference for part in found for difference in part]
    before, now = json.loads(json.dumps([before, now]))
    return [] if before == now else [f"{path} must be {shown(before, 200)}, got {shown(now, 200)}"]
