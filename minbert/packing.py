"""Padded (batch, seq) <-> packed (tokens,): padding never reaches a matrix product.

A padded batch spends work on positions that no one asks for. Here the real tokens of all rows stand one after
another in a single axis, rows ordered by length, so that every position-wise product sees real tokens alone.
Attention needs rows again: it runs in a few groups of rows of like length, padded to the longest of the group.

Source: the removal of padding as in ByteTransformer (Zhai et al. 2022, arXiv 2210.03052, section III); the groups are
our own.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Group", "Packing"]

# Rows of an attention group: large enough that the products outweigh the calls, small enough that lengths are alike,
# and that the group's scores (rows * longest**2 for each head) stay in the cache.
_GROUP_ROWS = 8
_GROUP_AREA = 2**15


@dataclass(frozen=True)
class Group:
    """Rows that attend together: ``rows`` rows of the packing's order, each padded to ``longest`` tokens."""

    first_row: int  # position in the packing's order by length
    rows: int
    longest: int
    span: slice  # where the rows stand in the padded axis, rows * longest positions
    real: Tensor | None  # bool (rows, longest), True at real tokens; None when there is no padding in the group

    @cached_property
    def _key_biases(self) -> dict[tuple[int, torch.dtype], Tensor]:
        return {}

    def key_bias(self, heads: int, dtype: torch.dtype) -> Tensor | None:
        """(rows * heads, 1, longest): 0 at real keys, -inf at padding; None without padding. Made once a batch."""
        if self.real is None:
            return None
        if (heads, dtype) not in self._key_biases:
            bias = torch.zeros(self.real.shape, dtype=dtype, device=self.real.device)
            bias.masked_fill_(~self.real, -math.inf)
            self._key_biases[heads, dtype] = bias.repeat_interleave(heads, 0)[:, None]
        return self._key_biases[heads, dtype]


class Packing:
    """Where each real token of a padded batch stands in the packed axis.

    ``attention_mask`` is bool (batch, seq), True at real tokens, at least one in each row. Holes are allowed: a
    token keeps the position it had in the padded row. Attributes:

    - ``mask`` (batch, seq): the mask itself.
    - ``order`` (batch,): the rows by falling length; ``rank`` (batch,) is its inverse.
    - ``rows`` (tokens,): for each packed token its row's place in ``order``; ``positions`` (tokens,): its place in
      that row of the padded batch, which is its position.
    - ``token_index`` (tokens,): for each packed token its place in the flattened (batch * seq).
    - ``lengths`` (batch,): real tokens of each row, in the batch's own order.
    - ``groups``: the rows in groups of like length, for attention.
    """

    def __init__(self, attention_mask: Tensor) -> None:
        self.mask = attention_mask
        self.batch_size, self.seq_length = attention_mask.shape
        self.lengths = attention_mask.sum(1)
        self.order = self.lengths.argsort(descending=True, stable=True)
        ordered = self.lengths[self.order]
        self.rows, self.positions = attention_mask[self.order].nonzero(as_tuple=True)
        self.token_index = self.order[self.rows] * self.seq_length + self.positions
        spans = _spans(ordered.tolist())
        widths = torch.tensor([longest for _, rows, longest in spans for _ in range(rows)], device=ordered.device)
        padded_rows = torch.arange(self.batch_size, device=ordered.device).repeat_interleave(widths)
        columns = torch.arange(len(padded_rows), device=ordered.device) - (widths.cumsum(0) - widths)[padded_rows]
        self._real = columns < ordered[padded_rows]  # bool (padded,)
        self._source = (ordered.cumsum(0) - ordered)[padded_rows] + columns.where(self._real, 0)  # (padded,)
        self.groups = tuple(self._groups(spans))

    def _groups(self, spans: list[tuple[int, int, int]]) -> Iterator[Group]:
        start = 0
        for first, rows, longest in spans:
            span = slice(start, start + rows * longest)
            real = self._real[span].view(rows, longest)
            yield Group(first, rows, longest, span, None if bool(real.all()) else real)
            start = span.stop

    @property
    def tokens(self) -> int:
        """Number of real tokens of the batch."""
        return len(self.token_index)

    @cached_property
    def rank(self) -> Tensor:
        """Int64 (batch,): at which place of ``order`` a row of the batch stands."""
        return self.order.argsort()

    @cached_property
    def first_tokens(self) -> Tensor:
        """Int64 (batch,): the packed index of each row's first token, in the batch's own order."""
        ordered = self.lengths[self.order]
        return (ordered.cumsum(0) - ordered)[self.rank]

    @cached_property
    def _real_positions(self) -> Tensor:
        """Int64 (tokens,): where each packed token stands in the padded axis of all groups."""
        return self._real.nonzero().squeeze(1)

    @property
    def padded_size(self) -> int:
        """Positions of all groups together, padding included."""
        return len(self._source)

    def pad(self, packed: Tensor) -> Tensor:
        """Packed (tokens, width) -> the rows of all groups one after another, (padded, width).

        A padded position holds a copy of its row's first token: finite, and masked out by whoever reads it.
        """
        return packed if self.padded_size == self.tokens else packed.index_select(0, self._source)

    def pad_with_zeros(self, packed: Tensor) -> Tensor:
        """The same with zeros at padded positions."""
        if self.padded_size == self.tokens:
            return packed
        return packed.new_zeros(self.padded_size, packed.shape[1]).index_copy_(0, self._real_positions, packed)

    def unpad(self, padded: Tensor) -> Tensor:
        """(padded, width) -> packed (tokens, width)."""
        return padded if self.padded_size == self.tokens else padded.index_select(0, self._real_positions)

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, seq, ...) -> (tokens, ...)."""
        return padded.flatten(0, 1).index_select(0, self.token_index)

    def unpack(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> (batch, seq, width), zero at masked positions."""
        flat = packed.new_zeros(self.batch_size * self.seq_length, packed.shape[1])
        return flat.index_copy(0, self.token_index, packed).view(self.batch_size, self.seq_length, -1)


def _spans(lengths: list[int]) -> list[tuple[int, int, int]]:
    """(first row, number of rows, longest) of each group, for rows of falling ``lengths``."""
    spans, first = [], 0
    while first < len(lengths):
        most = max(1, _GROUP_AREA // lengths[first] ** 2)
        last = min(first + min(_GROUP_ROWS, most), len(lengths))
        while last < min(first + most, len(lengths)) and lengths[last] == lengths[first]:
            last += 1
        spans.append((first, last - first, lengths[first]))
        first = last
    return spans
