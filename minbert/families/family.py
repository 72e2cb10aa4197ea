"""What may differ between encoders that are BERT but for a detail: a table of data, read in both directions."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Family", "is_head", "is_old_name"]

# Fields that transformers reads by their own names, too, where a family has others for them.
_COMMON = ("hidden_size", "num_attention_heads", "num_hidden_layers")
# What names of tensors of transformers' heads begin with; no encoder's begin so.
_HEADS = (
    "classifier.",
    "cls.",
    "lm_head.",
    "pre_classifier.",
    "qa_outputs.",
    "score.",
    "vocab_layer_norm.",
    "vocab_projector.",
    "vocab_transform.",
)
# Old TensorFlow names, read but never written; only a LayerNorm's, since other names may end alike.
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"), (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of encoder, as HuggingFace names it.

    :param model_type: its name in config.json; ``architecture`` is that of transformers' class.
    :param prefix: what its tensors' names begin with in the files of a model with heads.
    :param renames: HuggingFace's name of a tensor, without the prefix, and ours; ``#`` is a number. The first match
        is taken, so order matters.
    :param keys: config.json's key for a field of BertConfig that it does not call by the field's own name.
    :param defaults: of fields that a config.json leaves out, where they are not BertConfig's.
    :param fixed: fields of which the family knows one value; what a config.json says of them is not read.
    :param positions_from_ids: whether the first token's position is pad_token_id + 1, and padding is not counted.
    :param has_pooler: whether there is one that a checkpoint may hold.
    :param drops_attention_output: whether dropout acts on the attention's output before it is added.
    :param head_act: the activation in the masked-language-model head, where it is not the layers'.
    """

    model_type: str
    architecture: str
    prefix: str
    renames: tuple[tuple[str, str], ...]
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    positions_from_ids: bool = False
    has_pooler: bool = True
    drops_attention_output: bool = True
    head_act: str | None = None

    def read_config(self, values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
        """Return the arguments of BertConfig that config.json's values amount to; its other keys are left out."""
        known: dict[str, Any] = {"model_type": self.model_type, **self.defaults}
        for name in fields:
            value = values.get(self.keys.get(name, name))
            if value is None and name in _COMMON:
                value = values.get(name)
            if value is not None:
                known[name] = value
        return {**known, **self.fixed}

    def write_config(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return config.json's values of a BertConfig's fields, without those that the family has no part for."""
        none = {name for name, value in self.fixed.items() if value == 0}
        return {self.keys.get(name, name): value for name, value in fields.items() if name not in none}

    def to_our_name(self, hub_name: str) -> str:
        """Translate HuggingFace's name of a tensor, without the prefix, into ours; old LayerNorm names included."""
        for pattern, new in _LEGACY:
            hub_name = pattern.sub(new, hub_name)
        return _rename(hub_name, self.renames)

    def to_hub_name(self, our_name: str) -> str:
        """Translate our name of a tensor into HuggingFace's, without the prefix."""
        return _rename(our_name, [(ours, theirs) for theirs, ours in self.renames])

    def but(self, **changes: Any) -> "Family":
        """Return the same with other values of some fields."""
        return dataclasses.replace(self, **changes)


def is_head(hub_name: str) -> bool:
    """Say whether a name, as it stands in a file beside the prefix, is that of a head's tensor."""
    return hub_name.startswith(_HEADS)


def is_old_name(hub_name: str) -> bool:
    """Say whether HuggingFace's name of a tensor is one of the old TensorFlow names."""
    return any(pattern.search(hub_name) for pattern, _ in _LEGACY)


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str:
    for old, new in table:
        match = re.match("^" + re.escape(old).replace(r"\#", r"(\d+)"), name)
        if match:
            return new.replace("#", match[1] if match.groups() else "") + name[match.end() :]
    return name
