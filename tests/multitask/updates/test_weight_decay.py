"""Weight decay moves matrices and embeddings; biases and norms stay, as in BERT's released code."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from multitask.settings.choices import UPDATES
from multitask.settings.config import TrainConfig
from multitask.settings.task import Task
from multitask.updates.stepper import Stepper

LR, DECAY = 1e-2, 0.3
ALL = ("sst", "para", "sts")
# Separate updates one task at a time: the second step of a round would start from other weights.
CASES = [(kind, names) for kind in UPDATES for names in ([(name,) for name in ALL] if kind == "separate" else [ALL])]


@pytest.mark.parametrize(("kind", "names"), CASES)
def test_matrices_decay_and_biases_and_norms_do_not(
    kernels: str, make_model: Any, make_batches: Any, three_tasks: tuple[Task, ...], kind: str, names: tuple[str, ...]
) -> None:
    """One step with decay less the same step without it."""
    after = []
    for decay in (0.0, DECAY):
        tasks = [dataclasses.replace(task, lr=LR, decoder_lr=2 * LR, weight_decay=decay) for task in three_tasks]
        model = make_model(tasks)
        before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
        update = Stepper(model, TrainConfig(update=kind), np.random.default_rng(0))
        batches = make_batches(model)
        update.round({name: batches[name] for name in names}, 1.0)
        after.append(dict(model.named_parameters()))
    plain, decayed = after
    trained = [f"decoders.{name}." for name in names]
    counts = {"decayed": 0, "still": 0}
    for key, start in before.items():
        moved = decayed[key] - plain[key]
        if not key.startswith(("encoders.", *trained)):
            assert torch.equal(decayed[key], start), key
        elif key.endswith("bias") or "LayerNorm" in key:
            assert torch.equal(decayed[key], plain[key]), key
            counts["still"] += 1
        else:
            rate = 2 * LR if key.startswith("decoders.") else LR
            assert torch.allclose(moved, -rate * DECAY * start, rtol=0, atol=1e-12), key
            counts["decayed"] += 1
    assert counts["decayed"] > 15
    assert counts["still"] > 20
