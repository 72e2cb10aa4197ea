"""A whole encoder layer on the fast path: its forward and its backward pass, each written out in one function.

Beside BertLayer in model.py, which has the same mathematics module by module; tests hold the two together. This saves
autograd's bookkeeping of some forty small steps, the copies between them, and a second cast of each weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minbert.fast.attention import Heads, attention, attention_backward
from minbert.fast.casts import joined
from minbert.fast.kernels import ACTIVATIONS, affine, backward_pass, keep_mask

__all__ = ["LayerSettings", "encoder_layer"]


@dataclass(frozen=True)
class LayerSettings:
    """Non-tensor settings of a layer: attention's plan, dropout, the norms' eps, the activation, the products' type.

    ``dropout`` is the rates on attention's output and on the feed-forward part's.
    """

    heads: Heads
    dropout: tuple[float, float]
    eps: float
    activation: str
    dtype: torch.dtype


def encoder_layer(
    hidden: Tensor, settings: LayerSettings, parameters: Sequence[Tensor], bias: Tensor | None = None
) -> Tensor:
    """Compute one layer of Vaswani et al. 2017, sections 3.1 and 3.3, norms after the residuals.

    :param hidden: packed (slots, hidden_size), in the parameters' type, as is the result.
    :param parameters: weight and bias of query, key, value, attention output, attention norm, intermediate, output and
        output norm: 16 in all.
    :param bias: added to attention's scores, ``fast.attention.fitted_bias``.
    """
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (hidden, bias, *parameters)):
        result: Tensor = _EncoderLayer.apply(hidden, bias, settings, *parameters)  # type: ignore[no-untyped-call]
        return result
    # What a backward pass would need is freed after each half, while still cached.
    attended, _ = _self_attention(hidden, bias, settings, parameters[:10], saving=False)
    return _feed_forward(attended, settings, parameters[10:])[0]


def _self_attention(
    hidden: Tensor, bias: Tensor | None, settings: LayerSettings, parameters: Sequence[Tensor], *, saving: bool = True
) -> tuple[Tensor, Any]:
    """Return norm(x + dropout(attention(x))), and what its backward pass needs."""
    w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o, weight, shift = parameters
    w_qkv, b_qkv = joined((w_q, w_k, w_v), settings.dtype), joined((b_q, b_k, b_v), settings.dtype)
    w_o, b_o = joined((w_o,), settings.dtype), joined((b_o,), settings.dtype)
    x = hidden.to(settings.dtype)
    context, kept, keep_scale = attention(affine(x, w_qkv, b_qkv), settings.heads, bias, saving=saving)
    summed, keep = _residual(hidden, affine(context, w_o, b_o), settings.dropout[0])
    result, mean, rstd = torch.native_layer_norm(summed, weight.shape, weight, shift, settings.eps)
    return result, (keep_scale, kept, (x, w_qkv, context, w_o, keep, summed, mean, rstd, weight, shift))


def _feed_forward(hidden: Tensor, settings: LayerSettings, parameters: Sequence[Tensor]) -> tuple[Tensor, Any]:
    """Return norm(x + dropout(W_u activation(W_i x))), and what its backward pass needs."""
    w_i, b_i, w_u, b_u, weight, shift = parameters
    w_i, b_i, w_u, b_u = (joined((part,), settings.dtype) for part in (w_i, b_i, w_u, b_u))
    x = hidden.to(settings.dtype)
    expanded = affine(x, w_i, b_i)  # (slots, intermediate_size)
    active = ACTIVATIONS[settings.activation](expanded)
    summed, keep = _residual(hidden, affine(active, w_u, b_u), settings.dropout[1])
    result, mean, rstd = torch.native_layer_norm(summed, weight.shape, weight, shift, settings.eps)
    return result, (x, w_i, expanded, active, w_u, keep, summed, mean, rstd, weight, shift)


class _EncoderLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, bias: Tensor | None, settings: LayerSettings, *parameters: Tensor) -> Tensor:
        attended, (ctx.keep_scale, kept, first) = _self_attention(hidden, bias, settings, parameters[:10])
        result, second = _feed_forward(attended, settings, parameters[10:])
        ctx.settings, ctx.attention_tensors = settings, len(kept)
        ctx.save_for_backward(bias if ctx.needs_input_grad[1] else None, *kept, *first, *second)
        return result

    @staticmethod
    @backward_pass
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        settings, (bias, *saved) = ctx.settings, ctx.saved_tensors
        kept, saved = saved[: ctx.attention_tensors], saved[ctx.attention_tensors :]
        x, w_qkv, context, w_o, keep_1, sum_1, mean_1, rstd_1, g_1, c_1 = saved[:10]
        x_1, w_i, expanded, active, w_u, keep_2, sum_2, mean_2, rstd_2, g_2, c_2 = saved[10:]
        dtype = settings.dtype

        d_sum_2, d_g_2, d_c_2 = _norm_backward(gradients[0].contiguous(), sum_2, mean_2, rstd_2, g_2, c_2)
        d_branch = _dropped(d_sum_2, keep_2).to(dtype)
        d_w_u, d_b_u = _linear_backward(d_branch, active, g_2.dtype)
        d_expanded = _activation_backward(d_branch @ w_u, expanded, settings.activation)
        d_w_i, d_b_i = _linear_backward(d_expanded, x_1, g_2.dtype)
        d_attended = d_sum_2.add_(d_expanded @ w_i)

        d_sum_1, d_g_1, d_c_1 = _norm_backward(d_attended, sum_1, mean_1, rstd_1, g_1, c_1)
        d_branch = _dropped(d_sum_1, keep_1).to(dtype)
        d_w_o, d_b_o = _linear_backward(d_branch, context, g_1.dtype)
        d_projected, d_bias = attention_backward(d_branch @ w_o, kept, settings.heads, ctx.keep_scale, bias)
        d_w_qkv, d_b_qkv = _linear_backward(d_projected, x, g_1.dtype)
        d_hidden = d_sum_1.add_(d_projected @ w_qkv) if ctx.needs_input_grad[0] else None

        qkv = (part for pair in zip(d_w_qkv.chunk(3), d_b_qkv.chunk(3), strict=True) for part in pair)
        return (d_hidden, d_bias, None, *qkv, d_w_o, d_b_o, d_g_1, d_c_1, d_w_i, d_b_i, d_w_u, d_b_u, d_g_2, d_c_2)


def _residual(x: Tensor, branch: Tensor, p: float) -> tuple[Tensor, Tensor | None]:
    """Return x + dropout(branch) in the type of ``x``; and the mask, 0 or 1 / (1 - p), if there is one."""
    if p == 0:
        return branch.to(x.dtype).add_(x), None  # in place: the branch is no one else's
    keep, scale = keep_mask(x.shape, p, x)
    keep *= scale
    return torch.addcmul(x, branch.to(x.dtype), keep), keep


def _dropped(gradient: Tensor, keep: Tensor | None) -> Tensor:
    return gradient if keep is None else gradient * keep


def _linear_backward(d_output: Tensor, x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias of x W' + b, in ``dtype``."""
    return (d_output.t() @ x).to(dtype), d_output.sum(0).to(dtype)


def _norm_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of argument, weight and bias of a layer norm over the last axis of ``x``."""
    fused = getattr(torch.ops.aten, "native_layer_norm_backward", None)
    if fused is not None:
        result: tuple[Tensor, Tensor, Tensor] = fused(
            gradient, x, weight.shape, mean, rstd, weight, bias, [True, True, True]
        )
        return result
    normed, scaled = (x - mean) * rstd, gradient * weight
    centred = scaled - scaled.mean(-1, keepdim=True) - normed * (scaled * normed).mean(-1, keepdim=True)
    return centred * rstd, (gradient * normed).sum(0), gradient.sum(0)


def _activation_backward(gradient: Tensor, x: Tensor, activation: str) -> Tensor:
    """Return the gradient of the argument of an activation."""
    if activation == "relu":
        return gradient * (x > 0)
    # One pass of torch's instead of four or more.
    name, options = _FUSED_BACKWARD[activation]
    fused = getattr(torch.ops.aten, name, None)
    if fused is not None:
        result: Tensor = fused(gradient, x, **options)
        return result
    return gradient * _slope(x, activation)


def _slope(x: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        share = torch.sigmoid(x)
        return share * (1 + x * (1 - share))
    if activation == "gelu":
        density = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density
    factor, cubic = math.sqrt(2 / math.pi), 0.044715
    tanh = torch.tanh(factor * (x + cubic * x**3))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh.square()) * factor * (1 + 3 * cubic * x.square())


_FUSED_BACKWARD: dict[str, tuple[str, dict[str, str]]] = {
    "gelu": ("gelu_backward", {}),
    "gelu_tanh": ("gelu_backward", {"approximate": "tanh"}),
    "silu": ("silu_backward", {}),
}
