"""Load and save parameters as safetensors: one reversible table of names, no tensor too many or too few."""

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minbert.config import BertConfig
from minbert.errors import WeightsError, listed
from minbert.files.names import is_old_name, to_hub_name, to_our_name
from minbert.files.storage import make_folder, read_tensors, write_json, write_tensors

__all__ = [
    "LoadReport",
    "fault_of",
    "has_pooler",
    "load_encoder",
    "load_pretraining",
    "read_config",
    "save_parameters",
]

_logger = logging.getLogger("minbert")

# Tensors that are not parameters of their own: buffers of old files, and copies of tied parameters.
_BUFFERS = re.compile(r"^(embeddings\.(position_ids|token_type_ids)|cls\.predictions\.decoder\.(weight|bias))$")
_TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_HEADS = re.compile(r"^(cls|classifier|qa_outputs|score)\.")
_POOLER = re.compile(r"^pooler\.")
# Parameters, by the ends of our names, of which no trained model has one of zeros alone.
_PARTS = (
    "query",
    "key",
    "value",
    "attention_output",
    "attention_LayerNorm",
    "intermediate",
    "output",
    "output_LayerNorm",
)
_NEVER_ZERO = ("word_embeddings.weight", *(f".{part}.weight" for part in _PARTS))
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class LoadReport:
    """What loading did: old names that were translated, tensors left out, types that were changed.

    ``notes`` are messages to the user; loading has logged them as warnings, unless told not to.
    """

    folder: Path
    loaded: int
    renamed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.folder}: {self.loaded} tensors loaded"]
        for verb, names in (("renamed", self.renamed), ("dropped", self.dropped), ("converted", self.converted)):
            if names:
                parts.append(f"{verb} {listed(names)}")
        return "; ".join(parts)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, from one file or from shards.

    By hand, since huggingface_hub's load_torch_model fills a module by the names in the files, which are not ours.
    """
    if (folder / _WEIGHTS).exists():
        return read_tensors(folder / _WEIGHTS)
    if not (folder / _INDEX).exists():
        other = next((p.name for p in sorted(folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt")), None)
        if other:
            raise WeightsError(
                f"{folder / other}: must be safetensors, got a pickle, which is never opened here; load it in"
                " transformers and save_pretrained(folder, safe_serialization=True) it"
            )
        raise WeightsError(f"{folder}: must hold {_WEIGHTS} or {_INDEX}, found neither")
    try:
        shards = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"{folder / _INDEX}: must be an index of safetensors shards ({error!r})") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{folder / _INDEX}: a shard must be a file in the same folder, got {name!r}")
        tensors.update(read_tensors(folder / name))
    absent = sorted(set(shards) - set(tensors))
    if absent:
        raise WeightsError(f"{folder / _INDEX}: the shards must hold every tensor it names, {listed(absent)} missing")
    return tensors


def has_pooler(folder: Path) -> bool:
    """Say whether a folder's weights hold a pooler; True for broken files, since loading reports errors."""
    from safetensors import SafetensorError, safe_open

    try:
        if (folder / _WEIGHTS).exists():
            with safe_open(folder / _WEIGHTS, framework="pt") as file:
                names = list(file.keys())
        else:
            names = list(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return True
    return any(_POOLER.match(name.removeprefix("bert.")) for name in names)


def _file_name(our_name: str) -> str:
    """Translate our name into the one in a file, with ``bert.`` where a model with heads has it."""
    plain = our_name.removeprefix("bert.")
    return our_name[: len(our_name) - len(plain)] + to_hub_name(plain)


def _is_finite(tensor: Tensor) -> bool:
    """Say whether no entry is NaN or infinite."""
    # A finite sum proves it in one pass; an infinite one may be an overflow.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def fault_of(tensor: Tensor, dtype: torch.dtype) -> str:
    """Say what keeps a tensor from being a parameter of that type, or nothing."""
    if not tensor.is_floating_point():
        return f"must be of a floating-point type, got {tensor.dtype}"
    return "" if _is_finite(tensor.to(dtype)) else "must be finite, got NaN or infinite values"


def _zero_fault(name: str, tensor: Tensor) -> str:
    if name.endswith(_NEVER_ZERO) and not bool(tensor.any()):
        return "must not be zero throughout, as after a write that was cut short"
    return ""


def _fill(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path, report: dict[str, Any]) -> LoadReport:
    """Copy ``tensors`` (our names) into the parameters ``own``.

    :raises WeightsError: one, with every tensor that does not fit.
    """
    wrong = [f"missing {_file_name(name)}" for name in own if name not in tensors]
    wrong += [f"unexpected {_file_name(name)}" for name in tensors if name not in own]
    converted, broken = [], False
    for name, parameter in own.items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape != parameter.shape:
            wrong.append(f"{_file_name(name)} must have shape {tuple(parameter.shape)}, got {tuple(given.shape)}")
        elif fault := fault_of(given, parameter.dtype) or _zero_fault(name, given):
            wrong.append(f"{_file_name(name)} {fault}")
            broken = True
        elif given.dtype != parameter.dtype:
            converted.append(f"{_file_name(name)} from {given.dtype}")
    if wrong:
        hint = "; download it again" if broken else ""
        if "pooler.weight" in own and "pooler.weight" not in tensors:
            hint = "; for a checkpoint without a pooler pass add_pooling_layer=False"
        place = folder / _WEIGHTS if (folder / _WEIGHTS).exists() else folder
        raise WeightsError(f"{place}: the weights must fit the model: {listed(wrong, join='; ')}{hint}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return LoadReport(folder, len(own), converted=tuple(converted), **report)


def read_config(folder: Path) -> BertConfig:
    """Read a folder's config.json.

    :raises WeightsError: before any memory is taken, if it describes a far larger model than the files can hold.
    """
    config = BertConfig.from_folder(folder)
    if _is_far_above(config, _entries(folder / _WEIGHTS)):
        held = sum(tensor.numel() for tensor in _read_folder(folder).values())  # reports broken files first
        if _is_far_above(config, held):
            raise WeightsError(
                f"{folder / 'config.json'}: must describe the weights beside it, {held:.3g} numbers,"
                f" got at least {min(config.least_parameters, 10**18):.3g} parameters; take both from one place"
            )
    return config


def _is_far_above(config: BertConfig, held: int) -> bool:
    return config.least_parameters > 2 * held + 2**20


def _entries(path: Path) -> int:
    """Count the numbers that a safetensors file holds, by its header; 0 for a file that can't be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0


def _gather(folder: Path, with_heads: bool, with_pooler: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a folder's tensors under our names, without those that may be left out, and say what was done to them."""
    read = _read_folder(folder)
    prefixed = any(name.startswith("bert.") for name in read)
    tensors, renamed, dropped = {}, [], []
    for name, tensor in read.items():
        plain = name.removeprefix("bert.") if prefixed else name
        is_head = bool(_HEADS.match(plain)) and plain == name
        if with_heads and plain in _TIED:
            _check_tied(folder, name, tensor, read)
        if _BUFFERS.match(plain) or (is_head and not with_heads) or (_POOLER.match(plain) and not with_pooler):
            dropped.append(name)
            continue
        if is_old_name(plain):
            renamed.append(name)
        tensors[to_our_name(plain)] = tensor
    return tensors, {"renamed": tuple(renamed), "dropped": tuple(dropped)}


def _check_tied(folder: Path, name: str, tensor: Tensor, read: Mapping[str, Tensor]) -> None:
    """Check that the copy of a tied parameter, which is left out, equals the original.

    :raises WeightsError: if it does not.
    """
    original = next((key for key in read if key.removeprefix("bert.") == _TIED[name]), None)
    if original is None or not torch.equal(read[original], tensor):
        raise WeightsError(f"{folder}: {name} must equal {_TIED[name]}, which this model ties it to, got other values")


def load_encoder(own: Mapping[str, Tensor], folder: Path, *, warn: bool = True) -> LoadReport:
    """Fill an encoder's parameters from a HuggingFace folder, in place.

    :param own: parameters by our names; a pooler is read only where they have one. Heads are dropped and reported.
    :param warn: log the report's notes.
    :raises WeightsError: for broken files, and for tensors that are missing, unexpected or do not fit.
    """
    tensors, report = _gather(folder, with_heads=False, with_pooler="pooler.weight" in own)
    bias = tensors.get("pooler.bias")
    if bias is not None and not bool(bias.any()):
        report["notes"] = (
            f"{folder}: the pooler looks untrained (its bias is exactly zero), so pooler_output means little before"
            " fine-tuning; mean or attention pooling does not need it",
        )
        _logger.log(logging.WARNING if warn else logging.DEBUG, report["notes"][0])
    return _fill(own, tensors, folder, report)


def load_pretraining(own: Mapping[str, Tensor], folder: Path) -> LoadReport:
    """Fill the parameters of an encoder with both pretraining heads, in place.

    :raises WeightsError: for broken files, and for tensors that are missing, unexpected or do not fit.
    """
    tensors, report = _gather(folder, with_heads=True, with_pooler=True)
    heads = ("transform", "prediction_bias", "seq_relationship")
    named = {name if name.startswith(heads) else f"bert.{name}": tensor for name, tensor in tensors.items()}
    return _fill(own, named, folder, report)


def save_parameters(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    config: BertConfig,
    folder: Path,
    architecture: str = "BertModel",
) -> None:
    """Write config.json and model.safetensors under HuggingFace's names.

    :param state: the state dict of an encoder, or of one with both pretraining heads.
    :param own: that of a new model of the same configuration, which the files have to fit; on any device.
    :param architecture: HuggingFace's name of the model's class.
    :raises WeightsError: if ``state`` has other tensors or shapes, or if the disk refuses.
    """
    _check_parts(state, own, folder)
    make_folder(folder)
    write_tensors(folder / _WEIGHTS, {_file_name(name): tensor for name, tensor in state.items()}, {"format": "pt"})
    write_json(folder / "config.json", {**config.to_dict(), "architectures": [architecture]})


def _check_parts(state: Mapping[str, Tensor], own: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse a model of which a part was replaced: nothing could load its files."""
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise WeightsError(
            f"{folder}: a model must have the tensors of its config to be saved, got others at"
            f" {listed(wrong)}; merge adapters first, or save a quantized model by torch's own means"
        )
