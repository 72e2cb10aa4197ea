"""The small parts of a BERT layer: each formula written out, and a module around it where it has weights or a rate.

All of them act on the last axis or on single elements, so any leading shape will do: (batch, seq, hidden_size) as in
the papers, or (tokens, hidden_size), the real tokens of a batch one after another (packing.py).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Dropout", "LayerNorm", "dropout", "gelu", "gelu_tanh", "layer_norm", "silu"]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize over the last axis, then scale and shift: (..., hidden_size) -> (..., hidden_size).

    Source: Ba et al. 2016 (arXiv 1607.06450), equation 4. The variance is the mean square, without Bessel's
    correction, and ``eps`` stands inside the root.
    """
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return weight * centred / (variance + eps).sqrt() + bias


class LayerNorm(nn.LayerNorm):
    """``layer_norm`` with a learned weight and bias, both (hidden_size,).

    A torch.nn.LayerNorm to whatever looks for one; the forward pass is ours. Computed in the parameters' type, which
    autocast leaves at float32, and given back in the input's.

    :param hidden_size: width of the last axis.
    :param eps: added to the variance; BERT's is 1e-12.
    """

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__(hidden_size, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        """(..., hidden_size) -> the same."""
        return layer_norm(input.to(self.weight.dtype), self.weight, self.bias, self.eps).to(input.dtype)


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability ``p`` in [0, 1) and scale the rest by 1 / (1 - p); any shape.

    Source: Srivastava et al. 2014 (JMLR 15), section 4, in the inverted form, which scales when training and not when
    testing. Draws from torch's default generator.
    """
    keep = torch.rand(x.shape, device=x.device) >= p
    return x * keep / (1 - p)


class Dropout(nn.Dropout):
    """``dropout`` at the rate ``p`` in train mode, nothing in eval mode.

    A torch.nn.Dropout to whatever looks for one; the forward pass is ours.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training or self.p == 0:
            return input
        return dropout(input, self.p) if self.p < 1 else torch.zeros_like(input)


def gelu(x: Tensor) -> Tensor:
    """Multiply x by the standard normal distribution function of x, exact through erf; any shape.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2. Not the tanh approximation.
    """
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x: Tensor) -> Tensor:
    """Approximate ``gelu`` through tanh; any shape.

    Source: Hendrycks and Gimpel 2016, section 2; HuggingFace's gelu_new and gelu_pytorch_tanh are both this.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x: Tensor) -> Tensor:
    """Multiply x by the logistic function of x; any shape.

    Source: Hendrycks and Gimpel 2016, section 2, which has the logistic in place of the normal distribution there.
    """
    return x * torch.sigmoid(x)


# By HuggingFace's names.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "relu": torch.relu,
    "silu": silu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
}
