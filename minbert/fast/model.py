"""BertModel.encode on the fast path: whole layers as one function each, any other piece by piece."""

from collections.abc import Mapping
from functools import partial
from operator import call

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minbert.attention import MultiHeadAttention
from minbert.fast import parts
from minbert.fast.attention import Heads, fitted_bias
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
    relative = model.relative_attention_bias
    bias = None if relative is None else relative(packing.seq_length)  # (heads, seq, seq)
    fitted = None if bias is None else fitted_bias(bias, packing)
    recomputes = model.checkpoint_layers and model.training and torch.is_grad_enabled()
    run = partial(checkpoint, use_reentrant=False) if recomputes else call
    filled: Tensor | None = None  # hidden with the rows that whole layers want beyond the last token
    for layer in model.layers:
        settings = None if keep_attentions else whole_settings(layer, packing, hidden)
        if settings is not None:
            filled = packing.fill(hidden) if filled is None else filled
            filled = run(encoder_layer, filled, settings, _parameters(layer), fitted)
            hidden = packing.cut(filled)
        else:
            filled = None
            if type(layer) is BertLayer and not parts.is_watched(layer):
                hidden, weights = run(partial(parts.layer, weights=keep_attentions), layer, hidden, packing, bias)
            else:
                hidden, weights = run(layer, hidden, packing, *(() if bias is None else (bias,)))
            if weights is not None and keep_attentions:
                attentions.append(weights)
        if keep_states:
            states.append(hidden)
    pooled = None if model.pooler is None else torch.tanh(parts.call(model.pooler, packing.first(hidden)))
    return Encoded(hidden, pooled, states, attentions)


def whole_settings(layer: nn.Module, packing: Packing, hidden: Tensor) -> LayerSettings | None:
    """Return what a layer computes beside its tensors; None where a replaced or hooked part computes something else."""
    if type(layer) is not BertLayer or parts.is_watched(layer) or not _are_plain(layer, _LAYER):
        return None
    attention, activation = layer.attention, parts.activation_of(layer)
    rate, attention_rate = parts.dropout_rate(layer.dropout), parts.dropout_rate(attention.dropout)
    eps = layer.output_LayerNorm.eps
    if rate is None or attention_rate is None or activation is None or layer.attention_LayerNorm.eps != eps:
        return None
    if not _are_plain(attention, _ATTENTION):
        return None
    if not attention.query.out_features == attention.key.out_features == attention.value.out_features:
        return None
    rates = rate if layer.drops_attention_output else 0.0, rate
    return LayerSettings(
        Heads(packing, attention.num_heads, attention_rate), rates, eps, activation, product_dtype(hidden)
    )


def _are_plain(module: nn.Module, kinds: Mapping[str, type[nn.Module]]) -> bool:
    # Not by attribute: torch's look-up of a submodule takes longer than all that is asked of it here.
    return all(parts.is_plain(module._modules.get(name), kind) for name, kind in kinds.items())


_LAYER: dict[str, type[nn.Module]] = {
    "attention": MultiHeadAttention,
    "attention_output": nn.Linear,
    "attention_LayerNorm": LayerNorm,
    "intermediate": nn.Linear,
    "output": nn.Linear,
    "output_LayerNorm": LayerNorm,
}
_ATTENTION: dict[str, type[nn.Module]] = dict.fromkeys(("query", "key", "value"), nn.Linear)


def _parameters(layer: nn.Module) -> list[Tensor]:
    """Weights and biases in the order of ``encoder_layer``."""
    assert isinstance(layer, BertLayer)
    attention = (layer.attention.query, layer.attention.key, layer.attention.value)
    rest = (layer.attention_output, layer.attention_LayerNorm, layer.intermediate, layer.output, layer.output_LayerNorm)
    return [parameter for module in (*attention, *rest) for parameter in (module.weight, module.bias)]
