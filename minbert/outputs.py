"""What an encoder gives back: its states, packed as they were computed, and padded when someone asks."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minbert.packing import PaddedRows, Rows

__all__ = ["BertOutput", "Encoded"]


@dataclass
class Encoded:
    """An encoder's states before they are laid out for a reader: what ``BertModel.encode`` gives back.

    ``hidden`` (tokens, hidden_size); ``pooled`` (batch, hidden_size), None without a pooler; ``states`` and
    ``attentions``, a list each, empty unless asked for.
    """

    hidden: Tensor
    pooled: Tensor | None
    states: list[Tensor]
    attentions: list[Tensor]


@dataclass
class BertOutput:
    """What an encoder gives back. Padded views are made when they are asked for.

    - ``packed`` (tokens, hidden_size): the last layer's hidden states of real tokens; ``packing`` says whose.
    - ``last_hidden_state`` (batch, seq, hidden_size): the same, zero at masked positions.
    - ``pooler_output`` (batch, hidden_size): tanh(W h + b) of each row's first token; None without a pooler.
    - ``hidden_states``: embeddings and each layer, (batch, seq, hidden_size) each; None unless asked for.
    - ``attentions``: each layer's weights, (batch, heads, seq, seq), after dropout in train mode, zero where a query
      or a key is masked; None unless asked for.
    """

    packed: Tensor
    packing: Rows
    pooler_output: Tensor | None
    packed_hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    _unpacked: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def last_hidden_state(self) -> Tensor:
        """(batch, seq, hidden_size), zero at masked positions."""
        # Kept by hand: functools.cached_property holds a lock, which torch.export can't trace.
        if self._unpacked is None:
            self._unpacked = self.packing.unpack(self.packed)
        return self._unpacked

    @property
    def hidden_states(self) -> tuple[Tensor, ...] | None:
        """Embeddings and each layer, (batch, seq, hidden_size) each; None unless asked for."""
        if self.packed_hidden_states is None:
            return None
        return tuple(self.packing.unpack(states) for states in self.packed_hidden_states)


# An exported forward may give back what the model's own does.
torch.export.register_dataclass(PaddedRows, serialized_type_name="minbert.PaddedRows")
torch.export.register_dataclass(BertOutput, serialized_type_name="minbert.BertOutput")
