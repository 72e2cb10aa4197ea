"""Padded (batch, seq) <-> packed (tokens,): padding never reaches a matrix product.

A padded batch spends work on positions that no one asks for. Here the real tokens of all rows stand one after
another in a single axis, rows ordered by length, so that every position-wise product sees real tokens alone.
Attention needs rows again: it runs in a few groups of rows of like length, padded to the longest of the group.

Source: the removal of padding as in ByteTransformer (Zhai et al. 2022, arXiv 2210.03052, section III); the groups are
our own.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Group", "Packing"]

# Rows of an attention group: large enough that the products outweigh the calls, small enough that lengths are alike.
_GROUP_ROWS = 8


@dataclass(frozen=True)
class Group:
    """Rows that attend together: packed tokens ``start:stop``, as ``rows`` rows of at most ``longest`` tokens."""

    start: int
    stop: int
    first_row: int  # position in the packing's order by length
    rows: int
    longest: int
    lengths: Tensor | None  # (rows,), or None when every row has `longest` tokens

    @cached_property
    def real(self) -> Tensor | None:
        """Bool (rows, longest), True at real tokens; None when there is no padding in the group."""
        if self.lengths is None:
            return None
        return torch.arange(self.longest, device=self.lengths.device) < self.lengths[:, None]

    @cached_property
    def _real_positions(self) -> Tensor:
        """Int64 (stop - start,): where each packed token stands in the flattened (rows * longest)."""
        assert self.real is not None
        return self.real.flatten().nonzero().squeeze(1)

    @cached_property
    def _source(self) -> Tensor:
        """Int64 (rows * longest,): which packed token a padded position reads; padding reads the row's first."""
        assert self.real is not None
        assert self.lengths is not None
        starts = (self.lengths.cumsum(0) - self.lengths)[:, None]
        columns = torch.arange(self.longest, device=self.lengths.device)
        return torch.where(self.real, starts + columns, starts).flatten()

    def pad(self, packed: Tensor) -> Tensor:
        """Packed (tokens, width) of the whole batch -> this group's rows, (rows * longest, width).

        A padded position holds a copy of its row's first token: finite, and masked out by whoever reads it.
        """
        mine = packed[self.start : self.stop]
        return mine if self.lengths is None else mine.index_select(0, self._source)

    def unpad(self, padded: Tensor) -> Tensor:
        """(rows * longest, width) -> this group's packed tokens, (stop - start, width)."""
        return padded if self.lengths is None else padded.index_select(0, self._real_positions)


class Packing:
    """Where each real token of a padded batch stands in the packed axis.

    ``attention_mask`` is bool (batch, seq), True at real tokens, at least one in each row. Holes are allowed: a
    token keeps the position it had in the padded row. Attributes:

    - ``order`` (batch,): the rows by falling length; ``rank`` (batch,) is its inverse.
    - ``token_index`` (tokens,): for each packed token its place in the flattened (batch * seq).
    - ``lengths`` (batch,): real tokens of each row, in the batch's own order.
    - ``groups``: the rows in groups of like length, for attention.
    """

    def __init__(self, attention_mask: Tensor) -> None:
        self.batch_size, self.seq_length = attention_mask.shape
        self.lengths = attention_mask.sum(1)
        self.order = self.lengths.argsort(descending=True, stable=True)
        in_order = attention_mask[self.order]
        rows, self.positions = in_order.nonzero(as_tuple=True)  # both (tokens,)
        self.token_index = self.order[rows] * self.seq_length + self.positions
        self.groups = self._groups(self.lengths[self.order])

    def _groups(self, lengths: Tensor) -> tuple[Group, ...]:
        groups, start, sizes, first = [], 0, lengths.tolist(), 0
        while first < len(sizes):
            last = min(first + _GROUP_ROWS, len(sizes))
            while last < len(sizes) and sizes[last] == sizes[first]:
                last += 1
            stop = start + sum(sizes[first:last])
            same = sizes[first] == sizes[last - 1]
            mine = None if same else lengths[first:last]
            groups.append(Group(start, stop, first, last - first, sizes[first], mine))
            first, start = last, stop
        return tuple(groups)

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

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, seq, ...) -> (tokens, ...)."""
        return padded.flatten(0, 1).index_select(0, self.token_index)

    def unpack(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> (batch, seq, width), zero at masked positions."""
        flat = packed.new_zeros(self.batch_size * self.seq_length, packed.shape[1])
        return flat.index_copy(0, self.token_index, packed).view(self.batch_size, self.seq_length, -1)
