"""A learned bias on the scores, through attention of packed rows: against the formula on padded ones, by autograd."""

import math

import pytest
import torch
from torch import Tensor

from minbert.fast.attention import Heads, attention, fitted_bias, self_attention
from minbert.packing import Packing

HEADS, SIZE = 3, 4
HIDDEN = HEADS * SIZE


def draw_mask(kind: str, batch: int, seq: int) -> Tensor:
    """Bool (batch, seq); with padding or holes, one row is full and one has a single token."""
    generator = torch.Generator().manual_seed(1)
    if kind == "none":
        return torch.ones(batch, seq, dtype=torch.bool)
    if kind == "right":
        kept = torch.arange(seq) < torch.randint(1, seq + 1, (batch, 1), generator=generator)
    else:
        kept = torch.rand(batch, seq, generator=generator) < 0.6
    kept[:, 0] = True
    kept[batch // 2] = True
    kept[batch // 3, 1:] = False
    if kind == "one hole":  # every other group of rows is without
        kept = torch.arange(seq) < kept.sum(1, keepdim=True)
        kept[-1] = True
        kept[-1, 1] = False
    return kept


def by_formula(projected: Tensor, bias: Tensor, kept: Tensor) -> Tensor:
    """Context (batch, seq, hidden) of padded projections (batch, seq, 3 * hidden)."""
    q, k, v = projected.unflatten(2, (3, HEADS, SIZE)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) / math.sqrt(SIZE) + bias
    weights = scores.masked_fill(~kept[:, None, None], -math.inf).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", ["none", "right", "holes", "one hole"])
@pytest.mark.parametrize(("batch", "seq"), [(11, 13), (6, 70), (3, 16), (3, 1), (40, 2)])
def test_context_and_gradients_are_those_of_the_formula(kind: str, batch: int, seq: int) -> None:
    if seq == 1 and kind != "none":
        pytest.skip("a row of one token has no padding")
    generator = torch.Generator().manual_seed(0)
    kept = draw_mask(kind, batch, seq)
    packing = Packing(kept)
    projected = torch.randn(batch, seq, 3 * HIDDEN, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(HEADS, seq, seq, generator=generator, dtype=torch.float64).requires_grad_()
    ahead = torch.randn(packing.tokens, HIDDEN, generator=generator, dtype=torch.float64)
    found, due = [], []
    for results, context in (
        (found, self_attention(packing.pack(projected), packing, HEADS, 0.0, bias)),
        (due, packing.pack(by_formula(projected, bias, kept))),
    ):
        results += [context, *torch.autograd.grad(context, (projected, bias), ahead)]
    for mine, expected in zip(found, due, strict=True):
        assert torch.allclose(mine, expected, atol=1e-12)
    assert found[2].abs().max() > 0 or seq == 1
    with torch.no_grad():  # by torch's fused attention where rows are long
        heads, filled = Heads(packing, HEADS, 0.0), packing.fill(packing.pack(projected))
        alone, saved, _ = attention(filled, heads, fitted_bias(bias, packing), saving=False)
    assert len(saved) == 1  # no probabilities
    assert torch.allclose(packing.cut(alone), due[0], atol=1e-12)


@pytest.mark.parametrize("kind", ["right", "holes"])
def test_gradients_through_dropout_are_those_of_differences(kind: str) -> None:
    kept = draw_mask(kind, 5, 4)
    packing = Packing(kept)
    projected = torch.randn(packing.tokens, 3 * HIDDEN, dtype=torch.float64).requires_grad_()
    bias = torch.randn(HEADS, 4, 4, dtype=torch.float64).requires_grad_()

    def context(projected: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same weights are dropped each time
        return self_attention(projected, packing, HEADS, 0.3, bias)

    assert torch.autograd.gradcheck(context, (projected, bias))
