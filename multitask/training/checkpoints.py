"""Checkpoints of a training: one folder each, written under another name, renamed when complete, marked last.

A folder without the marker is never read. All tensors are safetensors, all else JSON; nothing is unpickled.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minbert.errors import WeightsError
from minbert.files.storage import read_tensors, sha256_of, write_json, write_tensors
from multitask.distributed import gathered, is_main, rank
from multitask.errors import RunError
from multitask.model.model import MultitaskModel, fit_buffers
from multitask.settings.checks import shown
from multitask.updates.stepper import Stepper

__all__ = [
    "generator_states",
    "latest_checkpoint",
    "optimizer_states",
    "read_state",
    "remove_checkpoints",
    "restore_checkpoint",
    "restore_parts",
    "save_checkpoint",
    "write_checkpoint",
]

Parts = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]]
_NAME = re.compile(r"round-\d{8}(-scored)?")
_FILES = ("model.safetensors", "optimizers.safetensors", "generators.safetensors", "state.json")
_MARKER = "complete.json"
_OF_UPDATE = "the update's tensors/"  # no optimizer's name: a task can't be called so
_FORMAT = 3  # 1 had the moments in another order, 2 no values of optimizers and nothing of updates


def save_checkpoint(
    place: Path, model: MultitaskModel, stepper: Stepper, state: dict[str, Any], *, number: int, scored: bool, keep: int
) -> None:
    """Write weights, every optimizer's state, what the update has of its own, generators and ``state``.

    All processes that train together have to call this; the main one writes.

    :param number: rounds trained so far.
    :param place: the folder of all checkpoints of a run; the ``keep`` newest complete ones stay in it.
    :param scored: whether the epoch that the round ended has been scored; such a save has a name of its own, so that
        it never has to replace the one made before the scoring.
    :param state: what else the training needs, as JSON has it.
    :raises RunError: when the disk refuses; the checkpoints that were there stay whole.
    """
    generators = generator_states()
    if not is_main():
        return
    stepper.check_state()
    tensors, values = optimizer_states(stepper.optimizers)
    tensors |= {f"{_OF_UPDATE}{name}": value for name, value in stepper.update.state_dict().items()}
    state = {**state, "optimizers": values, "order": stepper.order_rng.bit_generator.state}
    parts = (model.state_dict(), tensors, generators)
    write_checkpoint(place, parts, state, number=number, scored=scored, keep=keep)


def write_checkpoint(
    place: Path, parts: Parts, state: Mapping[str, Any], *, number: int, scored: bool = False, keep: int = 1
) -> None:
    """Write what save_checkpoint has collected, or another training; its parameters.

    :param parts: weights, optimizers' tensors, generators.
    :raises RunError: when the disk refuses; the checkpoints that were there stay whole.
    """
    final = place / f"round-{number:08d}{'-scored' if scored else ''}"
    staging = place / f".{final.name}.writing"
    try:
        place.mkdir(parents=True, exist_ok=True)
        _remove_incomplete(place)
        staging.mkdir()
        for name, tensors in zip(_FILES, parts, strict=False):
            write_tensors(staging / name, tensors)
        write_json(staging / _FILES[3], {"format": _FORMAT, **state})
        staging.rename(final)
        _sync(place)
        write_json(final / _MARKER, {name: sha256_of(final / name) for name in _FILES})
        _sync(final)
    except (OSError, WeightsError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise RunError(f"{final}: the checkpoint can't be written ({error})") from None
    for old in _complete(place)[:-keep]:
        # The marker goes first, so that a half-removed checkpoint is never taken for a whole one.
        (old / _MARKER).unlink()
        shutil.rmtree(old, ignore_errors=True)


def latest_checkpoint(place: Path) -> Path | None:
    """Return the newest complete checkpoint, or None."""
    complete = _complete(place)
    return complete[-1] if complete else None


def read_state(folder: Path) -> dict[str, Any]:
    """Compare the checksum of every file of a checkpoint, then read its ``state``.

    :raises RunError: for a file whose bytes are not those that were written, or a checkpoint of another format.
    """
    try:
        digests = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        for name in _FILES:
            if sha256_of(folder / name) != digests[name]:
                raise RunError(
                    f"{folder / name}: must have the checksum that was written, got another; remove {folder} to resume"
                    " before it"
                )
        state: dict[str, Any] = json.loads((folder / _FILES[3]).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: the checkpoint can't be read ({error}); remove it to resume before it") from None
    written = state.get("format") if isinstance(state, dict) else None
    if written != _FORMAT:
        raise RunError(f"{folder / _FILES[3]}: format must be {_FORMAT}, got {written!r}; begin a new run")
    return state


def restore_checkpoint(folder: Path, model: MultitaskModel, stepper: Stepper, state: dict[str, Any]) -> None:
    """Put weights, optimizers, the update's own tensors and generators back in place.

    :param state: the checkpoint's.
    :raises RunError: for files that do not fit the run.
    """
    tensors = restore_parts(folder, model, stepper.optimizers, state)
    try:
        own = {key.removeprefix(_OF_UPDATE): value for key, value in tensors.items() if key.startswith(_OF_UPDATE)}
        fit_buffers(stepper.update, own)
        stepper.update.load_state_dict(own)
        stepper.order_rng.bit_generator.state = state["order"]
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: the checkpoint must fit the run ({error})") from None


def restore_parts(
    folder: Path, model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], state: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Put weights, optimizers and generators back in place.

    :param state: the checkpoint's.
    :return: all tensors of the optimizers' file.
    :raises RunError: for files that do not fit the run.
    """
    try:
        weights, tensors, generators = (read_tensors(folder / name) for name in _FILES[:3])
        fit_buffers(model, weights)
        model.load_state_dict(weights)
        for name, optimizer in optimizers.items():
            saved = state["optimizers"][name]
            entries = {int(index): dict(entry) for index, entry in saved["state"].items()}
            for key, tensor in tensors.items():
                if key.startswith(f"{name}/"):
                    index, entry = key.removeprefix(f"{name}/").split("/", 1)
                    entries.setdefault(int(index), {})[entry] = tensor
            groups = [
                {**group, **{key: _as_before(group.get(key), value) for key, value in before.items()}}
                for group, before in zip(optimizer.state_dict()["param_groups"], saved["groups"], strict=True)
            ]
            optimizer.load_state_dict({"state": entries, "param_groups": groups})
            _keep_types(optimizer, entries)
        torch.set_rng_state(generators[f"cpu/{rank()}"])
        if f"cuda/{rank()}" in generators and torch.cuda.is_available():
            torch.cuda.set_rng_state(generators[f"cuda/{rank()}"])
    except (RuntimeError, ValueError, KeyError, WeightsError) as error:
        raise RunError(f"{folder}: the checkpoint must fit the run ({error})") from None
    return tensors


def remove_checkpoints(place: Path) -> None:
    """Remove all checkpoints of a finished run, markers first."""
    for folder in _complete(place):
        (folder / _MARKER).unlink()
    shutil.rmtree(place, ignore_errors=True)


def _remove_incomplete(place: Path) -> None:
    """Remove what killed saves left, by the names of checkpoints; nothing else is touched."""
    for entry in place.iterdir():
        name = entry.name.removeprefix(".").removesuffix(".writing")
        if _NAME.fullmatch(name) and not (entry / _MARKER).is_file():
            shutil.rmtree(entry, ignore_errors=True)


def _complete(place: Path) -> list[Path]:
    """List the complete checkpoints, oldest first."""
    if not place.is_dir():
        return []
    return sorted(entry for entry in place.iterdir() if _NAME.fullmatch(entry.name) and (entry / _MARKER).is_file())


def optimizer_states(optimizers: Mapping[str, torch.optim.Optimizer]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Collect the state of every optimizer.

    :return: tensors, such as moments; and by optimizer the other values of its parameters' states and of its groups.
    :raises RunError: for a value that neither safetensors nor JSON can hold.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        more = [key for key in state if key not in ("state", "param_groups")]
        more += [key for key in state["state"] if not isinstance(key, int)]
        if more:
            raise RunError(f"the optimizer {name!r} must keep its state by parameter or in groups, got {more[0]!r}")
        plain: dict[str, dict[str, Any]] = {}
        for index, entry in state["state"].items():
            for key, value in entry.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"{name}/{index}/{key}"] = value
                else:
                    plain.setdefault(str(index), {})[key] = _plain(name, key, value, "a tensor, ")
        groups = [
            {key: _plain_or_list(name, key, value) for key, value in group.items() if key != "params"}
            for group in state["param_groups"]
        ]
        values[name] = {"state": plain, "groups": groups}
    return tensors, values


def _plain(optimizer: str, key: str, value: Any, other: str = "") -> Any:
    """Return a value that JSON holds as it is, or raise RunError.

    :param other: what it may be, too.
    """
    if not isinstance(value, bool | int | float | str | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise RunError(
            f"{key} of the optimizer {optimizer!r} must be {other}a finite number or a string to be saved,"
            f" got {shown(value)}"
        )
    return value


def _plain_or_list(optimizer: str, key: str, value: Any) -> Any:
    """Return a value of a group, or a list of them; see _plain."""
    if isinstance(value, tuple | list):
        return [_plain(optimizer, key, each) for each in value]
    return _plain(optimizer, key, value)


def _keep_types(optimizer: torch.optim.Optimizer, entries: Mapping[int, Mapping[str, Any]]) -> None:
    """Put tensors of other types back as they were saved: torch casts them to their parameter's on loading."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, entry in entries.items():
        loaded = optimizer.state[parameters[index]]
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and loaded[key].dtype != value.dtype:
                loaded[key] = value.to(loaded[key].device)


def _as_before(now: Any, saved: Any) -> Any:
    """Return a saved value in the type that it had: JSON has no tuples."""
    return tuple(saved) if isinstance(now, tuple) and isinstance(saved, list) else saved


def generator_states() -> dict[str, Tensor]:
    """Collect the states of all processes' default generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {f"{name}/{rank}": part for name, own in states.items() for rank, part in enumerate(gathered(own))}


def _sync(folder: Path) -> None:
    """Make a rename inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
