"""Load and save parameters as safetensors: a family's reversible table of names, no tensor too many or too few."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from minbert.config import BertConfig
from minbert.errors import WeightsError, listed
from minbert.families.family import Family
from minbert.files.found_tensors import Found, find_tensors, lead_of
from minbert.files.storage import make_folder, write_json, write_tensors
from minbert.files.weights_folder import WEIGHTS, numbers_in, read_weights, tensor_names

__all__ = [
    "LoadReport",
    "fault_of",
    "has_masked_head",
    "has_pooler",
    "load_encoder",
    "load_pretraining",
    "read_config",
    "save_parameters",
]

_logger = logging.getLogger("minbert")

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


@dataclass(frozen=True)
class LoadReport:
    """What loading did: old names that were translated, tensors left out, types that were changed.

    ``prefix`` stood before all names of the file, and was taken off, as a wrapper around the model leaves it.
    ``notes`` are messages to the user; loading has logged them as warnings, unless told not to.
    """

    folder: Path
    loaded: int
    renamed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    prefix: str = ""

    def __str__(self) -> str:
        parts = [f"{self.folder}: {self.loaded} tensors loaded"]
        if self.prefix:
            parts.append(f"took {self.prefix!r} off their names")
        for verb, names in (("renamed", self.renamed), ("dropped", self.dropped), ("converted", self.converted)):
            if names:
                parts.append(f"{verb} {listed(names)}")
        return "; ".join(parts)


def has_pooler(folder: Path) -> bool:
    """Say whether a folder's weights hold a pooler; True for broken files, since loading reports errors."""
    names = tensor_names(folder)
    return not names or not {"pooler.dense.weight", f"{lead_of(names) or ''}pooler.dense.weight"}.isdisjoint(names)


def has_masked_head(folder: Path, family: Family) -> bool:
    """Say whether a folder's weights hold a masked-language-model head."""
    return any(name.endswith(family.to_hub_name("prediction_bias")) for name in tensor_names(folder))


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


def _fill(own: Mapping[str, Tensor], found: Found, folder: Path, family: Family, notes: Sequence[str]) -> LoadReport:
    """Copy what was found into the parameters ``own``, both under our names.

    :raises WeightsError: one, with every tensor that does not fit, by the names in the file.
    """
    missing = [name for name in own if name not in found.tensors]
    extra = [*(found.names[name] for name in found.tensors if name not in own), *found.extra]
    misfits, converted, broken = [], [], False
    for name, parameter in own.items():
        given = found.tensors.get(name)
        if given is None:
            continue
        if given.shape != parameter.shape:
            misfits.append(f"{found.names[name]} must have shape {tuple(parameter.shape)}, got {tuple(given.shape)}")
        elif fault := fault_of(given, parameter.dtype) or _zero_fault(name, given):
            misfits.append(f"{found.names[name]} {fault}")
            broken |= given.is_floating_point()  # quantized weights are whole
        elif given.dtype != parameter.dtype:
            converted.append(f"{found.names[name]} from {given.dtype}")
    if missing or extra or misfits:
        hint = "; download it again" if broken else ""
        if not missing and not misfits:
            hint = (
                f"; to load without {'them' if len(extra) > 1 else 'it'} pass drop=[{', '.join(map(repr, extra[:1]))}"
            )
            hint += ", ...]" if len(extra) > 1 else "]"
        elif not extra and not misfits and set(missing) == {"pooler.weight", "pooler.bias"}:
            hint = "; for a checkpoint without a pooler pass add_pooling_layer=False"
        wrong = [f"missing {found.expected(name, family)}" for name in missing]
        wrong += [*(f"unexpected {name}" for name in extra), *misfits]
        place = folder / WEIGHTS if (folder / WEIGHTS).exists() else folder
        raise WeightsError(f"{place}: the weights must fit the model: {listed(wrong, join='; ')}{hint}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(found.tensors[name])
    changes = (tuple(found.renamed), tuple(found.dropped), tuple(converted))
    return LoadReport(folder, len(own), *changes, tuple(notes), found.prefix)


def read_config(folder: Path) -> BertConfig:
    """Read a folder's config.json.

    :raises WeightsError: before any memory is taken, if it describes a far larger model than the files can hold.
    """
    config = BertConfig.from_folder(folder)
    if _is_far_above(config, numbers_in(folder)):
        held = sum(tensor.numel() for tensor in read_weights(folder).values())  # reports broken files first
        if _is_far_above(config, held):
            raise WeightsError(
                f"{folder / 'config.json'}: must describe the weights beside it, {held:.3g} numbers,"
                f" got at least {min(config.least_parameters, 10**18):.3g} parameters; take both from one place"
            )
    return config


def _is_far_above(config: BertConfig, held: int) -> bool:
    return config.least_parameters > 2 * held + 2**20


def load_encoder(
    own: Mapping[str, Tensor], folder: Path, family: Family, *, drop: Iterable[str] = (), warn: bool = True
) -> LoadReport:
    """Fill an encoder's parameters from a HuggingFace folder, in place.

    :param own: parameters by our names; a pooler is read only where they have one. Heads are dropped and reported.
    :param drop: tensors to leave out, by their names in the file.
    :param warn: log the report's notes.
    :raises InputError: for a name in ``drop`` that the folder does not hold.
    :raises WeightsError: for broken files, and for tensors that are missing, unexpected or do not fit.
    """
    found, notes = find_tensors(folder, family, drop, with_heads=False, with_pooler="pooler.weight" in own), []
    bias = found.tensors.get("pooler.bias")
    if bias is not None and not bool(bias.any()):
        notes.append(
            f"{folder}: the pooler looks untrained (its bias is exactly zero), so pooler_output means little before"
            " fine-tuning; mean or attention pooling does not need it"
        )
        _logger.log(logging.WARNING if warn else logging.DEBUG, notes[0])
    return _fill(own, found, folder, family, notes)


def load_pretraining(
    own: Mapping[str, Tensor], folder: Path, family: Family, *, drop: Iterable[str] = ()
) -> LoadReport:
    """Fill the parameters of an encoder with pretraining heads, in place; see load_encoder.

    A pooler and a next-sentence head are read only where ``own`` has one.
    """
    pooler, following = ("bert.pooler.weight" in own), ("seq_relationship.weight" in own)
    found = find_tensors(folder, family, drop, with_heads=True, with_pooler=pooler, with_next=following)
    return _fill(own, found, folder, family, ())


def save_parameters(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    config: BertConfig,
    folder: Path,
    architecture: str | None = None,
) -> None:
    """Write config.json and model.safetensors under HuggingFace's names.

    :param state: the state dict of an encoder, or of one with pretraining heads.
    :param own: that of a new model of the same configuration, which the files have to fit; on any device.
    :param architecture: HuggingFace's name of the model's class, if not that of the family's encoder.
    :raises WeightsError: if ``state`` has other tensors or shapes, or if the disk refuses.
    """
    _check_parts(state, own, folder)
    make_folder(folder)
    write_tensors(folder / WEIGHTS, {_file_name(name, config.family): t for name, t in state.items()}, {"format": "pt"})
    values = config.to_dict()
    write_json(folder / "config.json", {**values, "architectures": [architecture or config.family.architecture]})


def _file_name(our_name: str, family: Family) -> str:
    """Translate our name into the one in a file, with the family's prefix where a model with heads has ``bert.``."""
    plain = our_name.removeprefix("bert.")
    return (family.prefix if plain != our_name else "") + family.to_hub_name(plain)


def _check_parts(state: Mapping[str, Tensor], own: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse a model of which a part was replaced: nothing could load its files."""
    wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise WeightsError(
            f"{folder}: a model must have the tensors of its config to be saved, got others at"
            f" {listed(wrong)}; merge adapters first, or save a quantized model by torch's own means"
        )
