"""Checked examples -> token ids, without padding -> batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from minbert.token_batch import TokenBatch, TokenizedTexts
from minbert.tokenizer import BertTokenizer
from multitask.data.examples import Example
from multitask.distributed import rank, size
from multitask.model.losses import label_tensor
from multitask.settings.task import Task

__all__ = ["Batch", "EncodedTexts", "TaskData"]


class EncodedTexts:
    """Token ids of a task's rows: joint pairs as one text, separate pairs as two.

    :param texts: one or two texts a row, as the task has columns.
    :param max_length: tokens a row is cut to, longest text first; ``truncated``, bool (rows,), says which were.
    :param ahead: tokenize all rows at once; else each time a row is asked for, which costs a training step less than
        a hundredth and lets the first one begin without waiting for the last row.
    """

    def __init__(
        self,
        task: Task,
        texts: Sequence[tuple[str, ...]],
        tokenizer: BertTokenizer,
        max_length: int,
        *,
        ahead: bool = True,
    ) -> None:
        self.rows = len(texts)
        self.separate = task.is_pair and task.input == "separate"
        self._texts, self._tokenizer, self._max_length = texts, tokenizer, max_length
        self._tokens = self._tokenize(texts) if ahead else None

    def _tokenize(self, texts: Sequence[tuple[str, ...]]) -> TokenizedTexts:
        columns = [list(column) for column in zip(*texts, strict=True)]
        if self.separate:
            columns = [[text for column in columns for text in column]]
        return self._tokenizer.tokenize_all(*columns or [[]], max_length=self._max_length)

    @cached_property
    def truncated(self) -> np.ndarray:
        if self._tokens is not None:
            return self._by_row(self._tokens.truncated, np.logical_or)
        result = np.zeros(self.rows, dtype=bool)
        long = [row for row, texts in enumerate(self._texts) if _most_tokens(texts) > self._max_length]
        if long:
            tokens = self._tokenize([self._texts[row] for row in long])
            result[long] = self._by_row(tokens.truncated, np.logical_or)
        return result

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (rows,); of rows that were tokenized ahead."""
        assert self._tokens is not None
        return self._by_row(self._tokens.lengths, np.add)

    def _by_row(self, values: np.ndarray, join: np.ufunc) -> np.ndarray:
        """One value a row of what, for separate input, has one a text: all first texts, then all second."""
        if not self.separate:
            return values
        joined: np.ndarray = join(*np.split(values, 2))
        return joined

    def tokens(self, indices: np.ndarray) -> TokenBatch:
        """The rows at ``indices``; for separate input all first texts, then all second."""
        tokens, rows = self._tokens, self.rows
        if tokens is None:
            tokens, rows = self._tokenize([self._texts[row] for row in indices]), len(indices)
            indices = np.arange(rows)
        return tokens.batch(np.concatenate([indices, indices + rows]) if self.separate else indices)


def _most_tokens(texts: tuple[str, ...]) -> int:
    """A bound on a row's tokens: one a character and some special ones; Unicode may make 18 characters of one."""
    return sum(len(text) * (1 if text.isascii() else 18) for text in texts) + 8


@dataclass(frozen=True)
class Batch:
    """Rows of one task: token ids (for separate input first texts, then second texts) and labels (rows,).

    Where several processes train together these are one's share of the rows, and ``whole`` (whole,) holds the labels of
    all; a process that has no share of a small batch holds a row that does not count.
    """

    tokens: TokenBatch
    labels: Tensor
    whole: Tensor | None = None
    counts: bool = True

    @property
    def rows(self) -> int:
        """Rows of the whole batch."""
        return len(self.labels if self.whole is None else self.whole)

    def to(self, device: torch.device) -> "Batch":
        """The same rows on ``device``."""
        whole = None if self.whole is None else self.whole.to(device)
        return Batch(self.tokens.to(device), self.labels.to(device), whole, self.counts)


@dataclass(frozen=True)
class TaskData:
    """A task's labelled rows, ready to be batched.

    ``labels`` (rows,) as losses.label_tensor gives them; ``lines`` int64 (rows,), where they stand in their file.
    """

    texts: EncodedTexts
    labels: Tensor
    lines: np.ndarray

    @classmethod
    def build(
        cls,
        task: Task,
        examples: Sequence[Example],
        tokenizer: BertTokenizer,
        max_length: int,
        *,
        ahead: bool = True,
    ) -> "TaskData":
        """:param ahead: as in EncodedTexts."""
        texts = EncodedTexts(task, [example.texts for example in examples], tokenizer, max_length, ahead=ahead)
        labels = [example.label for example in examples if example.label is not None]
        return cls(texts, label_tensor(task, labels), np.array([example.line for example in examples], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> Batch:
        """The rows at ``indices``; of several processes that train together, this one's share of them."""
        share = indices[rank() :: size()]
        # A process without a row of a small batch takes one that does not count: all have to meet in the same sums.
        own = share if len(share) else indices[:1]
        return Batch(self.texts.tokens(own), self.labels[own], self.labels[indices], counts=len(share) > 0)
