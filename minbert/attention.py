"""Multi-head attention over packed tokens, for the encoder's layers and for attention pooling."""

import math

import torch
from torch import Tensor, nn

from minbert import kernels
from minbert.layers import Dropout
from minbert.packing import Group, Packing

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
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
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
        query = self.query(hidden if queries is None else queries[packing.order])
        p = self.dropout.p if self.training else 0.0
        pooled = queries is not None
        context = kernels.fast_attention(
            query, self.key(hidden), self.value(hidden), packing, self.num_heads, p, pooled=pooled
        )
        return context[packing.rank] if pooled else context

    def forward_with_weights(
        self, hidden: Tensor, packing: Packing, queries: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same, written out, and the attention weights.

        :return: the context as ``forward`` gives it, and the weights (batch, heads, seq, seq), or
            (batch, heads, 1, seq) with ``queries``; zero where a query or a key is masked.
        """
        query = self.query(hidden if queries is None else queries[packing.order])
        key, value = self.key(hidden), self.value(hidden)  # both (tokens, hidden_size)
        num_queries = packing.seq_length if queries is None else 1
        weights = query.new_zeros(packing.batch_size, self.num_heads, num_queries, packing.seq_length)
        contexts = []
        for group in packing.groups:
            mine = query[group.first_row : group.first_row + group.rows]
            q = self._split(mine if queries is not None else group.pad(query), group)
            k, v = self._split(group.pad(key), group), self._split(group.pad(value), group)
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])  # (rows, heads, queries, longest)
            if group.real is not None:
                scores = scores.masked_fill(~group.real[:, None, None, :], -math.inf)
            attended = self.dropout(scores.softmax(-1))
            context = (attended @ v).transpose(1, 2).flatten(2).flatten(0, 1)  # (rows * queries, hidden_size)
            contexts.append(context if queries is not None else group.unpad(context))
            self._place(weights, attended, packing, group)
        joined = torch.cat(contexts)
        return (joined if queries is None else joined[packing.rank]), weights

    def _split(self, padded: Tensor, group: Group) -> Tensor:
        """(rows * length, hidden_size) -> (rows, heads, length, head_size)."""
        return padded.view(group.rows, -1, self.num_heads, padded.shape[1] // self.num_heads).transpose(1, 2)

    def _place(self, weights: Tensor, attended: Tensor, packing: Packing, group: Group) -> None:
        """Write a group's weights (rows, heads, queries, longest) where its rows and tokens stand in the batch."""
        start, lengths = group.start, packing.lengths[packing.order].tolist()
        for offset in range(group.rows):
            row, length = int(packing.order[group.first_row + offset]), lengths[group.first_row + offset]
            columns = packing.positions[start : start + length]
            mine = attended[offset, :, :, :length]  # (heads, queries, length)
            if attended.shape[2] == 1 and weights.shape[2] == 1:
                weights[row, :, 0, columns] = mine[:, 0]
            else:
                weights[row, :, columns[:, None], columns] = mine[:, :length]
            start += length
