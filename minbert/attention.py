"""Multi-head attention over packed tokens, for the encoder's layers and for attention pooling."""

import math

from torch import Tensor, nn

from minbert.fast import kernels
from minbert.fast.attention import pooled_attention, self_attention
from minbert.layers import Dropout, Linear, joint_linear
from minbert.packing import Packing

__all__ = ["MultiHeadAttention"]


class MultiHeadAttention(nn.Module):
    """Attention of several heads, without the output projection, which stands beside it in whatever uses it.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; dropout acts on the attention weights, as in BERT.

    :param hidden_size: width of tokens and queries; a multiple of ``num_heads``.
    :param num_heads: heads, each of hidden_size / num_heads of the width.
    :param dropout: probability that an attention weight is dropped in train mode.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(hidden_size, hidden_size)
        self.key = Linear(hidden_size, hidden_size)
        self.value = Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, packing: Packing, queries: Tensor | None = None) -> Tensor:
        """Attend to ``hidden``, each row of the batch to its own real tokens alone.

        :param hidden: keys and values, packed (tokens, hidden_size).
        :param packing: says which token is whose.
        :param queries: (batch, hidden_size), one query a row; without it each token is a query (self-attention).
        :return: (batch, hidden_size) with ``queries``, else packed (tokens, hidden_size).
        """
        if kernels.get_kernels() == "reference":
            return self.forward_with_weights(hidden, packing, queries)[0]
        p = self.dropout.rate
        if queries is None:
            projected = joint_linear(hidden, (self.query, self.key, self.value))  # (tokens, 3 * hidden_size)
            return self_attention(projected, packing, self.num_heads, p)
        projected = joint_linear(hidden, (self.key, self.value))  # (tokens, 2 * hidden_size)
        return pooled_attention(self.query(queries), projected, packing, self.num_heads, p)

    def forward_with_weights(
        self, hidden: Tensor, packing: Packing, queries: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same, written out, and the attention weights.

        :return: the context as ``forward`` gives it, and the weights (batch, heads, seq, seq), or
            (batch, heads, 1, seq) with ``queries``; zero where a query or a key is masked.
        """
        query = packing.unpack(self.query(hidden)) if queries is None else self.query(queries)[:, None]
        q = self._split(query)  # (batch, heads, queries, head_size), queries = seq or 1
        k, v = (self._split(packing.unpack(part(hidden))) for part in (self.key, self.value))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (batch, heads, queries, seq)
        weights = scores.masked_fill(~packing.mask[:, None, None, :], -math.inf).softmax(-1)
        if queries is None:
            weights = weights * packing.mask[:, None, :, None]
        attended = self.dropout(weights)
        context = (attended @ v).transpose(1, 2).flatten(2)  # (batch, queries, hidden_size)
        return (packing.pack(context) if queries is None else context[:, 0]), attended

    def _split(self, states: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, heads, length, head_size)."""
        return states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
