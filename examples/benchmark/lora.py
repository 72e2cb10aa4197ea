"""Measure LoRA on the query and value projections: what replaces a module that the fast path knows keeps its speed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tools import SIDES, Bench
from torch import Tensor, nn

from minbert import AdamW, BertModel, BertTokenizer

BATCH, BATCHES = 32, 8


class LoRALinear(nn.Module):
    """A frozen linear map and a trained one of low rank beside it: W x + b + (alpha / rank) B A x.

    Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3; B begins at zero.
    """

    def __init__(self, frozen: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        self.frozen, self.scale = frozen, alpha / rank
        self.down = nn.Linear(frozen.in_features, rank, bias=False)
        self.up = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        result: Tensor = self.frozen(x) + self.scale * self.up(self.down(x))
        return result


def lora(bench: Bench) -> None:
    """Time training steps on Quora pairs, of the adapters and a linear head alone."""
    tokenizer = BertTokenizer.from_pretrained(bench.weights)
    rows = bench.prepared.train["para"].examples[: BATCH * BATCHES]
    parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    columns = [map(list, zip(*(row.texts for row in part), strict=True)) for part in parts]
    limit = min(128, tokenizer.model_max_length)
    tokens = [tokenizer(*each, truncation=True, max_length=limit) for each in columns]
    labels = [torch.tensor([row.label for row in part], dtype=torch.float32) for part in parts]

    def side(dtype: torch.dtype) -> Callable[[], object]:
        torch.manual_seed(0)
        model = BertModel.from_pretrained(bench.weights).train().requires_grad_(False)
        for layer in model.layers:
            attention: Any = layer.attention
            attention.query, attention.value = LoRALinear(attention.query), LoRALinear(attention.value)
        head = nn.Linear(model.config.hidden_size, 1)
        trained = [p for p in (*model.parameters(), *head.parameters()) if p.requires_grad]
        optimizer = AdamW(trained, lr=1e-4)

        def step_on_each_batch() -> None:
            for batch, expected in zip(tokens, labels, strict=True):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                    states = model(**batch).last_hidden_state  # (batch, seq, hidden_size), zero at padding
                    vectors = states.sum(1) / batch["attention_mask"].sum(1, keepdim=True)
                    loss = F.binary_cross_entropy_with_logits(head(vectors).squeeze(1).float(), expected)
                loss.backward()
                optimizer.step()

        return step_on_each_batch

    sides: SIDES = {"bfloat16": side(torch.bfloat16), "float32": side(torch.float32)}
    bench.compare(f"LoRA on query and value, {BATCH} pairs", sides, rows=len(rows))
