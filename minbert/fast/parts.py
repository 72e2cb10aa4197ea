"""From a part of the book to its fast counterpart: the one table, and who may not be replaced by it.

A part is plain if its type is exactly the one in the table, its tensors are torch's own, and nothing watches it. A
replaced part (an adapter, a quantized linear), one without a bias, or one with a hook is called as any module is, on
the real tokens alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _torch_module

from minbert.attention import MultiHeadAttention
from minbert.fast import kernels
from minbert.fast.attention import pooled_attention, self_attention
from minbert.fast.embedding import embedding
from minbert.layers import Dropout, LayerNorm, gelu, gelu_tanh, silu
from minbert.model import BertEmbeddings, BertLayer
from minbert.packing import Packing

__all__ = [
    "activation_of",
    "attention",
    "call",
    "counterpart_of",
    "dropout_rate",
    "embeddings",
    "is_plain",
    "is_watched",
    "layer",
]

Counterpart = TypeVar("Counterpart", bound=Callable[..., Any])
_COUNTERPARTS: dict[type[nn.Module], Callable[..., Any]] = {}


def counterpart_of(kind: type[nn.Module]) -> Callable[[Counterpart], Counterpart]:
    """Register the function that computes modules of exactly this type, from a module and its arguments."""

    def enter(function: Counterpart) -> Counterpart:
        _COUNTERPARTS[kind] = function
        return function

    return enter


def call(module: nn.Module, *arguments: Any) -> Any:
    """Compute ``module(*arguments)``, by its counterpart where it is plain."""
    counterpart = _COUNTERPARTS.get(type(module))
    if counterpart is None or is_watched(module):
        return module(*arguments)
    return counterpart(module, *arguments)


def is_watched(module: nn.Module) -> bool:
    """Return whether a hook, or a method of the instance's own, wants to see the module called."""
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or not own.keys().isdisjoint(_METHODS)
        or any(map(vars(_torch_module).get, _FOR_ALL))
    )


_METHODS = ("attend", "encode", "forward")
# torch's hooks on every module there is.
_FOR_ALL = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def is_plain(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Return whether a module may be computed from its tensors as one of type ``kind``."""
    if module is None or type(module) is not kind or is_watched(module):
        return False
    tensors = module._parameters.values()
    if any(type(tensor) is not nn.Parameter and type(tensor) is not Tensor for tensor in tensors):
        return False  # no bias, or a tensor with ways of its own, such as a quantized one
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.sparse and not module.scale_grad_by_freq
    return True


def dropout_rate(module: nn.Module) -> float | None:
    """Return the rate in force of a dropout, torch's own and nn.Identity included; None for anything else."""
    if type(module) not in (Dropout, nn.Dropout, nn.Identity) or is_watched(module):
        return None
    rate: float = getattr(module, "p", 0.0) if module.training else 0.0
    return rate if rate < 1 else None


def activation_of(layer: BertLayer) -> str | None:
    """Return the name of a layer's activation; None for one without a fused counterpart."""
    return _NAMES.get(layer.activation)


_NAMES = {gelu: "gelu", gelu_tanh: "gelu_tanh", torch.relu: "relu", silu: "silu"}


@counterpart_of(nn.Linear)
def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """(..., in_features) -> (..., out_features)."""
    if not is_plain(module, nn.Linear):
        projected: Tensor = module(x)
        return projected
    return kernels.linear(x, [module.weight], [module.bias])


def joint_linear(x: Tensor, modules: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """Compute several modules on one input: (tokens, in) -> (tokens, out) each.

    One product where all are plain linears of one width.
    """
    plain = [module for module in modules if isinstance(module, nn.Linear) and is_plain(module, nn.Linear)]
    if len(plain) == len(modules) and len({module.out_features for module in plain}) == 1:
        joint = kernels.linear(x, [module.weight for module in plain], [module.bias for module in plain])
        return joint.chunk(len(plain), dim=-1)
    return tuple(call(module, x) for module in modules)


@counterpart_of(nn.Embedding)
def embed(module: nn.Embedding, ids: Tensor) -> Tensor:
    """Int64 (tokens,) -> (tokens, embedding_dim)."""
    if not is_plain(module, nn.Embedding):
        found: Tensor = module(ids)
        return found
    return embedding(module.weight, ids, module.padding_idx)


@counterpart_of(LayerNorm)
def layer_norm(module: LayerNorm, x: Tensor) -> Tensor:
    """Any shape -> the same."""
    return kernels.layer_norm(x.to(module.weight.dtype), module.weight, module.bias, module.eps).to(x.dtype)


@counterpart_of(Dropout)
def dropout(module: Dropout, x: Tensor) -> Tensor:
    """Any shape -> the same."""
    rate = dropout_rate(module)
    if rate is None:
        dropped: Tensor = module(x)
        return dropped
    return kernels.dropout(x, rate)


def residual(x: Tensor, branch: Tensor, module: nn.Module) -> Tensor:
    """Add dropout(branch) to ``x``, in its type, for any module in the dropout slot."""
    rate = dropout_rate(module)
    if rate is None or rate == 0:
        added: Tensor = x + (branch if rate == 0 else module(branch))
        return added
    return kernels.dropout_residual(x, branch, rate)


@counterpart_of(MultiHeadAttention)
def attention(
    module: MultiHeadAttention,
    hidden: Tensor,
    packing: Packing,
    queries: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute MultiHeadAttention.forward; the weights only if they are asked for."""
    rate = dropout_rate(module.dropout)
    if queries is None:
        query, key, value = joint_linear(hidden, (module.query, module.key, module.value))  # (tokens, hidden_size) each
    else:
        query, (key, value) = call(module.query, queries), joint_linear(hidden, (module.key, module.value))
    if rate is not None and not weights and query.shape[1] == key.shape[1] == value.shape[1]:
        if queries is None:
            return self_attention(torch.cat((query, key, value), dim=1), packing, module.num_heads, rate, bias), None
        return pooled_attention(query, torch.cat((key, value), dim=1), packing, module.num_heads, rate), None

    def dropped(states: Tensor) -> Tensor:
        result: Tensor = call(module.dropout, states)
        return result

    return module.attend(query, key, value, packing, dropped, pooled=queries is not None, bias=bias)


@counterpart_of(BertEmbeddings)
def embeddings(module: BertEmbeddings, input_ids: Tensor, token_type_ids: Tensor, positions: Tensor) -> Tensor:
    """Three int64 (tokens,) -> (tokens, hidden_size)."""
    summed = call(module.word_embeddings, input_ids)
    if module.token_type_embeddings is not None:
        summed = summed + module.token_type_embeddings(token_type_ids)
    embedded: Tensor = call(module.dropout, call(module.LayerNorm, summed + module.position_embeddings(positions)))
    return embedded


@counterpart_of(BertLayer)
def layer(
    module: BertLayer, hidden: Tensor, packing: Packing, bias: Tensor | None = None, *, weights: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Compute a layer piece by piece: (tokens, hidden_size) -> the same, and its weights if they are asked for."""
    if is_plain(module.attention, MultiHeadAttention):
        context, found = attention(module.attention, hidden, packing, bias=bias, weights=weights)
    else:
        context, found = module.attention(hidden, packing, **({} if bias is None else {"bias": bias}))
    branch = call(module.attention_output, context)
    added = residual(hidden, branch, module.dropout) if module.drops_attention_output else hidden + branch
    attended = call(module.attention_LayerNorm, added)
    expanded = call(module.intermediate, attended)  # (tokens, intermediate_size)
    name = activation_of(module)
    active = module.activation(expanded) if name is None else kernels.ACTIVATIONS[name](expanded)
    return call(module.output_LayerNorm, residual(attended, call(module.output, active), module.dropout)), found
