"""Train with a loop of your own on minbert alone: torch's optimizer, a schedule, gradient accumulation.

    python examples/04_own_loop.py

Prints each epoch's loss and how many of 40 dev sentences get the right one of five grades; about half a minute. Takes
other weights as an argument: python examples/04_own_loop.py bert-base-uncased
"""

import csv
import sys
from functools import partial
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from minbert import BertModel, BertTokenizer, linear_schedule, mean_pool, parameter_groups

WEIGHTS = sys.argv[1] if len(sys.argv) > 1 else "all-minilm-l6-v2"
EPOCHS, BATCH, PARTS = 4, 16, 2  # a step takes 16 rows, in two parts of 8


def read(name: str) -> tuple[list[str], torch.Tensor]:
    """Return the sentences of a file and their grades, int64 (rows,)."""
    with open(Path(__file__).parent / "data" / name, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row["sentence"] for row in rows], torch.tensor([int(row["sentiment"]) for row in rows])


def logits(texts: list[str]) -> torch.Tensor:
    """Return a score for each grade, (texts, 5)."""
    outputs: torch.Tensor = head(mean_pool(encoder(**tokenizer(texts, truncation=True).to(encoder.device))))
    return outputs


torch.manual_seed(1)
tokenizer, encoder = BertTokenizer.from_pretrained(WEIGHTS), BertModel.from_pretrained(WEIGHTS)
head = torch.nn.Linear(encoder.config.hidden_size, 5)
model = torch.nn.ModuleList([encoder, head])
(texts, labels), (dev_texts, dev_labels) = read("sst-train.tsv"), read("sst-dev.tsv")
steps = len(texts) // BATCH  # in an epoch
optimizer = torch.optim.AdamW(parameter_groups(model, lr=2e-4, weight_decay=0.01))
schedule = partial(linear_schedule, total_steps=EPOCHS * steps, warmup_steps=steps // 2)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
for epoch in range(EPOCHS):
    model.train()
    total = 0.0
    for rows in torch.randperm(len(texts)).split(BATCH)[:steps]:
        for part in rows.chunk(PARTS):
            loss = cross_entropy(logits([texts[row] for row in part]), labels[part], reduction="sum") / BATCH
            loss.backward()  # adds to the gradients of the part before
            total += loss.item()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    model.eval()
    with torch.inference_mode():
        right = int((logits(dev_texts).argmax(1) == dev_labels).sum())
    print(f"epoch {epoch + 1}  loss {total / steps:.3f}  right {right} of {len(dev_texts)}")
