"""Checked examples -> token ids, kept without padding -> batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from minbert.token_batch import TokenBatch, TokenizedTexts
from minbert.tokenizer import BertTokenizer
from multitask.data import Example
from multitask.losses import label_tensor
from multitask.tasks import Task
from multitask.updates import Batch

__all__ = ["EncodedTexts", "TaskData"]


class EncodedTexts:
    """Token ids of a task's rows, tokenized once: joint pairs as one text, separate pairs as two.

    :param texts: one or two texts a row, as the task has columns.
    :param max_length: tokens a row is cut to, longest text first; ``truncated``, bool (rows,), says which were.
    """

    def __init__(self, task: Task, texts: Sequence[tuple[str, ...]], tokenizer: BertTokenizer, max_length: int) -> None:
        self.rows = len(texts)
        self.separate = task.is_pair and task.input == "separate"
        first = [row[0] for row in texts]
        second = [row[1] for row in texts] if task.is_pair else None
        if self.separate:
            assert second is not None
            self._tokens: TokenizedTexts = tokenizer.tokenize_all(first + second, None, max_length=max_length)
        else:
            self._tokens = tokenizer.tokenize_all(first, second, max_length=max_length)
        cut = self._tokens.truncated
        self.truncated: np.ndarray = cut[: self.rows] | cut[self.rows :] if self.separate else cut
        lengths = self._tokens.lengths
        self.lengths: np.ndarray = lengths[: self.rows] + lengths[self.rows :] if self.separate else lengths

    def tokens(self, indices: np.ndarray) -> TokenBatch:
        """The rows at ``indices``; for separate input all first texts, then all second."""
        rows = np.concatenate([indices, indices + self.rows]) if self.separate else indices
        return self._tokens.batch(rows)


@dataclass(frozen=True)
class TaskData:
    """A task's labelled rows, ready to be batched. ``labels`` (rows,) as losses.label_tensor gives them."""

    texts: EncodedTexts
    labels: Tensor

    @classmethod
    def build(cls, task: Task, examples: Sequence[Example], tokenizer: BertTokenizer, max_length: int) -> "TaskData":
        texts = EncodedTexts(task, [example.texts for example in examples], tokenizer, max_length)
        labels = [example.label for example in examples if example.label is not None]
        return cls(texts, label_tensor(task, labels))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: np.ndarray) -> Batch:
        return Batch(self.texts.tokens(indices), self.labels[indices])
