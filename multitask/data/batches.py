"""Checked examples to token ids, without padding, and those to batches."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from minbert.token_batch import TokenBatch, TokenizedTexts
from minbert.tokenizer import BertTokenizer
from multitask.data.examples import Example
from multitask.data.long_texts import NO_LIMIT, keep_ends, to_windows
from multitask.distributed import rank, size
from multitask.settings.distillation import SoftTargets
from multitask.settings.kinds import Label
from multitask.settings.task import Task

__all__ = ["Batch", "EncodedTexts", "TaskData", "label_tensor"]


class EncodedTexts:
    """Token ids of a task's rows: a joint pair is one text, a separate pair two, with both inputs they are three.

    A long text may be several windows.

    :param texts: one or two texts a row, one for each text column of the task.
    :param max_length: the most tokens of a text; what becomes of longer ones, the task's ``long`` says.
    :param ahead: tokenize all rows now; else each time a row is asked for, which costs a training step less than
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
        self.encodings = task.encodings
        self.max_length, self._task = max_length, task
        self._texts, self._tokenizer = texts, tokenizer
        self._ahead = self._tokenize(texts) if ahead else None

    def _tokenize(self, texts: Sequence[tuple[str, ...]]) -> tuple[TokenizedTexts, np.ndarray | None]:
        """Tokenize rows; for a task with windows return the first window of each row, too."""
        columns = [list(column) for column in zip(*texts, strict=True)] or [[]]
        apart = [text for column in columns for text in column]
        parts = {1: [columns], 2: [[apart]], 3: [columns, [apart]]}[self.encodings]
        limit = self.max_length if self._task.long == "head" else NO_LIMIT
        tokens = TokenizedTexts.concatenate([self._tokenizer.tokenize_all(*part, max_length=limit) for part in parts])
        if self._task.long == "windows":
            return to_windows(tokens, self.max_length, self._task.windows)
        return keep_ends(tokens, self.max_length) if self._task.long == "head-tail" else tokens, None

    @property
    def truncated(self) -> np.ndarray:
        """Which rows were cut: bool (rows,)."""
        return self._long[0]

    @property
    def windows(self) -> np.ndarray:
        """Windows of each row, int64 (rows,); 1 for a row that is not read in windows."""
        return self._long[1]

    @cached_property
    def _long(self) -> tuple[np.ndarray, np.ndarray]:
        truncated, windows = np.zeros(self.rows, dtype=bool), np.ones(self.rows, dtype=np.int64)
        # Most rows can't be too long, and need no tokenization to know it.
        long = [row for row, texts in enumerate(self._texts) if _most_tokens(texts) > self.max_length]
        if self._ahead is not None or long:
            chosen = slice(None) if self._ahead is not None else long
            tokens, firsts = self._ahead or self._tokenize([self._texts[row] for row in long])
            truncated[chosen] = self._by_row(tokens.truncated, firsts, np.logical_or)
            windows[chosen] = 1 if firsts is None else np.diff(firsts)
        return truncated, windows

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (rows,); only for rows that were tokenized ahead."""
        assert self._ahead is not None
        tokens, firsts = self._ahead
        return self._by_row(tokens.lengths, firsts, np.add)

    def _by_row(self, values: np.ndarray, firsts: np.ndarray | None, join: np.ufunc) -> np.ndarray:
        """Join the values of what the rows are encoded as, in the order of ``batch``, to one a row: (rows,)."""
        if firsts is not None:
            return join.reduceat(values, firsts[:-1]) if len(values) else values
        joined: np.ndarray = join.reduce(values.reshape(self.encodings, -1), axis=0)
        return joined

    def tokens(self, indices: np.ndarray) -> TokenBatch:
        """Return the token ids of the rows at ``indices``, in the order of ``batch``."""
        return self.batch(indices)[0]

    def batch(self, indices: np.ndarray) -> tuple[TokenBatch, tuple[int, ...] | None]:
        """Return the rows at ``indices``: the pairs, if they are encoded as one, then all first texts, all second.

        :return: their token ids, and how many windows each row has, which follow each other; None without windows.
        """
        (tokens, firsts), rows = self._ahead or (None, None), self.rows
        if tokens is None:
            (tokens, firsts), rows = self._tokenize([self._texts[row] for row in indices]), len(indices)
            indices = np.arange(rows)
        if firsts is not None:
            places = [np.arange(firsts[row], firsts[row + 1]) for row in indices]
            return tokens.batch(np.concatenate(places)), tuple(map(len, places))
        return tokens.batch(np.concatenate([indices + rows * text for text in range(self.encodings)])), None


def _most_tokens(texts: tuple[str, ...]) -> int:
    """Bound a row's tokens: one a character and some special ones; Unicode normalization makes at most 18 of one."""
    return sum(len(text) * (1 if text.isascii() else 18) for text in texts) + 8


@dataclass(frozen=True)
class Batch:
    """Rows of one task; where several processes train together, this one's share of them.

    :param tokens: token ids, in the order of ``EncodedTexts.batch``.
    :param labels: of these rows, (rows,), or (rows, classes).
    :param whole: labels of the rows of all processes; None for a single process.
    :param counts: False where this process has no share of a small batch, and holds a row that must not count.
    :param windows: how many texts each row has, which follow each other, and whose outputs are averaged; None for one.
    :param soft: what these rows learn of teachers.
    """

    tokens: TokenBatch
    labels: Tensor
    whole: Tensor | None = None
    counts: bool = True
    windows: tuple[int, ...] | None = None
    soft: SoftTargets | None = None

    @property
    def rows(self) -> int:
        """Rows of the whole batch, over all processes."""
        return len(self.labels if self.whole is None else self.whole)

    def parts(self, count: int) -> "list[Batch]":
        """Cut the rows into ``count`` parts, or as many as there are rows, whose losses add up to the batch's."""
        if count == 1:
            return [self]
        own = len(self.labels)
        # More than one text where those of a pair are encoded apart.
        windows, texts = self.windows, len(self.tokens.input_ids) // own
        firsts = [0, *itertools.accumulate(windows or ())]
        parts = []
        for rows in torch.arange(own).tensor_split(min(count, own)):
            low, high = int(rows[0]), int(rows[-1]) + 1
            if windows is None:
                places = torch.cat([rows + own * text for text in range(texts)])
            else:
                places = torch.arange(firsts[low], firsts[high])
            tokens = TokenBatch(*(tensor[places] for tensor in self.tokens.values()))
            whole = self.labels if self.whole is None else self.whole
            own_windows = None if windows is None else windows[low:high]
            parts.append(Batch(tokens, self.labels[rows], whole, self.counts, own_windows, _rows_of(self.soft, rows)))
        return parts

    def to(self, device: torch.device) -> "Batch":
        """Return the same rows on ``device``."""
        whole = None if self.whole is None else self.whole.to(device)
        soft = None if self.soft is None else self.soft._replace(outputs=self.soft.outputs.to(device))
        return Batch(self.tokens.to(device), self.labels.to(device), whole, self.counts, self.windows, soft)


def _rows_of(soft: SoftTargets | None, rows: Tensor | np.ndarray) -> SoftTargets | None:
    return None if soft is None else soft._replace(outputs=soft.outputs[rows])


def label_tensor(task: Task, labels: Sequence[Label]) -> Tensor:
    """Return labels (rows,): int64 class indices, or float32 numbers, so that 3.5 stays 3.5.

    Where a row may have any number of classes: (rows, classes) of 0 and 1, float32.
    """
    if task.rules.many:
        result = torch.zeros(len(labels), len(task.classes))
        for row, indices in enumerate(labels):
            result[row, list(indices)] = 1  # type: ignore[arg-type]
        return result
    return torch.tensor(labels, dtype=torch.int64 if task.rules.has_classes else torch.float32)


@dataclass(frozen=True)
class TaskData:
    """A task's labelled rows, ready to be batched.

    :param labels: (rows,) or (rows, classes), from label_tensor.
    :param lines: the rows' lines in their file, int64 (rows,); 0 for rows of another file.
    :param soft: what the rows learn of teachers.
    """

    texts: EncodedTexts
    labels: Tensor
    lines: np.ndarray
    soft: SoftTargets | None = None

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
        """Tokenize labelled examples.

        :param ahead: as in EncodedTexts.
        """
        texts = EncodedTexts(task, [example.texts for example in examples], tokenizer, max_length, ahead=ahead)
        labels = [example.label for example in examples if example.label is not None]
        return cls(texts, label_tensor(task, labels), np.array([example.line for example in examples], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> Batch:
        """Return the rows at ``indices``; where several processes train together, this one's share of them."""
        share = indices[rank() :: size()]
        # A process without a share takes a row that does not count, since all must join in the same sums.
        own = share if len(share) else indices[:1]
        tokens, windows = self.texts.batch(own)
        soft = _rows_of(self.soft, own)
        return Batch(tokens, self.labels[own], self.labels[indices], len(share) > 0, windows, soft)
