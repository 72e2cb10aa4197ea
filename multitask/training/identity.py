"""Whether a run may go on in a folder: what it was trained from, compared with what it is to be trained from."""

import json
from pathlib import Path
from typing import Any

from minbert.files.storage import sha256_of
from multitask.distributed import rank, size
from multitask.errors import RunError
from multitask.settings.config import RunConfig
from multitask.training.checkpoints import latest_checkpoint

__all__ = ["finished_identity", "identity_of", "refuse_changes", "refuse_differences", "refuse_to_overwrite"]


def finished_identity(out: Path) -> dict[str, Any] | None:
    """What a finished run was trained from; None where there is none."""
    try:
        record = json.loads((out / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    finished: dict[str, Any] | None = record.get("finished") if isinstance(record, dict) else None
    return finished


def identity_of(config: RunConfig, select: str, limit: int | None) -> dict[str, Any]:
    """All that decides a run's bytes but machine and versions: settings, data files' SHA-256, number of processes."""
    digests: dict[str, dict[str, str]] = {}
    for task in config.tasks:
        paths = {split: getattr(task, split) for split in ("train", "dev")}
        digests[task.name] = {split: sha256_of(Path(path)) for split, path in paths.items() if path is not None}
    return {"config": config.to_dict(), "select": select, "limit": limit, "data": digests, "ranks": size()}


def refuse_to_overwrite(out: Path, config: RunConfig) -> None:
    """Without a checkpoint resuming starts anew: only in an empty folder, or over a run that had not got to one."""
    there = {entry.name for entry in out.iterdir()} - {".lock"}
    if not there or latest_checkpoint(out / "checkpoints") is not None:
        return
    ours = {"config.json", "record.json", "metrics.jsonl", "timing.jsonl", "checkpoints", ".best.new"}
    if there - ours or "config.json" not in there:
        raise RunError(
            f"{out}: has no complete checkpoint to resume from, and holds {', '.join(sorted(there)[:5])}, which"
            " starting anew would overwrite; name a new folder, or remove this one"
        )
    try:
        before = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{out / 'config.json'}: can't be read ({error}); name a new folder") from None
    refuse_changes(out, before, config.to_dict())


def refuse_changes(out: Path, before: Any, now: Any) -> None:
    changed = _differences(before, now)
    if changed:
        raise RunError(f"{out}: can't be resumed, since {'; '.join(changed[:5])}")


def refuse_differences(main: Any, own: Any) -> None:
    """Of several processes each has to have been told the same, and to read the same data."""
    differing = _differences(main, own)
    if differing:
        raise RunError(f"process {rank()} differs from the main one: {'; '.join(differing[:5])}")


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Where two JSON values differ, as sentences that name the key and both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        found = [_differences(before.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [difference for part in found for difference in part]
    before, now = json.loads(json.dumps([before, now]))
    return [] if before == now else [f"{path} was {before!r} and is {now!r}"]
