"""BertModel.encode on the fast path: whole layers as one function each, any other piece by piece."""

import torch
from torch import Tensor, nn

from minbert.attention import MultiHeadAttention
from minbert.fast import parts
from minbert.fast.attention import Heads
from minbert.fast.casts import product_dtype
from minbert.fast.kernels import keep_freed_memory
from minbert.fast.layer import LayerSettings, encoder_layer
from minbert.layers import LayerNorm
from minbert.model import BertLayer, BertModel, Encoded
from minbert.packing import Packing

__all__ = ["encode", "whole_settings"]


def encode(
    model: BertModel,
    input_ids: Tensor,
    token_type_ids: Tensor,
    packing: Packing,
    keep_states: bool,
    keep_attentions: bool,
) -> Encoded:
    """Compute what BertModel.encode computes."""
    keep_freed_memory()
    hidden = parts.call(model.embeddings, input_ids, token_type_ids, packing.positions)  # (tokens, hidden_size)
    states, attentions = [hidden] if keep_states else [], []
    filled: Tensor | None = None  # hidden with the rows that whole layers want beyond the last token
    for layer in model.layers:
        settings = None if keep_attentions else whole_settings(layer, packing, hidden)
        if settings is not None:
            filled = encoder_layer(packing.fill(hidden) if filled is None else filled, settings, _parameters(layer))
            hidden = packing.cut(filled)
        else:
            filled = None
            if type(layer) is BertLayer and not parts.is_watched(layer):
                hidden, weights = parts.layer(layer, hidden, packing, weights=keep_attentions)
            else:
                hidden, weights = layer(hidden, packing)
            if weights is not None and keep_attentions:
                attentions.append(weights)
        if keep_states:
            states.append(hidden)
    pooled = None if model.pooler is None else torch.tanh(parts.call(model.pooler, packing.first(hidden)))
    return Encoded(hidden, pooled, states, attentions)


def whole_settings(layer: nn.Module, packing: Packing, hidden: Tensor) -> LayerSettings | None:
    """Return what a layer computes beside its tensors; None where a replaced or hooked part computes something else."""
    if type(layer) is not BertLayer or parts.is_watched(layer):
        return None
    attention, activation = layer.attention, parts.activation_of(layer)
    rate, attention_rate = parts.dropout_rate(layer.dropout), parts.dropout_rate(attention.dropout)
    linears = (layer.attention_output, layer.intermediate, layer.output)
    if rate is None or attention_rate is None or activation is None:
        return None
    if not (
        parts.is_plain(attention, MultiHeadAttention)
        and all(parts.is_plain(linear, nn.Linear) for linear in (attention.query, attention.key, attention.value))
        and all(parts.is_plain(linear, nn.Linear) for linear in linears)
        and all(parts.is_plain(norm, LayerNorm) for norm in (layer.attention_norm, layer.output_norm))
        and layer.attention_norm.eps == layer.output_norm.eps
    ):
        return None
    heads = Heads(packing, attention.num_heads, attention_rate)
    return LayerSettings(heads, rate, layer.output_norm.eps, activation, product_dtype(hidden))


def _parameters(layer: nn.Module) -> list[Tensor]:
    """Weights and biases in the order of ``encoder_layer``."""
    assert isinstance(layer, BertLayer)
    attention = (layer.attention.query, layer.attention.key, layer.attention.value)
    rest = (layer.attention_output, layer.attention_norm, layer.intermediate, layer.output, layer.output_norm)
    return [parameter for module in (*attention, *rest) for parameter in (module.weight, module.bias)]
