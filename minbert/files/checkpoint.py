"""safetensors <-> parameters: one reversible table of names, loaded strictly."""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minbert.config import BertConfig
from minbert.errors import WeightsError
from minbert.files.storage import read_tensors, write_json, write_tensors

__all__ = [
    "LoadReport",
    "fault_of",
    "has_pooler",
    "load_encoder",
    "load_pretraining",
    "read_config",
    "save_encoder",
    "save_pretraining",
    "to_hub_name",
    "to_our_name",
]

_logger = logging.getLogger("minbert")

# HuggingFace's name, ours. Order matters, for the first match is taken; read backwards the table gives the export.
_RENAMES = (
    ("embeddings.LayerNorm.", "embeddings.norm."),
    ("encoder.layer.#.attention.self.", "layers.#.attention."),
    ("encoder.layer.#.attention.output.dense.", "layers.#.attention_output."),
    ("encoder.layer.#.attention.output.LayerNorm.", "layers.#.attention_norm."),
    ("encoder.layer.#.intermediate.dense.", "layers.#.intermediate."),
    ("encoder.layer.#.output.dense.", "layers.#.output."),
    ("encoder.layer.#.output.LayerNorm.", "layers.#.output_norm."),
    ("pooler.dense.", "pooler."),
    ("cls.predictions.transform.dense.", "transform."),
    ("cls.predictions.transform.LayerNorm.", "transform_norm."),
    ("cls.predictions.bias", "prediction_bias"),
    ("cls.seq_relationship.", "seq_relationship."),
)
# Old TensorFlow names, read but never written; only a LayerNorm's, since other names may end alike.
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))
# Buffers of old files, and copies of tied parameters.
_BUFFERS = re.compile(r"^(embeddings\.(position_ids|token_type_ids)|cls\.predictions\.decoder\.(weight|bias))$")
_TIED = {
    "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
_HEADS = re.compile(r"^(cls|classifier|qa_outputs|score)\.")
_POOLER = re.compile(r"^pooler\.")
# Parameters, by the ends of our names, of which no trained model has one of zeros alone.
_PARTS = ("query", "key", "value", "attention_output", "attention_norm", "intermediate", "output", "output_norm")
_NEVER_ZERO = ("word_embeddings.weight", *(f".{part}.weight" for part in _PARTS))
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str:
    for old, new in table:
        match = re.match("^" + re.escape(old).replace(r"\#", r"(\d+)"), name)
        if match:
            return new.replace("#", match[1] if match.groups() else "") + name[match.end() :]
    return name


def to_our_name(hub_name: str) -> str:
    """The name of a tensor here, from HuggingFace's without ``bert.``; old LayerNorm names included."""
    for pattern, new in _LEGACY:
        hub_name = pattern.sub(new, hub_name)
    return _rename(hub_name, _RENAMES)


def to_hub_name(our_name: str) -> str:
    """HuggingFace's name of a tensor, without ``bert.``: the table read backwards."""
    return _rename(our_name, [(ours, theirs) for theirs, ours in _RENAMES])


@dataclass(frozen=True)
class LoadReport:
    """What loading did: legacy names that were renamed, tensors of the files left out, types that were changed.

    ``notes`` are for the user to know of; loading has logged them as warnings.
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
                shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
                parts.append(f"{verb} {shown}")
        return "; ".join(parts)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    if (folder / _WEIGHTS).exists():
        return read_tensors(folder / _WEIGHTS)
    if not (folder / _INDEX).exists():
        other = next((p.name for p in sorted(folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt")), None)
        if other:
            raise WeightsError(
                f"{folder / other}: is a pickle, which is never opened here; load it in transformers and"
                " save_pretrained(folder, safe_serialization=True) it"
            )
        raise WeightsError(f"{folder}: holds neither {_WEIGHTS} nor {_INDEX}")
    try:
        shards = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"{folder / _INDEX}: is no index of safetensors shards ({error!r})") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{folder / _INDEX}: names the shard {name!r}; a file in the same folder is due")
        tensors.update(read_tensors(folder / name))
    absent = sorted(set(shards) - set(tensors))
    if absent:
        raise WeightsError(f"{folder / _INDEX}: names {', '.join(absent[:5])}, which the shards do not hold")
    return tensors


def has_pooler(folder: Path) -> bool:
    """Whether a folder's weights hold a pooler; what is wrong with the files is left to loading to say."""
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
    """The name of a tensor in a file, with ``bert.`` where a model with heads has it."""
    plain = our_name.removeprefix("bert.")
    return our_name[: len(our_name) - len(plain)] + to_hub_name(plain)


def _is_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite. A finite sum says so in one pass; one that overflows says nothing."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def fault_of(tensor: Tensor, dtype: torch.dtype) -> str:
    """What keeps a tensor from being a parameter of that type, or nothing."""
    if not tensor.is_floating_point():
        return f"holds {tensor.dtype}, a floating type is due"
    return "" if _is_finite(tensor.to(dtype)) else "holds NaN or infinite values"


def _zero_fault(name: str, tensor: Tensor) -> str:
    if name.endswith(_NEVER_ZERO) and not bool(tensor.any()):
        return "is zero throughout, as after a write that was cut short"
    return ""


def _fill(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], folder: Path, report: dict[str, Any]) -> LoadReport:
    """Copy ``tensors`` (our names) into the parameters ``own``; every misfit is in the one error."""
    wrong = [f"missing {_file_name(name)}" for name in own if name not in tensors]
    wrong += [f"unexpected {_file_name(name)}" for name in tensors if name not in own]
    converted, broken = [], False
    for name, parameter in own.items():
        given = tensors.get(name)
        if given is None:
            continue
        if given.shape != parameter.shape:
            wrong.append(f"{_file_name(name)} has shape {tuple(given.shape)}, {tuple(parameter.shape)} is due")
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
        raise WeightsError(f"{place}: the weights do not fit the model: {'; '.join(wrong)}{hint}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return LoadReport(folder, len(own), converted=tuple(converted), **report)


def read_config(folder: Path) -> BertConfig:
    """The folder's config.json; of a far larger model than its files can hold, refused before memory is taken."""
    config = BertConfig.from_folder(folder)
    if _is_far_above(config, _entries(folder / _WEIGHTS)):
        held = sum(tensor.numel() for tensor in _read_folder(folder).values())  # which finds faults of the files first
        if _is_far_above(config, held):
            raise WeightsError(
                f"{folder / 'config.json'}: describes at least {min(config.least_parameters, 10**18):.3g} parameters,"
                f" and the weights beside it have {held:.3g}; take both from one place"
            )
    return config


def _is_far_above(config: BertConfig, held: int) -> bool:
    return config.least_parameters > 2 * held + 2**20


def _entries(path: Path) -> int:
    """Numbers that a safetensors file holds, by its header; 0 for a file that can't be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0


def _gather(folder: Path, with_heads: bool, with_pooler: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The folder's tensors under our names, less those that may be left out, and what was done to them."""
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
        if any(pattern.search(plain) for pattern, _ in _LEGACY):
            renamed.append(name)
        tensors[to_our_name(plain)] = tensor
    return tensors, {"renamed": tuple(renamed), "dropped": tuple(dropped)}


def _check_tied(folder: Path, name: str, tensor: Tensor, read: Mapping[str, Tensor]) -> None:
    """Leaving a tied copy out is only right where it is one."""
    original = next((key for key in read if key.removeprefix("bert.") == _TIED[name]), None)
    if original is None or not torch.equal(read[original], tensor):
        raise WeightsError(f"{folder}: {name} is not equal to {_TIED[name]}; this model ties the two")


def load_encoder(own: Mapping[str, Tensor], folder: Path) -> LoadReport:
    """Fill an encoder's parameters from a HuggingFace folder, in place.

    :param own: parameters by our names; a pooler is read only where they have one. Heads and position_ids are
        dropped and reported.
    """
    tensors, report = _gather(folder, with_heads=False, with_pooler="pooler.weight" in own)
    bias = tensors.get("pooler.bias")
    if bias is not None and not bool(bias.any()):
        report["notes"] = (
            f"{folder}: the pooler looks untrained (its bias is exactly zero): pooler_output means little before"
            " fine-tuning; mean or attention pooling does not need it",
        )
        _logger.warning(report["notes"][0])
    return _fill(own, tensors, folder, report)


def load_pretraining(own: Mapping[str, Tensor], folder: Path) -> LoadReport:
    """Fill the parameters of an encoder with both pretraining heads, in place."""
    tensors, report = _gather(folder, with_heads=True, with_pooler=True)
    heads = ("transform", "prediction_bias", "seq_relationship")
    named = {name if name.startswith(heads) else f"bert.{name}": tensor for name, tensor in tensors.items()}
    return _fill(own, named, folder, report)


def save_encoder(state: Mapping[str, Tensor], config: BertConfig, folder: str | Path) -> None:
    """Write config.json and model.safetensors under HuggingFace's names, from an encoder's state dict."""
    _save({to_hub_name(name): tensor for name, tensor in state.items()}, config.to_dict(), Path(folder))


def save_pretraining(state: Mapping[str, Tensor], config: BertConfig, folder: str | Path) -> None:
    """Write an encoder with both heads; the tied decoder weight is written once, as the embedding."""
    tensors = {_file_name(name): tensor for name, tensor in state.items()}
    _save(tensors, {**config.to_dict(), "architectures": ["BertForPreTraining"]}, Path(folder))


def _save(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{folder}: the folder can't be made ({error.strerror})") from None
    write_tensors(folder / _WEIGHTS, tensors, {"format": "pt"})
    write_json(folder / "config.json", config)
