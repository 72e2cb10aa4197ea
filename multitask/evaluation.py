"""Outputs of a trained model, without gradients: one path for evaluation and prediction."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import torch
from torch import Tensor

from minbert.fast.casts import hold_casts
from minbert.token_batch import batches_by_length
from multitask.data.batches import EncodedTexts, TaskData
from multitask.distributed import rank, size, sum_over_ranks
from multitask.errors import ConfigError
from multitask.metrics import METRICS, Score, bootstrap_score, compute_metric, macro_f1
from multitask.model.losses import best_threshold, predicted_values
from multitask.model.model import MultitaskModel
from multitask.precision import autocast
from multitask.settings.checks import listed
from multitask.settings.task import Task

__all__ = ["Selection", "evaluate_tasks", "mean_score", "outputs_of"]


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
            tokens, windows = texts.batch(rows)
            outputs[rows] = model(task, tokens.to(device), windows).float().cpu()
    sum_over_ranks([outputs])  # a row is zero in all processes but one
    return outputs


# Accuracy .8 over so many rows has a standard error of .04; of fewer, the highest of several epochs is mostly luck.
FEWEST_TO_CHOOSE = 100


@dataclass(frozen=True)
class Selection:
    """Which dev score says how good an epoch is; built by ``parse``.

    :param task: whose, None for the plain mean of all tasks that have dev rows.
    :param metric: another metric than the task's own.
    :param sign: -1 where less is better.
    :param last: no score says it, the last epoch is kept.
    """

    task: str | None
    metric: str | None = None
    sign: int = 1
    last: bool = False

    @classmethod
    def parse(cls, select: str, tasks: Sequence[Task], dev_rows: Mapping[str, int] | None = None) -> Self:
        """Read "auto", "last", "mean", the name of a task, or TASK.METRIC.

        :param dev_rows: by task, where they are known: "auto" is "mean" if each task has FEWEST_TO_CHOOSE, else "last".
        :raises ConfigError: for anything else, a metric that does not fit the task, or a mean that there is not.
        """
        known = {task.name: task for task in tasks}
        if select == "auto":
            enough = dev_rows is None or min(dev_rows.values()) >= FEWEST_TO_CHOOSE
            select = "mean" if enough else "last"
        if select == "last":
            return cls(None, last=True)
        name, dot, metric = select.partition(".")
        if select == "mean" and len(known) == 1:
            (name,) = known
        elif select == "mean":
            lower = next((task for task in tasks if not METRICS.greater_is_better(task.scored_by)), None)
            if lower is not None:
                raise ConfigError(
                    f"select must be a task or TASK.METRIC where a task is scored by an error ({lower.name} by"
                    f" {lower.scored_by}): there is no mean of it and other scores, got {select!r}"
                )
            if dev_rows is None or any(dev_rows.values()):
                return cls(None)
            name = select
        elif name not in known:
            words = listed(["auto", "last", "mean", *known])
            raise ConfigError(f"select must be one of {words}, or TASK.METRIC, got {select!r}")
        if dev_rows is not None and not dev_rows.get(name):
            raise ConfigError(f"select must be auto or last where there are no dev rows to choose by, got {select!r}")
        if dot:
            known[name].check_metric(f"the metric of select {select}", metric)
        own = known[name].scored_by
        sign = 1 if METRICS.greater_is_better(metric or own) else -1
        return cls(name, metric if dot and metric != own else None, sign)

    def value(self, scores: Mapping[str, Score]) -> float:
        """Return how good an epoch is: an undefined score counts as 0, an undefined error as the worst.

        By "last" all are equal, and of equal ones the later is kept.
        """
        if self.last:
            return 0.0
        if self.task is None:
            mean = mean_score(list(scores.values()))
            assert mean is not None  # parse refuses a mean with errors
            return mean
        score = scores[self.task]
        value = score.value if self.metric is None else score.others[self.metric]
        if math.isfinite(value):
            return self.sign * value
        return 0.0 if self.sign > 0 else -sys.float_info.max


def evaluate_tasks(
    model: MultitaskModel,
    data: Mapping[str, TaskData],
    *,
    device: torch.device,
    dtype: torch.dtype,
    intervals: bool = False,
    selection: Selection | None = None,
    tune: Sequence[Task] = (),
) -> dict[str, Score]:
    """Return the score of each task that has rows, with a 95 % bootstrap interval if asked for, else NaN bounds.

    :param selection: what it needs beside the tasks' own metrics is among the ``others`` of its task's score.
    :param tune: tasks as they are configured: of those with any number of classes a row and no threshold, it is chosen
        on these rows, and kept in the model.
    """
    scores = {}
    tuned = {task.name for task in tune if task.rules.many and task.threshold is None}
    for name, rows in data.items():
        if not len(rows):
            continue
        task = model.tasks[name]
        metric, classes = task.scored_by, task.classes
        outputs = outputs_of(model, name, rows.texts, device=device, dtype=dtype)
        if name in tuned:
            _, probabilities = predicted_values(task, outputs)
            if probabilities is not None:
                task = model.tasks[name] = replace(task, threshold=best_threshold(probabilities, rows.labels))
        values, _ = predicted_values(task, outputs)
        predictions, labels = values.numpy(), rows.labels.numpy()
        if intervals:
            score = bootstrap_score(metric, predictions, labels, classes=classes)
        else:
            value = compute_metric(metric, predictions, labels, classes=classes)
            score = Score(value, math.nan, math.nan, len(labels), metric)
        if "macro_f1" in task.rules.metrics:
            score = replace(score, macro_f1=macro_f1(predictions, labels))
        if selection is not None and selection.task == name and selection.metric is not None:
            other = compute_metric(selection.metric, predictions, labels, classes=classes)
            score = replace(score, others={selection.metric: other})
        scores[name] = score
    return scores


def mean_score(scores: Sequence[Score]) -> float | None:
    """Return the plain mean of the tasks' scores; None without any, or where one is an error, of which less is better.

    An undefined one (a constant prediction's Pearson) counts as 0, as does an infinite one.
    """
    if not scores or not all(METRICS.greater_is_better(score.metric) for score in scores):
        return None
    return sum(score.value if math.isfinite(score.value) else 0.0 for score in scores) / len(scores)
