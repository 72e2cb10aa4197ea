"""Outputs of a trained model, without gradients: one path for evaluation and prediction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from minbert.fast.casts import hold_casts
from minbert.token_batch import batches_by_length
from multitask.data.batches import EncodedTexts, TaskData
from multitask.distributed import rank, size, sum_over_ranks
from multitask.metrics import METRICS, Score, bootstrap_score, macro_f1
from multitask.model.losses import predicted_values
from multitask.model.model import MultitaskModel
from multitask.precision import autocast

__all__ = ["evaluate_tasks", "mean_score", "outputs_of"]


@torch.inference_mode()
def outputs_of(
    model: MultitaskModel, task: str, texts: EncodedTexts, *, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return outputs (rows, num_outputs) in float32 on the CPU, in the rows' own order; put the model in eval mode.

    Of several processes that train together each computes some of the batches, and all get all outputs.
    """
    model.eval()
    outputs = torch.zeros(texts.rows, model.tasks[task].num_outputs)
    with hold_casts(), autocast(dtype, device):
        for rows in islice(batches_by_length(texts.lengths), rank(), None, size()):
            outputs[rows] = model(task, texts.tokens(rows).to(device)).float().cpu()
    sum_over_ranks([outputs])  # a row is zero in all processes but one
    return outputs


def evaluate_tasks(
    model: MultitaskModel,
    data: Mapping[str, TaskData],
    *,
    device: torch.device,
    dtype: torch.dtype,
    intervals: bool,
) -> dict[str, Score]:
    """Return each task's score, with a 95 % bootstrap interval if asked for, else NaN bounds."""
    scores = {}
    for name, rows in data.items():
        task = model.tasks[name]
        values, _ = predicted_values(task, outputs_of(model, name, rows.texts, device=device, dtype=dtype))
        predictions, labels = values.numpy(), rows.labels.numpy()
        if intervals:
            score = bootstrap_score(task.metric, predictions, labels)
        else:
            score = Score(METRICS[task.metric](predictions, labels), math.nan, math.nan, len(labels), task.metric)
        f1 = macro_f1(predictions, labels) if "macro_f1" in task.rules.metrics else None
        scores[name] = replace(score, macro_f1=f1)
    return scores


def mean_score(scores: Sequence[Score]) -> float:
    """Return the plain mean of the tasks' scores; an undefined one (a constant prediction's Pearson) counts as 0."""
    return sum(0.0 if score.value != score.value else score.value for score in scores) / len(scores)
