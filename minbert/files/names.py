"""Translate names of tensors between HuggingFace's files and this package: one table, read in both directions."""

import re
from collections.abc import Iterable

__all__ = ["is_old_name", "to_hub_name", "to_our_name"]

# HuggingFace's name, ours. The first match is taken, so order matters; saving reads the table from right to left.
_RENAMES = (
    ("encoder.layer.#.attention.self.", "layers.#.attention."),
    ("encoder.layer.#.attention.output.dense.", "layers.#.attention_output."),
    ("encoder.layer.#.attention.output.LayerNorm.", "layers.#.attention_LayerNorm."),
    ("encoder.layer.#.intermediate.dense.", "layers.#.intermediate."),
    ("encoder.layer.#.output.dense.", "layers.#.output."),
    ("encoder.layer.#.output.LayerNorm.", "layers.#.output_LayerNorm."),
    ("pooler.dense.", "pooler."),
    ("cls.predictions.transform.dense.", "transform."),
    ("cls.predictions.transform.LayerNorm.", "transform_LayerNorm."),
    ("cls.predictions.bias", "prediction_bias"),
    ("cls.seq_relationship.", "seq_relationship."),
)
# Old TensorFlow names, read but never written; only a LayerNorm's, since other names may end alike.
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str:
    for old, new in table:
        match = re.match("^" + re.escape(old).replace(r"\#", r"(\d+)"), name)
        if match:
            return new.replace("#", match[1] if match.groups() else "") + name[match.end() :]
    return name


def to_our_name(hub_name: str) -> str:
    """Translate HuggingFace's name of a tensor, without ``bert.``, into ours; old LayerNorm names included."""
    for pattern, new in _LEGACY:
        hub_name = pattern.sub(new, hub_name)
    return _rename(hub_name, _RENAMES)


def to_hub_name(our_name: str) -> str:
    """Translate our name of a tensor into HuggingFace's, without ``bert.``."""
    return _rename(our_name, [(ours, theirs) for theirs, ours in _RENAMES])


def is_old_name(hub_name: str) -> bool:
    """Say whether HuggingFace's name of a tensor is one of the old TensorFlow names."""
    return any(pattern.search(hub_name) for pattern, _ in _LEGACY)
