"""Multi-head attention, for the encoder's layers and for attention pooling."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from minbert.layers import Dropout
from minbert.packing import Rows

__all__ = ["MultiHeadAttention", "attention"]


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Average the values by softmax(Q K' / sqrt(head_size)) over each row's real tokens.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; dropout acts on the attention weights, as in BERT.

    :param q: queries (batch, heads, queries, head_size).
    :param k: keys (batch, heads, seq, head_size); ``v``, values, the same.
    :param mask: bool (batch, seq), True at real tokens.
    :param dropout: what becomes of the weights before they are used.
    :return: the averages (batch, heads, queries, head_size) and the weights (batch, heads, queries, seq).
    """
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (batch, heads, queries, seq)
    weights = dropout(scores.masked_fill(~mask[:, None, None, :], -math.inf).softmax(-1))
    return weights @ v, weights


class MultiHeadAttention(nn.Module):
    """Attention in several heads; callers own the output projection.

    Source: Vaswani et al. 2017, section 3.2.2.

    :param hidden_size: width of tokens and queries; a multiple of ``num_heads``.
    :param num_heads: heads, each of head_size = hidden_size / num_heads of the width.
    :param dropout: probability that an attention weight is dropped in train mode.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, rows: Rows, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend to ``hidden``, each row of the batch to its own real tokens alone.

        :param hidden: what is attended to, (tokens, hidden_size).
        :param rows: says which token is whose.
        :param queries: (batch, hidden_size), one query a row; without it each token is a query (self-attention).
        :return: the context (tokens, hidden_size), or (batch, hidden_size) with ``queries``; and the weights after
            dropout, (batch, heads, seq, seq), or (batch, heads, 1, seq).
        """
        projected = self.query(hidden if queries is None else queries), self.key(hidden), self.value(hidden)
        return self.attend(*projected, rows, self.dropout, pooled=queries is not None)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rows: Rows,
        dropout: Callable[[Tensor], Tensor],
        *,
        pooled: bool,
    ) -> tuple[Tensor, Tensor]:
        """Compute ``forward`` from the projected queries, keys and values.

        :param pooled: whether ``query`` has one vector a row, (batch, hidden_size), and not one a token.
        """
        q = self._split(query[:, None] if pooled else rows.unpack(query))  # (batch, heads, 1 or seq, head_size)
        k, v = self._split(rows.unpack(key)), self._split(rows.unpack(value))  # (batch, heads, seq, head_size)
        averages, weights = attention(q, k, v, rows.mask, dropout)
        context = averages.transpose(1, 2).flatten(2)  # (batch, 1 or seq, hidden_size)
        return (context[:, 0] if pooled else rows.pack(context)), weights

    def _split(self, states: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, heads, length, head_size)."""
        by_head: Tensor = states.unflatten(2, (self.num_heads, -1))  # (batch, length, heads, head_size)
        return by_head.transpose(1, 2)
