"""The probe that decoders start from: the best affine map there is, and decoders that compute just that."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multitask.data.batches import TaskData
from multitask.model.probe import (
    FOLDS,
    PENALTY_OF_CLASSES,
    PENALTY_OF_FREE,
    PENALTY_OF_NUMBERS,
    cross_validate,
    fit_probe,
)
from multitask.settings.task import Task

NUMBERS = Task(name="t", text="a", label="y", kind="regression")
CLASSES = Task(name="t", text="a", label="y", labels=("x", "y", "z"))


def drawn(rows: int = 30, width: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features of mean square norm 1, numbers that follow from them but for noise, and three classes of those."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    features /= features.square().sum(1).mean().sqrt()
    numbers = 3 + 10 * features[:, 0] + torch.randn(rows, generator=generator, dtype=torch.float64)
    return features, numbers.float(), (numbers > 2).long() + (numbers > 4).long()


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("rows", [5, 30])
@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1e-7, 0.0), (1e6, 1e7)])
def test_of_numbers_of_any_size_it_is_the_ridge_regression(rows: int, free: int, factor: float, shift: float) -> None:
    features, numbers, _ = drawn(rows)
    numbers = shift + factor * numbers
    size = features[:, : 12 - free].square().sum(1).mean().sqrt()
    weight, bias = fit_probe(NUMBERS, features, numbers, free)
    x = torch.cat([features, torch.ones(rows, 1, dtype=torch.float64)], dim=1)
    penalty = torch.full((13,), PENALTY_OF_NUMBERS, dtype=torch.float64) * size**2
    penalty[12 - free :] = PENALTY_OF_FREE * features.var(0, correction=0)[-1]
    penalty[-1] = 0
    wanted = torch.linalg.solve(x.T @ x + torch.diag(penalty), x.T @ numbers.double())
    found = torch.cat([weight[0], bias])
    assert (x @ (found - wanted)).abs().max() < 1e-4 * factor


def test_one_feature_that_tells_the_classes_apart_makes_no_certainty() -> None:
    labels = torch.arange(8) % 2
    cosine = torch.where(labels == 1, 0.9, 0.8)[:, None] + torch.linspace(0, 0.01, 8)[:, None]
    task = dataclasses.replace(CLASSES, kind="binary", labels=("no", "yes"))
    weight, bias = fit_probe(task, torch.cat([torch.zeros(8, 3), cosine], dim=1), labels, free=1)
    outputs = cosine.double() @ weight[:, 3:].T + bias
    assert ((outputs[:, 0] > 0) == (labels == 1)).all()
    assert 2 < outputs.abs().max() < 8


def test_a_feature_that_is_the_same_but_for_rounding_does_not_count() -> None:
    features, numbers, _ = drawn(20)
    features[:, -1] = 1 + 6e-8 * torch.arange(20).remainder(3)
    weight, _ = fit_probe(NUMBERS, features, numbers, free=1)
    assert weight[0, -1].abs() < 10


def test_of_classes_no_other_map_has_a_smaller_loss() -> None:
    features, _, labels = drawn()
    weight, bias = fit_probe(CLASSES, features, labels)

    def loss(weight: Tensor, bias: Tensor) -> Tensor:
        scale = features.sub(features.mean(0)).square().sum(1).mean() / features.square().sum(1).mean()
        assert scale < 1.01  # the penalty is relative to the features' size
        entropies = F.cross_entropy(features @ weight.T + bias, labels, reduction="sum")
        return entropies + PENALTY_OF_CLASSES * weight.square().sum() * features.square().sum(1).mean()

    weight.requires_grad_(), bias.requires_grad_()
    gradients = torch.autograd.grad(loss(weight, bias), (weight, bias))
    assert max(gradient.abs().max() for gradient in gradients) < 1e-3  # the loss is convex


def test_the_size_of_the_features_does_not_matter() -> None:
    features, _, labels = drawn()
    small, large = (factor * features @ fit_probe(CLASSES, factor * features, labels)[0].T for factor in (1e-3, 1e3))
    assert (small - large).abs().max() < 1e-3


def test_class_weights_and_factors_of_the_loss() -> None:
    features, _, labels = drawn()
    plain = fit_probe(CLASSES, features, labels)
    louder = dataclasses.replace(CLASSES, loss_weight=7.0, reduction="sum")
    assert torch.equal(fit_probe(louder, features, labels)[0], plain[0])
    heavy = dataclasses.replace(CLASSES, class_weights=(1.0, 1.0, 50.0))
    shares = [
        (features @ weight.T + bias).softmax(1)[:, 2].mean()
        for weight, bias in (plain, fit_probe(heavy, features, labels))
    ]
    assert shares[1] > shares[0] + 0.1


def test_cross_validation_never_sees_the_row_that_it_answers() -> None:
    features, _, labels = drawn(rows=23)
    outputs = cross_validate(CLASSES, features, labels)
    order = np.argsort(labels.numpy(), kind="stable")
    for row in (0, 7, 22):
        part = int(np.flatnonzero(order == row)[0]) % FOLDS
        rest = [other for place, other in enumerate(order) if place % FOLDS != part]
        weight, bias = fit_probe(CLASSES, features[sorted(rest)], labels[sorted(rest)])
        assert (outputs[row] - (features[row] @ weight.T + bias)).abs().max() < 1e-6
    together = cross_validate(CLASSES, features[:6], labels[:6], units=[0, 0, 0, 1, 1, 1])
    weight, bias = fit_probe(CLASSES, features[3:6], labels[3:6])
    assert (together[:3] - (features[:3] @ weight.T + bias)).abs().max() < 1e-6
    assert cross_validate(NUMBERS, features[:2], torch.tensor([1.0, 2.0])).shape == (2, 1)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
@pytest.mark.parametrize("input", ["joint", "separate", "both"])
def test_a_linear_head_of_pairs_sees_the_features_that_are_written_down(
    make_model: Any, make_batch: Any, pooling: str, input: str
) -> None:
    task = Task(name="t", text=("a", "b"), label="y", labels=("x", "y"), input=input, pooling=pooling)
    model = make_model([task]).eval()
    decoder, batch = model.decoders["t"], make_batch(task, rows=4)
    if pooling == "attention":
        decoder.pooling.start_as_mean()
    with torch.no_grad():
        encoded = model.encoder_of("t")(**batch.tokens)
        found = decoder.head.features(*decoder.vectors(encoded))
        mask = batch.tokens.attention_mask[:, :, None]
        means = (encoded.last_hidden_state * mask).sum(1) / mask.sum(1)
        parts = means.chunk(task.encodings)
        if input == "both":
            p, u, v = (part / part.norm(dim=1, keepdim=True) for part in parts)
            parts = (4 * p, 4 * (u - v).abs(), 16 * u * v, (u * v).sum(1, keepdim=True))
        wanted = torch.cat(parts, dim=1)
        assert (found - wanted).abs().max() < 1e-5
        outputs = model("t", batch.tokens)
        assert (outputs - (wanted @ decoder.head.linear.weight.T + decoder.head.linear.bias)).abs().max() < 1e-5


def test_only_pairs_under_a_linear_head_are_encoded_three_times() -> None:
    pair: dict[str, Any] = {"name": "t", "text": ("a", "b"), "label": "y"}
    cosine = {"kind": "regression", "labels": (0, 1), "head": "cosine", "input": "separate"}
    assert Task(**pair).encodings == 3
    assert Task(**pair, input="joint").encodings == 1
    assert Task(**pair, **cosine).encodings == 2
    assert Task(name="t", text="a", label="y").encodings == 1


def test_three_encodings_come_pairs_first(tiny_weights: Any) -> None:
    from minbert.tokenizer import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(tiny_weights)
    task = Task(name="t", text=("a", "b"), label="y", kind="regression")
    from multitask.data.examples import Example

    examples = [Example(str(row), (f"one {row}", f"two {row} more"), 1.0, row) for row in range(3)]
    for ahead in (True, False):
        data = TaskData.build(task, examples, tokenizer, 100, ahead=ahead)
        tokens = data.batch(np.array([2, 0])).tokens
        alone = [
            tokenizer.tokenize_all(*columns)
            for columns in (
                [["one 2", "one 0"], ["two 2 more", "two 0 more"]],
                [["one 2", "one 0", "two 2 more", "two 0 more"]],
            )
        ]
        wanted = [row.tolist() for part in alone for row in np.split(part.input_ids, part.offsets[1:-1])]
        found = [ids[mask.bool()].tolist() for ids, mask in zip(tokens.input_ids, tokens.attention_mask, strict=True)]
        assert found == wanted
        assert tokens.token_type_ids[2:].sum() == 0 < tokens.token_type_ids[:2].sum()
