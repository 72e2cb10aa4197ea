"""Fused counterparts of the formulas in layers.py, by the same names: the same mathematics in fewer passes."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minbert.errors import InputError
from minbert.fast.casts import joined, product_dtype
from minbert.packing import FILL

__all__ = [
    "ACTIVATIONS",
    "affine",
    "backward_pass",
    "dropout",
    "dropout_residual",
    "keep_freed_memory",
    "keep_mask",
    "layer_norm",
    "linear",
]


def backward_pass(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a written-out backward pass follow its forward pass's types, and refuse to be differentiated itself.

    :raises InputError: from a backward pass with ``create_graph=True``, instead of gradients without a graph.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise InputError(
                "second derivatives need the reference path: call the model within `with minbert.kernels('reference'):`"
            )
        with torch.autocast(gradients[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    return checked


def keep_mask(shape: torch.Size, p: float, like: Tensor) -> tuple[Tensor, float]:
    """Draw 1 with probability 1 - p, else 0, in the type and on the device of ``like``; and the exact 1 / P(1).

    torch's CPU ``bernoulli_`` draws each element one after another. 8 raw random bits against a threshold cost a
    thirtieth of it, from the same generator, so seeds and resuming hold; p is rounded to a multiple of 1/256, to 1/256
    at least. Numbers, not bools: a product with them is one vectorised pass, torch.where several times that.
    """
    keep = torch.empty(shape, dtype=like.dtype, device=like.device)
    if like.device.type != "cpu":
        return torch.ge(torch.rand(shape, device=like.device), p, out=keep), 1 / (1 - p)
    dropped = min(max(round(p * 256), 1), 255)
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    torch.ge(words.view(torch.int8)[:count].view(shape), dropped - 128, out=keep)
    return keep, 256 / (256 - dropped)


def dropout(x: Tensor, p: float) -> Tensor:
    """Drop elements with probability ``p`` in [0, 1), as layers.dropout does; any shape."""
    if p == 0:
        return x
    keep, scale = keep_mask(x.shape, p, x)
    return (x * keep).mul_(scale)


def dropout_residual(x: Tensor, branch: Tensor, p: float) -> Tensor:
    """Add dropout(branch) to ``x`` in one pass, in the type of ``x``."""
    keep, scale = keep_mask(x.shape, p, x)
    return torch.addcmul(x, branch.to(x.dtype), keep, value=scale)


def linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Compute x W' + b with the rows of all ``weights`` below one another: (..., in) -> (..., sum of out).

    In bfloat16 the rows are rounded up, see packing.FILL.
    """
    dtype, rows = product_dtype(x), x.shape[:-1].numel()
    if dtype == torch.bfloat16 and rows > FILL and rows % FILL:
        filled = F.pad(x.flatten(0, -2), (0, 0, 0, -rows % FILL))
        result: Tensor = linear(filled, weights, biases)[:rows].unflatten(0, x.shape[:-1])
        return result
    return F.linear(x.to(dtype), joined(weights, dtype), joined(biases, dtype))


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute x W' + b without a gradient: (rows, in) -> (rows, out), all of one type."""
    # Private to torch: oneDNN adds the bias within the product, where F.linear first writes it to each row.
    if _linear_pointwise is not None and x.dtype == torch.bfloat16 and x.device.type == "cpu":
        result: Tensor = _linear_pointwise(x, weight, bias, "none", [], "")
        return result
    return F.linear(x, weight, bias)


_linear_pointwise = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)


@cache
def keep_freed_memory() -> None:
    """Have the C library keep some 64 MB that are given back to it, once a process.

    The activations of a forward pass, a few MB each, would go back to the system when freed and be taken again page by
    page: a tenth of a pass over 1,000 tokens. glibc does so up to sizes that it has seen come and go once; elsewhere
    this does nothing.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize by torch's fused layer norm: (..., hidden_size) -> the same."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


# By the names of the functions in layers.py.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": torch.relu,
    "silu": F.silu,
}
