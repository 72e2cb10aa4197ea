"""Decoders: from an encoder's output to a task's outputs. One per task, with weights of its own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minbert.attention import MultiHeadAttention
from minbert.config import BertConfig
from minbert.fast.choice import uses_fast_path
from minbert.inputs import refuse_quantized_autocast
from minbert.layers import Dropout
from minbert.model import BertOutput
from minbert.packing import Packing
from multitask.settings.task import Task

__all__ = ["TaskDecoder"]


class TaskDecoder(nn.Module):
    """Pooling, dropout, for attention pooling a projection, and the head.

    Attention pooling is the rebuilt report's decoder: the pooler's output is the one query of a row, the last hidden
    states under the attention mask are keys and values, with as many heads as the encoder; then dropout and the
    projection Linear(H, H). Its attention weights are dropped at the encoder's rate (the report is silent on it).
    With ``input = "separate"`` each of the two encodings goes through pooling, dropout and projection, and the head
    sees both, concatenated; the head "cosine" has no weights and compares them.

    :param task: says pooling, input, head, dropout and the number of outputs.
    :param config: of the encoder that feeds it.
    """

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()
        self.task = task
        hidden = config.hidden_size
        self.two_encodings = task.is_pair and task.input == "separate"
        self.dropout = Dropout(task.dropout)
        self.attention: MultiHeadAttention | None = None
        self.projection: nn.Linear | None = None
        self.head: nn.Linear | None = None
        if task.pooling == "attention":
            rate = config.attention_probs_dropout_prob
            self.attention = MultiHeadAttention(hidden, config.num_attention_heads, rate)
            self.projection = nn.Linear(hidden, hidden)
        if task.head == "linear":
            self.head = nn.Linear(hidden * (2 if self.two_encodings else 1), task.num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                nn.init.zeros_(module.bias)

    def forward(self, encoded: BertOutput) -> Tensor:
        """Compute a task's outputs.

        :param encoded: of ``batch`` rows; of 2 * ``batch`` for separate input, all first texts before all second.
        :return: (batch, num_outputs): logits, or for a regression the prediction on the label's own scale.
        """
        if not torch.compiler.is_compiling():
            refuse_quantized_autocast(self, encoded.packed.device)
        call = _call
        if isinstance(encoded.packing, Packing) and uses_fast_path():  # a compiled encoder does not pack
            from minbert.fast.parts import call
        pooled: Tensor = call(self.dropout, self._pool(encoded, call))  # (batch or 2 * batch, hidden)
        if self.projection is not None:
            pooled = call(self.projection, pooled)
        if self.head is not None:
            outputs: Tensor = call(self.head, torch.cat(pooled.chunk(2), dim=1) if self.two_encodings else pooled)
            return outputs
        first, second = pooled.chunk(2)
        assert self.task.labels is not None  # a cosine head is only built for a task with bounds
        low, high = (float(bound) for bound in self.task.labels)
        cosine = torch.cosine_similarity(first.float(), second.float(), dim=1)
        return (low + (high - low) / 2 * (1 + cosine))[:, None]

    def pool(self, encoded: BertOutput) -> Tensor:
        """Pool each row to one vector, (rows, hidden); masked positions take no part."""
        return self._pool(encoded, _call)

    def _pool(self, encoded: BertOutput, call: Callable[..., Any]) -> Tensor:
        pooling, packing = self.task.pooling, encoded.packing
        if pooling == "cls":
            return packing.first(encoded.packed)
        if pooling == "mean":
            return packing.mean(encoded.packed)
        if pooling == "max":
            return encoded.last_hidden_state.masked_fill(~packing.mask[:, :, None], float("-inf")).amax(1)
        assert encoded.pooler_output is not None  # MultitaskModel refuses an encoder without a pooler
        if self.attention is None:
            return encoded.pooler_output
        context: Tensor = call(self.attention, encoded.packed, packing, encoded.pooler_output)[0]
        return context


def _call(module: nn.Module, *arguments: Any) -> Any:
    return module(*arguments)
