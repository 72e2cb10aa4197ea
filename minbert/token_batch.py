"""Keep rows of token ids without padding, and hand them out as padded batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from minbert.errors import InputError

__all__ = ["TokenBatch", "TokenizedTexts", "batches_by_length", "spans_of"]

# Tokens of a batch, padding included: enough for full-speed matrix products, few enough to stay in the cache.
_TOKENS_PER_BATCH = 2048


@dataclass(frozen=True, eq=False)
class TokenBatch(Mapping[str, torch.Tensor]):
    """Token ids of some rows, padded to one width; a mapping, so `model(**batch)` takes it.

    Each of the three is int64 of shape (batch, seq): `input_ids`; `token_type_ids`, 1 for the second text of a pair
    and its [SEP], else 0, all 0 in families without token types; `attention_mask`, 1 at tokens, 0 at padding.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    attention_mask: torch.Tensor

    def __getitem__(self, key: str) -> torch.Tensor:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        tensor: torch.Tensor = getattr(self, key)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    def to(self, device: torch.device | str) -> "TokenBatch":
        """Return the same batch with its tensors on `device`."""
        return TokenBatch(*(tensor.to(device) for tensor in self.values()))


@dataclass(frozen=True, eq=False)
class TokenizedTexts:
    """Token ids of many rows without padding: row i is at `offsets[i]:offsets[i + 1]`.

    `input_ids` int32 (tokens,), `token_type_ids` uint8 (tokens,), `offsets` int64 (rows + 1,), `truncated`
    bool (rows,): whether the row was cut to the longest length allowed. `spans` int32 (rows, 2, 2): where in its row
    each text begins and ends, without special tokens; a single text has an empty second one.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray
    pad_token_id: int
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Count the tokens of each row, special tokens included: int64 (rows,)."""
        lengths: np.ndarray = np.diff(self.offsets)
        return lengths

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, one after another; of parts by one tokenizer, at least one."""
        ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        offsets = [part.offsets[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(
            np.concatenate([part.input_ids for part in parts]),
            np.concatenate([part.token_type_ids for part in parts]),
            np.concatenate([*offsets, ends[-1:]]),
            np.concatenate([part.truncated for part in parts]),
            parts[0].pad_token_id,
            np.concatenate([part.spans for part in parts]),
        )

    def batch(self, indices: Sequence[int] | np.ndarray | range, *, width: int | None = None) -> TokenBatch:
        """Pad the rows at `indices`, in that order, to the longest of them, or to `width` if that is more.

        :param indices: numbers of rows, (batch,).
        :return: three int64 tensors of shape (batch, seq).
        :raises InputError: for an index outside 0 .. len(self) - 1.
        """
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if len(outside):
            raise InputError(f"indices must be from 0 to {len(self) - 1}, got {outside[0]}")
        lengths = self.lengths[rows]
        columns = np.arange(max(int(lengths.max(initial=0)), width or 0))
        is_token = columns < lengths[:, None]  # (batch, seq)
        positions = (self.offsets[rows][:, None] + columns)[is_token]  # (tokens of the batch,)
        input_ids = np.full(is_token.shape, self.pad_token_id, dtype=np.int64)
        input_ids[is_token] = self.input_ids[positions]
        token_type_ids = np.zeros(is_token.shape, dtype=np.int64)
        token_type_ids[is_token] = self.token_type_ids[positions]
        attention_mask = is_token.astype(np.int64)
        return TokenBatch(*(torch.from_numpy(array) for array in (input_ids, token_type_ids, attention_mask)))


def spans_of(lengths: Sequence[int], marks: Sequence[Sequence[int | None]] | None = None) -> np.ndarray:
    """Return where the texts of rows are, between the first and the last of their special tokens.

    :param lengths: tokens of each row.
    :param marks: of each token of each row, 0 in the first text, 1 in the second, None for a special token: token types
        do not tell the texts of a pair apart in all families. None where each row is a single text.
    :return: int32 (rows, 2, 2), as in TokenizedTexts.
    """
    ends = np.ones((len(lengths), 4), dtype=np.int32)
    ends[:, 1:] = np.array(lengths, dtype=np.int32)[:, None] - 1
    spans = ends.reshape(-1, 2, 2)
    if marks is not None:
        spans[:, 0, 1] = [1 + row.count(0) for row in marks]
        spans[:, 1, 0] -= np.array([row.count(1) for row in marks], dtype=np.int32)
    return spans


def batches_by_length(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices of all rows, longest first, in batches of a bounded number of padded tokens.

    :param lengths: tokens of each row, int64 (rows,).
    :return: an iterator of int64 (batch,).
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, _TOKENS_PER_BATCH // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size
