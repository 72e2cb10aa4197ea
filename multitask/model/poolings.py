"""The poolings: from an encoder's output to one vector for each row, by the names that ``[tasks.NAME] pooling`` takes.

A pooling is a module built from the task and the encoder's config. Its ``width`` (hidden_size where it says nothing) is
that of the vectors that reach the head; ``needs_pooler`` says that it reads ``pooler_output``; ``project``, if it has
one, is applied to the vectors after the decoder's dropout. A function of the encoder's output alone is a pooling, too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minbert.attention import MultiHeadAttention
from minbert.config import BertConfig
from minbert.fast.choice import uses_fast_path
from minbert.model import BertOutput
from minbert.packing import PaddedRows, Rows
from multitask.errors import ConfigError
from multitask.settings.choices import POOLINGS
from multitask.settings.task import Task

__all__ = [
    "AttentionPooling",
    "ClsPooling",
    "MaxPooling",
    "MeanPooling",
    "PoolerPooling",
    "build_pooling",
    "caller",
]


def caller(rows: Rows | None = None) -> Callable[..., Any]:
    """Return the function (module, *arguments) that calls a part here: by its fast counterpart on the fast path.

    :param rows: the packing among the arguments; the fast path knows nothing of rows that stay padded.
    """
    if isinstance(rows, PaddedRows) or not uses_fast_path():
        return _plain_call
    from minbert.fast.parts import call

    return call


def _plain_call(module: Callable[..., Any], *arguments: Any) -> Any:
    return module(*arguments)


class AttentionPooling(nn.Module):
    """The rebuilt report's pooling: the pooler's output asks, the last hidden states answer.

    The pooler's output is the one query of a row, the last hidden states under the attention mask are keys and values,
    with as many heads as the encoder; after dropout follows the projection Linear(H, H). Its attention weights are
    dropped at the encoder's rate (the report is silent on it).
    """

    needs_pooler = True

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.attention = MultiHeadAttention(hidden, config.num_attention_heads, config.attention_probs_dropout_prob)
        self.project = nn.Linear(hidden, hidden)

    @torch.no_grad()
    def start_as_mean(self) -> None:
        """Make it the mean of the last hidden states: queries of zero ask each token alike, values pass as they are."""
        for linear in (self.attention.query, self.attention.value, self.project):
            linear.bias.zero_()
        self.attention.query.weight.zero_()
        nn.init.eye_(self.attention.value.weight)
        nn.init.eye_(self.project.weight)

    def forward(self, encoded: BertOutput) -> Tensor:
        """Return the context of each row's query, (rows, hidden_size)."""
        call, packing = caller(encoded.packing), encoded.packing
        context: Tensor = call(self.attention, encoded.packed, packing, encoded.pooler_output)[0]
        return context


class PoolerPooling(nn.Module):
    """The encoder's own pooler: tanh of a linear map of the first token's state."""

    needs_pooler = True

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()

    def forward(self, encoded: BertOutput) -> Tensor:
        """Return the pooler's output, (rows, hidden_size)."""
        assert encoded.pooler_output is not None  # MultitaskModel refuses an encoder without a pooler
        return encoded.pooler_output


class ClsPooling(nn.Module):
    """The first token's last hidden state."""

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()

    def forward(self, encoded: BertOutput) -> Tensor:
        """Return the first tokens' states, (rows, hidden_size)."""
        return encoded.packing.first(encoded.packed)


class MeanPooling(nn.Module):
    """The mean of the real tokens' last hidden states."""

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()

    def forward(self, encoded: BertOutput) -> Tensor:
        """Return the means, (rows, hidden_size)."""
        return encoded.packing.mean(encoded.packed)


class MaxPooling(nn.Module):
    """The largest value of each feature over the real tokens' last hidden states."""

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()

    def forward(self, encoded: BertOutput) -> Tensor:
        """Return the maxima, (rows, hidden_size)."""
        real = encoded.packing.mask[:, :, None]  # (rows, seq, 1)
        return encoded.last_hidden_state.masked_fill(~real, float("-inf")).amax(1)


class _Function(nn.Module):
    """A pooling without weights that was registered as a function of the encoder's output."""

    def __init__(self, function: Callable[[BertOutput], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, encoded: BertOutput) -> Tensor:
        """Return what the function makes of it."""
        return self.function(encoded)


def build_pooling(task: Task, config: BertConfig) -> nn.Module:
    """Build a task's pooling; ConfigError for an entry that is neither a module's class nor a function."""
    assert task.pooling is not None  # MultitaskModel has chosen one
    entry = POOLINGS[task.pooling]
    if not isinstance(entry, type):
        return _Function(entry)
    if not issubclass(entry, nn.Module):
        raise ConfigError(
            f"tasks.{task.name}.pooling {task.pooling!r} must be an nn.Module class or a function, got {entry!r}"
        )
    return entry(task, config)
