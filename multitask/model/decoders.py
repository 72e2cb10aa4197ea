"""Decoders: from an encoder's output to a task's outputs. One per task, with weights of its own."""

import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.inputs import refuse_quantized_autocast
from minbert.layers import Dropout
from minbert.model import BertOutput
from multitask.errors import ConfigError
from multitask.model.heads import build_head
from multitask.model.poolings import build_pooling, caller
from multitask.settings.checks import check_integer
from multitask.settings.task import Task

__all__ = ["TaskDecoder"]


class TaskDecoder(nn.Module):
    """Pooling, dropout, the pooling's projection if it has one, and the head.

    With attention pooling and a linear head it is the rebuilt report's decoder. Of pairs with ``input = "separate"``
    each of the two encodings goes through pooling, dropout and projection, and the head sees both; with "both" also the
    joint encoding does, and dropout is the head's.

    :param task: says pooling, input, head, dropout and the number of outputs.
    :param config: of the encoder that feeds it.
    :raises ConfigError: for a pooling or head of one's own that can't be built.
    """

    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()
        self.task = task
        self.dropout = Dropout(task.dropout)
        self.pooling = build_pooling(task, config)
        width = getattr(self.pooling, "width", config.hidden_size)
        self.width = check_integer(f"the width of tasks.{task.name}.pooling {task.pooling!r}", width, low=1)
        self.head = build_head(task, self.width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, encoded: BertOutput) -> Tensor:
        """Compute a task's outputs.

        :param encoded: of ``batch`` rows; for pairs of ``task.encodings`` times as many texts: for separate input all
            first texts before all second, for both inputs all pairs before these.
        :return: (batch, num_outputs): logits, or for a regression the prediction on the label's own scale.
        :raises ConfigError: for a pooling or head of one's own whose result is of another shape.
        """
        if not torch.compiler.is_compiling():
            refuse_quantized_autocast(self, encoded.packed.device)
        vectors = self.vectors(encoded)
        return self._checked("head", self.head(*vectors), vectors[0].shape[0], self.task.num_outputs)

    def vectors(self, encoded: BertOutput) -> tuple[Tensor, ...]:
        """Return what the head is called with: ``task.encodings`` tensors (batch, width); parameters as in forward."""
        call, texts = caller(encoded.packing), encoded.packing.mask.shape[0]
        project = getattr(self.pooling, "project", None)
        pooled = self._checked("pooling", self.pool(encoded), texts, self.width if project is None else None)
        if self.task.encodings < 3:  # of three, the head drops what it makes of them: a cosine of holes is another one
            pooled = call(self.dropout, pooled)
        if project is not None:
            pooled = self._checked("pooling", call(project, pooled), texts, self.width)
        if self.task.encodings == 1:
            return (pooled,)
        # chunk would fix a traced batch's size.
        return pooled.view(self.task.encodings, -1, pooled.shape[1]).unbind()

    def pool(self, encoded: BertOutput) -> Tensor:
        """Pool each row to one vector, (rows, width before projection); masked positions take no part."""
        pooled: Tensor = self.pooling(encoded)
        return pooled

    def _checked(self, part: str, found: Tensor, rows: int, width: int | None) -> Tensor:
        """Return ``found``; ConfigError unless it is (rows, width), of any width for None."""
        if torch.compiler.is_compiling():  # a comparison would fix the traced batch's size
            return found
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if not isinstance(shape, tuple) or len(shape) != 2 or shape[0] != rows or shape[1] != (width or shape[1]):
            wanted = f"({rows}, {width or 'any'})"
            name = getattr(self.task, part)
            raise ConfigError(f"tasks.{self.task.name}.{part} {name!r} must return a tensor {wanted}, got {shape}")
        return found
