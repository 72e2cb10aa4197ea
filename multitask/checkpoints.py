"""Checkpoints of a training: one folder each, written beside its place, renamed when it is whole, marked last.

A folder without the marker is never read. All tensors are safetensors, all else JSON; nothing is unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from minbert.checkpoint import read_tensors, write_json, write_tensors
from minbert.errors import WeightsError
from multitask.errors import RunError
from multitask.model import MultitaskModel
from multitask.updates import Update

__all__ = ["latest_checkpoint", "remove_checkpoints", "restore_checkpoint", "save_checkpoint"]

_NAME = re.compile(r"round-(\d{8})")
_FILES = ("model.safetensors", "optimizers.safetensors", "generators.safetensors", "state.json")
_MARKER = "complete.json"


def save_checkpoint(
    place: Path, model: MultitaskModel, update: Update, state: dict[str, Any], *, number: int, keep: int
) -> Path:
    """Write weights, every optimizer's moments and step counts, generators and ``state`` after round ``number``.

    :param place: the folder of all checkpoints of a run; the ``keep`` newest complete ones stay in it.
    :param state: what else the training needs, as JSON has it.
    :raises RunError: when the disk refuses; the checkpoints that were there stay whole.
    """
    final = place / f"round-{number:08d}"
    staging = place / f".{final.name}.writing"
    try:
        place.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        write_tensors(staging / _FILES[0], model.state_dict())
        write_tensors(staging / _FILES[1], _moments(update))
        write_tensors(staging / _FILES[2], _generators())
        write_json(staging / _FILES[3], {**state, "order": update.order_rng.bit_generator.state})
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        _sync(place)
        write_json(final / _MARKER, {name: _digest(final / name) for name in _FILES})
        _sync(final)
    except (OSError, WeightsError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise RunError(f"{final}: the checkpoint can't be written ({error})") from None
    for old in _complete(place)[:-keep]:
        # The marker goes first, so that a half-removed checkpoint is never taken for a whole one.
        (old / _MARKER).unlink()
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_checkpoint(place: Path) -> Path | None:
    """The newest complete checkpoint, or None; incomplete ones and what a killed save left are removed."""
    complete = _complete(place)
    if place.is_dir():
        for entry in place.iterdir():
            if entry.is_dir() and entry not in complete:
                shutil.rmtree(entry, ignore_errors=True)
    return complete[-1] if complete else None


def restore_checkpoint(folder: Path, model: MultitaskModel, update: Update) -> dict[str, Any]:
    """Put everything back in place and give back the ``state`` that was saved.

    :raises RunError: for a file whose bytes are not those that were written, or that does not fit the run.
    """
    try:
        digests = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        for name in _FILES:
            if _digest(folder / name) != digests[name]:
                raise RunError(
                    f"{folder / name}: its checksum is not the one written; remove {folder} to resume before it"
                )
        weights, moments, generators = (read_tensors(folder / name) for name in _FILES[:3])
        state: dict[str, Any] = json.loads((folder / _FILES[3]).read_text(encoding="utf-8"))
        order = state.pop("order")
    except (OSError, ValueError, KeyError, WeightsError) as error:
        raise RunError(f"{folder}: the checkpoint can't be read ({error}); remove it to resume before it") from None
    try:
        model.load_state_dict(weights)
        for name, optimizer in update.optimizers.items():
            mine: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in moments.items():
                if key.startswith(f"{name}/"):
                    index, entry = key.removeprefix(f"{name}/").split("/")
                    mine.setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict({"state": mine, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: does not fit the run's model ({error})") from None
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and torch.cuda.is_available():
        torch.cuda.set_rng_state(generators["cuda"])
    update.order_rng.bit_generator.state = order
    return state


def remove_checkpoints(place: Path) -> None:
    """Remove all checkpoints of a finished run, markers first."""
    for folder in _complete(place):
        (folder / _MARKER).unlink()
    shutil.rmtree(place, ignore_errors=True)


def _complete(place: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    if not place.is_dir():
        return []
    return sorted(entry for entry in place.iterdir() if _NAME.fullmatch(entry.name) and (entry / _MARKER).is_file())


def _moments(update: Update) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{index}/{key}": value
        for name, optimizer in update.optimizers.items()
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def _generators() -> dict[str, torch.Tensor]:
    """The state of torch's default generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
