"""Where decoders start: from a probe on the encoder as it comes, or from random weights."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minbert.fast.casts import hold_casts
from minbert.model import BertModel
from multitask.data.batches import EncodedTexts, TaskData
from multitask.data.examples import Dataset
from multitask.data.splits import units_of
from multitask.distributed import broadcast_from_main
from multitask.metrics import bootstrap_score
from multitask.model.decoders import TaskDecoder
from multitask.model.heads import LinearHead
from multitask.model.losses import predicted_values
from multitask.model.model import MultitaskModel
from multitask.model.poolings import AttentionPooling
from multitask.model.probe import cross_validate, fit_probe
from multitask.training.record import score_record

__all__ = ["PROBE_ROWS", "start_decoders"]

PROBE_ROWS = 2000  # of more rows, as many are drawn
_BATCH = 32


def start_decoders(
    model: MultitaskModel,
    data: Mapping[str, TaskData],
    dev: Mapping[str, TaskData],
    rows: Mapping[str, Dataset],
    names: Collection[str],
    *,
    device: torch.device,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Give the decoders of the tasks ``names`` the start that their tasks ask for.

    A probe is fitted in float32 and without dropout to PROBE_ROWS of the training rows at most, drawn by the seed.

    :param data: each task's training rows.
    :param dev: each task's dev rows; of tasks without any the probe is scored by cross-validation.
    :param rows: the training rows, with what each must not be parted from.
    :return: these scores, as the record has them.
    """
    scores: dict[str, dict[str, Any]] = {}
    model.eval()
    for name in names:
        task, decoder = model.tasks[name], model.decoders[name]
        assert isinstance(decoder, TaskDecoder)
        head, pooling = decoder.head, decoder.pooling
        if task.start != "probe" or not isinstance(head, LinearHead):
            continue
        if isinstance(pooling, AttentionPooling):
            pooling.start_as_mean()
        chosen = _chosen(len(data[name]), seed)
        features = _features(decoder, head, model.encoder_of(name), data[name].texts, chosen, device)
        labels = data[name].labels[chosen]
        free = int(head.compares)  # the cosine alone may be all that few rows can tell
        found = broadcast_from_main([part.tolist() for part in fit_probe(task, features, labels, free)])
        with torch.no_grad():
            for parameter, value in zip((head.linear.weight, head.linear.bias), found, strict=True):
                parameter.copy_(torch.tensor(value))
        units = np.array(units_of([(task, rows[name])])[0])[chosen]
        if not len(dev[name]) and len(np.unique(units)) > 1:
            values, _ = predicted_values(task, cross_validate(task, features, labels, free, units))
            score = bootstrap_score(task.scored_by, values.numpy(), labels.numpy(), classes=task.classes)
            scores[name] = score_record(score)
    return scores


def _chosen(count: int, seed: int) -> np.ndarray:
    if count <= PROBE_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng((seed, count)).permutation(count)[:PROBE_ROWS])


@torch.inference_mode()
def _features(
    decoder: TaskDecoder,
    head: LinearHead,
    encoder: BertModel,
    texts: EncodedTexts,
    rows: np.ndarray,
    device: torch.device,
) -> Tensor:
    """Return what the head's affine map sees of the rows: (rows, features), float32, on the CPU."""
    parts: list[Tensor] = []
    with hold_casts():
        for batch in np.array_split(rows, -(-len(rows) // _BATCH)):
            tokens, windows = texts.batch(batch)
            features = head.features(*decoder.vectors(encoder(**tokens.to(device)))).float().cpu()
            # An affine map of windows' mean features is the mean of its outputs.
            parts += [features] if windows is None else [each.mean(0, True) for each in features.split(list(windows))]
    return torch.cat(parts)
