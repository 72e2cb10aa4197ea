"""A pooling: the mean of a row's states, each weighted by a learned score."""

from torch import Tensor, nn

from minbert import BertConfig, BertOutput
from multitask import POOLINGS, Task


@POOLINGS.register("weighted")
class Weighted(nn.Module):
    def __init__(self, task: Task, config: BertConfig) -> None:
        super().__init__()
        self.score = nn.Linear(config.hidden_size, 1)

    def forward(self, encoded: BertOutput) -> Tensor:
        states, real = encoded.last_hidden_state, encoded.packing.mask  # (rows, seq, hidden), (rows, seq)
        scores = self.score(states).squeeze(2).masked_fill(~real, float("-inf"))
        return (scores.softmax(1)[:, :, None] * states).sum(1)  # (rows, hidden)
