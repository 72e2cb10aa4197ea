"""One step of masked-language-model training, and the loss on rows held out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minbert.heads import BertForMaskedLM
from minbert.optim import AdamW, linear_schedule, parameter_groups
from minbert.packing import Packing
from minbert.token_batch import batches_by_length
from multitask.errors import RunError
from multitask.precision import autocast
from multitask.pretraining.masks import Masked, Masker
from multitask.pretraining.rows import Order, Rows
from multitask.pretraining.settings import PretrainConfig

__all__ = ["MaskedScore", "Step", "Trainer", "masked_logits", "score", "with_fixed_masks"]

TRAIN, HELD_OUT = 3, 4  # streams of masks, beside those of rows.py


@dataclass(frozen=True)
class MaskedScore:
    """How well ``n`` masked tokens are filled in: the mean cross-entropy in nats, and the share that is right."""

    loss: float
    accuracy: float
    n: int

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class Step:
    """What a step did: its number over the training from 1, its rows, masked tokens, loss and learning rate."""

    number: int
    rows: int
    masked: int
    loss: float
    lr: float


def masked_logits(model: BertForMaskedLM, batch: Masked) -> Tensor:
    """Compute logits of the chosen tokens alone: float32 (chosen, vocab_size), in the order of ``batch.places``."""
    encoded = model.bert(**batch.tokens)
    assert isinstance(encoded.packing, Packing)
    mask = encoded.packing.mask
    place_in_packed = torch.empty(mask.numel(), dtype=torch.int64, device=mask.device)
    place_in_packed[encoded.packing.token_index] = torch.arange(encoded.packing.tokens, device=mask.device)
    hidden = encoded.packed.index_select(0, place_in_packed[batch.places])  # (chosen, hidden_size)
    return model.predict_tokens(hidden).float()


class Trainer:
    """The model, its rows and its optimizer; each step follows from the weights and from (seed, epoch, step)."""

    def __init__(
        self, model: BertForMaskedLM, rows: Rows, masker: Masker, settings: PretrainConfig, dtype: torch.dtype
    ) -> None:
        self.model, self.rows, self.masker, self.settings, self.dtype = model, rows, masker, settings, dtype
        self.order = Order(rows.lengths, settings.batch_size, settings.seed)
        groups = parameter_groups(model, settings.lr, settings.weight_decay)
        self.optimizer = AdamW(groups, lr=settings.lr, eps=settings.eps)
        self.total = self.order.steps * settings.epochs
        self._warmup = round(settings.warmup * self.total)

    def step(self, epoch: int, step: int) -> Step:
        """Take a step.

        :param epoch: from 0, as is ``step``, its number in the epoch.
        :raises RunError: for a loss that is not finite, before anything is changed.
        """
        number = epoch * self.order.steps + step
        indices = self.order.rows(epoch, step)
        batch = self.masker(self.rows.batch(indices), np.random.default_rng((self.settings.seed, TRAIN, epoch, step)))
        batch = _to(batch, self.model.device)
        self.model.train()
        with autocast(self.dtype, self.model.device):
            logits = masked_logits(self.model, batch)
        loss = F.cross_entropy(logits, batch.targets)
        if not math.isfinite(value := loss.item()):
            raise RunError(f"step {number + 1}: the loss is {value}; lower the learning rate ({self.settings.lr:g})")
        loss.backward()
        rate = self.settings.lr * linear_schedule(number, self.total, self._warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(number + 1, len(indices), len(batch.targets), value, rate)


def with_fixed_masks(rows: Rows, masker: Masker, seed: int) -> list[Masked]:
    """Return all rows in batches of like length, with masks that follow from the seed."""
    rng = np.random.default_rng((seed, HELD_OUT))
    return [masker(rows.batch(indices), rng) for indices in batches_by_length(rows.lengths)]


@torch.inference_mode()
def score(model: BertForMaskedLM, batches: list[Masked], dtype: torch.dtype) -> MaskedScore:
    """Score the filling in of masked tokens, without dropout."""
    model.eval()
    loss, right, n = 0.0, 0, 0
    with autocast(dtype, model.device):
        for batch in _on(batches, model.device):
            logits = masked_logits(model, batch)
            loss += F.cross_entropy(logits, batch.targets, reduction="sum").item()
            right += int((logits.argmax(1) == batch.targets).sum())
            n += len(batch.targets)
    return MaskedScore(loss / n, right / n, n)


def _on(batches: list[Masked], device: torch.device) -> Iterator[Masked]:
    return (_to(batch, device) for batch in batches)


def _to(batch: Masked, device: torch.device) -> Masked:
    return Masked(batch.tokens.to(device), batch.places.to(device), batch.targets.to(device))
