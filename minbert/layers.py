"""The small parts of a BERT layer, each with its formula written out."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minbert.fast import kernels

__all__ = [
    "ACTIVATIONS",
    "Dropout",
    "Embedding",
    "LayerNorm",
    "Linear",
    "add_residual",
    "gelu",
    "is_watched",
    "joint_linear",
]


class Linear(nn.Linear):
    """x W' + b: (..., in_features) -> (..., out_features). Under autocast the products are in autocast's type."""

    def forward(self, input: Tensor) -> Tensor:
        if kernels.get_kernels() == "fast":
            return kernels.fast_linear(input, [self.weight], [self.bias])
        return super().forward(input)


def joint_linear(x: Tensor, modules: Sequence[nn.Module]) -> Tensor:
    """The outputs of several modules on one input, beside one another: (tokens, in) -> (tokens, sum of out).

    One product where all are plain Linear. What stands in the place of one (an adapter), or watches it (a hook), is
    called as a module is called.
    """
    plain = [module for module in modules if isinstance(module, Linear)]
    if len(plain) == len(modules) and all(type(module) is Linear and not is_watched(module) for module in plain):
        return kernels.fast_linear(x, [module.weight for module in plain], [module.bias for module in plain])
    return torch.cat([module(x) for module in modules], dim=-1)


def is_watched(module: nn.Module) -> bool:
    """Whether a hook, or a forward of the instance's own, wants to see the module called."""
    hooks = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    everywhere = any(getattr(torch.nn.modules.module, f"_global_{name}", None) for name in hooks)
    return everywhere or "forward" in vars(module) or any(getattr(module, f"_{name}") for name in hooks)


class Embedding(nn.Embedding):
    """A row of a table for each id: int64 (tokens,) -> (tokens, embedding_dim); the padding id's row never learns."""

    def forward(self, input: Tensor) -> Tensor:
        if kernels.get_kernels() == "fast":
            return kernels.fast_embedding(self.weight, input, self.padding_idx)
        return super().forward(input)


class LayerNorm(nn.Module):
    """Normalise over the last axis, then scale and shift: (..., hidden_size) -> (..., hidden_size).

    Source: Ba et al. 2016 (arXiv 1607.06450), equation 4; variance without Bessel's correction, ``eps`` inside the
    root. BERT's eps is 1e-12. Computed in the parameters' type, which autocast leaves at float32, and given back in
    the input's.
    """

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels.get_kernels() == "fast":
            return kernels.fast_layer_norm(x.to(self.weight.dtype), self.weight, self.bias, self.eps).to(x.dtype)
        wide = x.to(self.weight.dtype)
        centred = wide - wide.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return (self.weight * centred / (variance + self.eps).sqrt() + self.bias).to(x.dtype)


class Dropout(nn.Module):
    """Zero each element with probability ``p`` and scale the rest by 1 / (1 - p), in train mode; any shape.

    Source: Srivastava et al. 2014, in the inverted form. Draws from torch's default generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    @property
    def rate(self) -> float:
        """The probability in force: ``p``, or 0 in eval mode."""
        return self.p if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0:
            return x
        if kernels.get_kernels() == "fast":
            return kernels.fast_dropout(x, self.p)
        keep = torch.rand(x.shape, device=x.device) >= self.p
        return x * keep / (1 - self.p)

    def residual(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + dropout(branch), any one shape; the sum is in the type of ``x``."""
        if self.rate > 0 and kernels.get_kernels() == "fast":
            return kernels.fast_dropout_residual(x, branch, self.p)
        return x + self(branch)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def add_residual(x: Tensor, branch: Tensor, dropout: nn.Module) -> Tensor:
    """x + dropout(branch), also where something else stands in the place of a Dropout."""
    if isinstance(dropout, Dropout) and not is_watched(dropout):
        return dropout.residual(x, branch)
    added: Tensor = x + dropout(branch)
    return added


def gelu(x: Tensor) -> Tensor:
    """x times the standard normal distribution function of x, exact through erf; any shape.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2. Not the tanh approximation.
    """
    if kernels.get_kernels() == "fast":
        return kernels.fast_gelu(x)
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": torch.relu}
