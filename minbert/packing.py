"""Padded (batch, seq) <-> packed (tokens,): padding never reaches a matrix product.

A padded batch spends work on positions that no one asks for. Here the real tokens of all rows stand one after
another in a single axis, rows ordered by length, so that every position-wise product sees real tokens alone.
Attention needs rows again. In the book they are padded to the longest (pack, unpack); on the fast path attention runs
in a few groups of rows of like length, padded within the group: Group, HeadIndex and what makes them, with fill and
cut, are for minbert/fast alone.

Source: the removal of padding as in ByteTransformer (Zhai et al. 2022, arXiv 2210.03052, section III); the groups are
our own.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["FILL", "Group", "HeadIndex", "PaddedRows", "Packing", "Rows"]

# The fast path rounds the packed axis up to a multiple of this. oneDNN compiles a bfloat16 product anew for each shape
# that it has not seen, which takes several times as long as the product itself; few shapes are compiled few times.
FILL = 32
# A group's rows are padded to a multiple of this: torch's bfloat16 softmax is five times slower on other widths.
_WIDTH = 16
# Rows of a group: enough that the products outweigh the calls, few enough that lengths are alike and that the group's
# scores (rows * width**2 for each head) stay in the cache. In steps, for the sake of the number of shapes.
_ROWS = 4
_AREA = 2**15


@dataclass(frozen=True)
class Group:
    """Rows that attend together, each padded to ``width`` tokens; they fill ``start`` and on of the padded axis."""

    rows: int
    width: int
    start: int
    real: Tensor  # bool (rows, width), True at real tokens

    @cached_property
    def _biases(self) -> dict[tuple[int, torch.dtype], Tensor]:
        return {}

    def key_bias(self, heads: int, dtype: torch.dtype) -> Tensor:
        """(rows * heads, 1, width): 0 at real keys, -inf at padding. Made once a batch."""
        if (heads, dtype) not in self._biases:
            bias = torch.zeros(self.real.shape, dtype=dtype, device=self.real.device)
            bias.masked_fill_(~self.real, -math.inf)
            self._biases[heads, dtype] = bias.repeat_interleave(heads, 0)[:, None]
        return self._biases[heads, dtype]


@dataclass(frozen=True)
class HeadIndex:
    """How to gather (tokens, parts, heads) into (parts, rows, heads, width) for each group in turn, and back.

    ``into`` (parts * heads * padded,) and ``back`` (slots * parts * heads,) are int32 indices of head-sized vectors.
    """

    into: Tensor
    back: Tensor


class Packing:
    """Where each real token of a padded batch stands in the packed axis.

    ``attention_mask`` is bool (batch, seq), True at real tokens, at least one in each row. Holes are allowed: a
    token keeps the position it had in the padded row. ``positions``, int64 (batch, seq), are the tokens' positions
    where they are not their columns. Attributes:

    - ``mask`` (batch, seq): the mask itself.
    - ``order`` (batch,): the rows by falling length.
    - ``rows`` (tokens,): for each packed token its row's place in ``order``; ``columns`` (tokens,): its place in
      that row of the padded batch; ``positions`` (tokens,): its position, which is its column unless given.
    - ``token_index`` (tokens,): for each packed token its place in the flattened (batch * seq).
    - ``lengths`` (batch,): real tokens of each row, in the batch's own order.
    - ``tokens``: number of real tokens; ``slots``: the same rounded up, with room for one that is not real.
    - ``groups``: the rows in groups of like length, for attention.
    """

    def __init__(self, attention_mask: Tensor, positions: Tensor | None = None) -> None:
        self.mask = attention_mask
        self.batch_size, self.seq_length = attention_mask.shape
        self.lengths = attention_mask.sum(1)
        self.order = self.lengths.argsort(descending=True, stable=True)
        self.rows, self.columns = attention_mask[self.order].nonzero(as_tuple=True)
        self.token_index = self.order[self.rows] * self.seq_length + self.columns
        self.positions = self.columns if positions is None else self.pack(positions)
        self.tokens = len(self.token_index)
        self.slots = (self.tokens // FILL + 1) * FILL
        self._head_indices: dict[tuple[int, int], HeadIndex] = {}

    @cached_property
    def _starts(self) -> Tensor:
        """Int64 (batch,): the packed index of each row's first token, for the rows in ``order``."""
        ordered = self.lengths[self.order]
        return ordered.cumsum(0) - ordered

    @cached_property
    def first_tokens(self) -> Tensor:
        """Int64 (batch,): the packed index of each row's first token, in the batch's own order."""
        return self._starts[self.order.argsort()]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The rows in groups of like length."""
        ordered = self.lengths[self.order]
        lengths, groups, first, start = ordered.tolist(), [], 0, 0
        while first < len(lengths):
            width = _rounded(lengths[first], _WIDTH)
            last, most = first, max(1, min(_AREA // width**2, len(lengths) - first))
            while last - first < most and (last - first < _ROWS or _rounded(lengths[last], _WIDTH) == width):
                last = min(last + _ROWS, first + most)
            real = torch.arange(width, device=ordered.device) < ordered[first:last, None]
            groups.append(Group(last - first, width, start, real))
            start += (last - first) * width
            first = last
        return tuple(groups)

    @cached_property
    def group_columns(self) -> tuple[Tensor | None, ...]:
        """Each group's columns, int64 (rows, width) and 0 at padding; None for a group whose rows have no holes."""
        ordered, found, first = self.lengths[self.order], [], 0
        holed = self.columns[self._starts + ordered - 1] >= ordered  # (batch,): the last token is too far right
        for group in self.groups:
            starts, real = self._starts[first : first + group.rows, None], group.real
            places = (starts + torch.arange(group.width, device=real.device)).where(real, starts)
            has_holes = bool(holed[first : first + group.rows].any())
            found.append(self.columns[places].masked_fill_(~real, 0) if has_holes else None)
            first += group.rows
        return tuple(found)

    def head_index(self, parts: int, heads: int) -> HeadIndex:
        """Return how to gather tokens split into ``parts`` (queries, keys, values) of ``heads``; made once a batch."""
        if (parts, heads) not in self._head_indices:
            self._head_indices[parts, heads] = self._build_head_index(parts, heads)
        return self._head_indices[parts, heads]

    def _build_head_index(self, parts: int, heads: int) -> HeadIndex:
        device, split = self.mask.device, parts * heads
        back = torch.zeros(self.slots, parts, heads, dtype=torch.int32, device=device)
        vectors = torch.arange(split, device=device, dtype=torch.int32).view(parts, 1, heads, 1)
        into, first = [], 0
        for group in self.groups:
            starts = self._starts[first : first + group.rows, None]
            # Padding reads a slot that no token stands in: finite going forward, and without gradient coming back.
            source = (starts + torch.arange(group.width, device=device)).where(group.real, self.tokens).int()
            into.append((source[None, :, None] * split + vectors).flatten())  # (parts, rows, heads, width)
            places = torch.arange(into[-1].numel(), device=device, dtype=torch.int32).add_(group.start * split)
            by_token = places.view(parts, group.rows, heads, group.width).permute(1, 3, 0, 2)
            back[source[group.real].long()] = by_token[group.real]
            first += group.rows
        return HeadIndex(torch.cat(into), back.flatten())

    def fill(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> (slots, width), zeros after the tokens."""
        return F.pad(packed, (0, 0, 0, self.slots - self.tokens))

    def cut(self, filled: Tensor) -> Tensor:
        """(slots, width) -> (tokens, width): nothing reads what stands after the tokens, so it gets no gradient."""
        return filled[: self.tokens]

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, seq, ...) -> (tokens, ...)."""
        return padded.flatten(0, 1).index_select(0, self.token_index)

    def unpack(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> (batch, seq, width), zero at masked positions."""
        flat = packed.new_zeros(self.batch_size * self.seq_length, packed.shape[1])
        return flat.index_copy_(0, self.token_index, packed).view(self.batch_size, self.seq_length, -1)

    def first(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> (batch, width): each row's first token."""
        return packed[self.first_tokens]

    def mean(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> (batch, width): the mean of each row's tokens."""
        sums = packed.new_zeros(self.batch_size, packed.shape[1]).index_add_(0, self.order[self.rows], packed)
        return sums / self.lengths[:, None]

    def real(self, packed: Tensor) -> Tensor:
        """(tokens, width) -> the same: no other than real tokens are in it."""
        return packed


@dataclass
class PaddedRows:
    """The same questions answered for a batch that stays padded, as an exported or compiled forward computes it.

    ``tokens`` then stands for (batch, seq): nothing is gathered, so no shape depends on a mask's values.

    :param mask: bool (batch, seq), True at real tokens.
    :param given: int64 (batch, seq), the tokens' positions where they are not their columns.
    """

    mask: Tensor
    given: Tensor | None = None

    @property
    def seq_length(self) -> int:
        """The number of columns."""
        return self.mask.shape[1]

    @property
    def positions(self) -> Tensor:
        """Int64 (seq,), each token's position, the same in every row; or (batch, seq) if given."""
        return torch.arange(self.seq_length, device=self.mask.device) if self.given is None else self.given

    def pack(self, padded: Tensor) -> Tensor:
        """(batch, seq, ...) -> the same."""
        return padded

    def unpack(self, padded: Tensor) -> Tensor:
        """(batch, seq, width) -> the same."""
        return padded

    def first(self, padded: Tensor) -> Tensor:
        """(batch, seq, width) -> (batch, width): each row's first token."""
        return padded[:, 0]

    def mean(self, padded: Tensor) -> Tensor:
        """(batch, seq, width) -> (batch, width): the mean of each row's real tokens."""
        return self.real(padded).sum(1) / self.mask.sum(1, keepdim=True)

    def real(self, padded: Tensor) -> Tensor:
        """(batch, seq, width) -> the same, zero at masked positions."""
        return padded.masked_fill(~self.mask[:, :, None], 0)


Rows = Packing | PaddedRows


def _rounded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
