"""Multi-head attention, for the encoder's layers and for attention pooling."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from minbert.layers import Dropout
from minbert.packing import Rows

__all__ = ["MultiHeadAttention", "RelativeAttentionBias", "attention", "relative_buckets"]


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    dropout: Callable[[Tensor], Tensor],
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Average the values by softmax(Q K' / sqrt(head_size)) over each row's real tokens.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; dropout acts on the attention weights, as in BERT.

    :param q: queries (batch, heads, queries, head_size).
    :param k: keys (batch, heads, seq, head_size); ``v``, values, the same.
    :param mask: bool (batch, seq), True at real tokens.
    :param dropout: what becomes of the weights before they are used.
    :param bias: (heads, queries, seq), added to the scaled scores; see RelativeAttentionBias.
    :return: the averages (batch, heads, queries, head_size) and the weights (batch, heads, queries, seq).
    """
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (batch, heads, queries, seq)
    if bias is not None:
        scores = scores + bias
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

    def forward(
        self, hidden: Tensor, rows: Rows, queries: Tensor | None = None, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend to ``hidden``, each row of the batch to its own real tokens alone.

        :param hidden: what is attended to, (tokens, hidden_size).
        :param rows: says which token is whose.
        :param queries: (batch, hidden_size), one query a row; without it each token is a query (self-attention).
        :param bias: (heads, seq, seq), added to the scores of each row.
        :return: the context (tokens, hidden_size), or (batch, hidden_size) with ``queries``; and the weights after
            dropout, (batch, heads, seq, seq), or (batch, heads, 1, seq).
        """
        projected = self.query(hidden if queries is None else queries), self.key(hidden), self.value(hidden)
        return self.attend(*projected, rows, self.dropout, pooled=queries is not None, bias=bias)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rows: Rows,
        dropout: Callable[[Tensor], Tensor],
        *,
        pooled: bool,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute ``forward`` from the projected queries, keys and values.

        :param pooled: whether ``query`` has one vector a row, (batch, hidden_size), and not one a token.
        """
        q = self._split(query[:, None] if pooled else rows.unpack(query))  # (batch, heads, 1 or seq, head_size)
        k, v = self._split(rows.unpack(key)), self._split(rows.unpack(value))  # (batch, heads, seq, head_size)
        averages, weights = attention(q, k, v, rows.mask, dropout, bias)
        context = averages.transpose(1, 2).flatten(2)  # (batch, 1 or seq, hidden_size)
        return (context[:, 0] if pooled else rows.pack(context)), weights

    def _split(self, states: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, heads, length, head_size)."""
        by_head: Tensor = states.unflatten(2, (self.num_heads, -1))  # (batch, length, heads, head_size)
        return by_head.transpose(1, 2)


def relative_buckets(distances: Tensor, num_buckets: int = 32, max_distance: int = 128) -> Tensor:
    """Sort distances between tokens into buckets: half of them for keys before the query, half for those after it.

    Of each half the first half holds one distance each, from 0 on; the others grow with the logarithm of the distance
    up to ``max_distance``, and the last holds all that lies beyond.

    Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.1, for the idea; the formula is that of the released code.

    :param distances: int64, the key's place minus the query's, any shape.
    :param num_buckets: from 4 up to below 4 * max_distance.
    :return: int64, each in [0, num_buckets), the same shape.
    """
    half = num_buckets // 2
    exact = half // 2
    far = distances.abs()
    # In float32, as transformers has it: rounding decides in which bucket a distance on the border falls.
    grown = torch.log(far.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    logarithmic = (exact + grown.long()).clamp(max=half - 1)
    return (distances > 0) * half + torch.where(far < exact, far, logarithmic)


class RelativeAttentionBias(nn.Embedding):
    """A learned number for each head and bucket of distance, which MPNet adds to the scores of every layer.

    ``weight`` (num_buckets, num_heads). Source: Song et al. 2020 (arXiv 2004.09297), released code; Raffel et al. 2020.
    """

    def forward(self, seq: int) -> Tensor:  # type: ignore[override]
        """Compute the bias of rows of ``seq`` columns, padding and holes counted.

        :return: (heads, seq, seq), by query and key.
        """
        places = torch.arange(seq, device=self.weight.device)
        buckets = relative_buckets(places[None, :] - places[:, None], self.num_embeddings)  # (seq, seq)
        return super().forward(buckets).permute(2, 0, 1)
