"""Find a model's tensors among those of a folder: what stands before their names, which are heads', which nobody's."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from minbert.errors import InputError, WeightsError, listed
from minbert.families.family import Family, is_head, is_old_name
from minbert.files.weights_folder import read_weights

__all__ = ["Found", "find_tensors", "lead_of"]

# Every encoder has it: what stands before it in a file stands before all of the encoder's names.
_WORDS = "embeddings.word_embeddings.weight"
# Tensors that are not parameters of their own: buffers of old files, and copies of parameters (by our names).
_BUFFERS = re.compile(r"embeddings\.(position_ids|token_type_ids)")
_DECODERS = ("cls.predictions.decoder", "lm_head.decoder", "vocab_projector")
_TIED = {f"{name}.weight": f"bert.{_WORDS}" for name in _DECODERS}
_TIED |= {f"{name}.bias": "prediction_bias" for name in _DECODERS[:2]}
# Our names of the pretraining heads begin so; the encoder's stand under "bert." beside them.
_HEADS = ("transform", "prediction_bias", "seq_relationship")


@dataclass
class Found:
    """Tensors of a folder that a model may want, by our names; what was done to them on the way.

    ``names``: theirs in the file; ``lead``: what stands before an encoder's names there, of which ``prefix`` is the
    part that is not the family's; ``extra``: tensors that can't be the model's.
    """

    prefix: str = ""
    lead: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    renamed: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def expected(self, our_name: str, family: Family) -> str:
        """Return the name that a tensor would have in the file."""
        name = family.to_hub_name(our_name.removeprefix("bert."))
        return (self.prefix if our_name.startswith(_HEADS) else self.lead) + name


def lead_of(names: Iterable[str]) -> str | None:
    """Return what stands before an encoder's names in a file, None where there is no encoder.

    Of several encoders it is the one with the least before its names; the others' tensors are extra.
    """
    leads = {name.removesuffix(_WORDS) for name in names if name.endswith(_WORDS)}
    return min(sorted(lead for lead in leads if lead == "" or lead.endswith(".")), key=len, default=None)


def find_tensors(
    folder: Path, family: Family, drop: Iterable[str], with_heads: bool, with_pooler: bool, with_next: bool = True
) -> Found:
    """Read a folder's tensors under our names, without those that may be left out.

    :param with_heads: for a model with pretraining heads, whose encoder's names begin with ``bert.``.
    :param with_next: whether the next-sentence head is one of them.
    :raises InputError: for a name in ``drop`` that the folder does not hold.
    :raises WeightsError: for broken files, and for copies of tied parameters that differ.
    """
    read = read_weights(folder)
    dropped = [drop] if isinstance(drop, str) else list(drop)
    if absent := [name for name in dropped if name not in read]:
        raise InputError(f"drop: must name tensors of {folder}, got {listed(absent)}")
    kept = {name: tensor for name, tensor in read.items() if name not in dropped}
    lead = lead_of(kept)
    if lead is None:  # reported as missing, with all else that is wrong
        lead = family.prefix if any(name.startswith(family.prefix) for name in kept) else ""
    within = lead == family.prefix or lead.endswith(f".{family.prefix}")
    prefix = lead.removesuffix(family.prefix) if within else lead
    found = Found(prefix, lead, dropped=dropped)
    for name, tensor in kept.items():
        inner = name.removeprefix(prefix)
        plain = inner.removeprefix(family.prefix) if within else inner
        left_out = plain == inner and is_head(plain) and not with_heads
        left_out |= plain.startswith("pooler.") and not with_pooler
        ours = family.to_our_name(plain)
        left_out |= ours.startswith("seq_relationship") and not with_next
        if with_heads and not ours.startswith(_HEADS):
            ours = f"bert.{ours}"
        if not name.startswith(prefix) or ours in found.tensors:
            found.extra.append(name)
        elif left_out or plain in _TIED or _BUFFERS.fullmatch(plain):
            found.dropped.append(name)
            if with_heads and plain in _TIED:
                _check_tied(folder, name, tensor, kept.get(found.expected(_TIED[plain], family)))
        else:
            found.tensors[ours], found.names[ours] = tensor, name
            if is_old_name(plain):
                found.renamed.append(name)
    return found


def _check_tied(folder: Path, name: str, tensor: Tensor, original: Tensor | None) -> None:
    """Check that the copy of a tied parameter, which is left out, equals the original.

    :raises WeightsError: if it does not.
    """
    if original is None or not torch.equal(original, tensor):
        raise WeightsError(f"{folder}: {name} must equal the parameter that it is a copy of here, got other values")
