"""Gradient surgery (PCGrad): Yu et al. 2020, arXiv 2001.06782."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from multitask.data.batches import Batch
from multitask.updates.base import StepRecord, sum_gradients, trainable
from multitask.updates.one_step import OneStepUpdate

__all__ = ["PCGradUpdate", "project_conflicts"]


class PCGradUpdate(OneStepUpdate):
    """One step after projecting each task's encoder gradient off those it conflicts with.

    Source: Yu et al. 2020 (arXiv 2001.06782), algorithm 1: for each task, over the other tasks in random order,
    g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j where g_i . g_j < 0, with the original g_j; the projected gradients are
    summed. Decoders keep their own gradients. Since each projected gradient is a combination of the original ones,
    the projections are done on coefficients and the tasks' Gram matrix. The order comes from the passed generator.
    """

    def _one_step(self, batches: Mapping[str, Batch], factor: float) -> dict[str, StepRecord]:
        shared = [p for encoder in self.model.encoders.values() for p in trainable(encoder)]
        records, rows, used = {}, [], set[nn.Parameter]()
        for name, batch in batches.items():
            loss = self._backward(name, batch)
            own = trainable(self.model.decoders[name])
            sum_gradients([*shared, *own])
            flat = _flat_gradient(shared, batch.labels.device)
            norm = math.hypot(flat.norm().item(), *(p.grad.norm().item() for p in own if p.grad is not None))
            records[name] = self._record(name, batch, factor, loss, norm)
            rows.append(flat)
            used.update(parameter for parameter in shared if parameter.grad is not None)
            self._clear_encoders()
        gradients = torch.stack(rows)  # (tasks, parameters)
        weights = project_conflicts((gradients @ gradients.T).tolist(), self.order_rng)
        surgery = torch.tensor(weights, dtype=gradients.dtype, device=gradients.device) @ gradients
        start = 0
        for parameter in shared:
            size = parameter.numel()
            if parameter in used:
                parameter.grad = surgery[start : start + size].view_as(parameter)
            start += size
        self._step()
        return records


def project_conflicts(gram: list[list[float]], rng: np.random.Generator) -> list[float]:
    """Compute the weight of each task's gradient in PCGrad's sum.

    :param gram: (tasks, tasks), inner products of the tasks' gradients.
    :param rng: draws the order of the others for each task.
    :return: (tasks,), the weights.
    """
    tasks = len(gram)
    totals = [0.0] * tasks
    for i in range(tasks):
        coefficients = [float(i == k) for k in range(tasks)]
        for j in rng.permutation([k for k in range(tasks) if k != i]).tolist():
            inner = sum(coefficients[k] * gram[k][j] for k in range(tasks))
            if inner < 0 and gram[j][j] > 0:
                coefficients[j] -= inner / gram[j][j]
        totals = [total + own for total, own in zip(totals, coefficients, strict=True)]
    return totals


def _flat_gradient(parameters: Sequence[nn.Parameter], device: torch.device) -> Tensor:
    """Join all gradients to one vector, zero where there is none; empty for a frozen encoder."""
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    return torch.cat(parts) if parts else torch.zeros(0, device=device)
