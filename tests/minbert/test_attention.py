"""MultiHeadAttention on packed tokens, for layers and for pooling, against the formula on padded ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minbert.attention import MultiHeadAttention
from minbert.errors import InputError
from minbert.fast.parts import attention as call_with_weights
from minbert.fast.parts import call
from minbert.layers import Dropout
from minbert.packing import Packing

HIDDEN, HEADS = 12, 3


def compute(kernels: str, module: nn.Module, *arguments: Any) -> Any:
    """A module's own result, or its fast counterpart's."""
    return module(*arguments) if kernels == "reference" else call(module, *arguments)


def make_case(seed: int, mask: str) -> tuple[MultiHeadAttention, Tensor, Tensor, Tensor]:
    """Attention in float64 and eval mode, states (batch, seq, hidden), queries (batch, hidden), a mask."""
    torch.manual_seed(seed)
    attention = MultiHeadAttention(HIDDEN, HEADS, 0.4).double().eval()
    batch, seq = 10, 6
    hidden, queries = torch.randn(batch, seq, HIDDEN).double(), torch.randn(batch, HIDDEN).double()
    kept = torch.ones(batch, seq, dtype=torch.bool)
    if mask == "right":
        kept = torch.arange(seq) < torch.randint(1, seq + 1, (batch, 1))
    if mask == "holes":
        kept = torch.rand(batch, seq) < 0.5
        kept[:, 0] = True
    return attention, hidden, queries, kept


def split(states: Tensor) -> Tensor:
    """(batch, seq, hidden) -> (batch, heads, seq, head_size)."""
    return states.unflatten(2, (HEADS, HIDDEN // HEADS)).transpose(1, 2)


def by_formula(attention: MultiHeadAttention, hidden: Tensor, queries: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Context (batch, queries, hidden) and weights (batch, heads, queries, seq) of padded states."""
    query, key, value = attention.query(queries), attention.key(hidden), attention.value(hidden)
    scores = split(query) @ split(key).transpose(2, 3) / (HIDDEN // HEADS) ** 0.5
    weights = scores.masked_fill(~kept[:, None, None, :], float("-inf")).softmax(-1)
    return (weights @ split(value)).transpose(1, 2).flatten(2), weights


@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_self_attention(kernels: str, mask: str) -> None:
    attention, hidden, _, kept = make_case(0, mask)
    packing = Packing(kept)
    context, weights = by_formula(attention, hidden, hidden, kept)
    found, _ = compute(kernels, attention, packing.pack(hidden), packing)
    assert torch.allclose(found, packing.pack(context), atol=1e-12)
    if kernels == "fast":
        found, found_weights = call_with_weights(attention, packing.pack(hidden), packing, weights=True)
    else:
        found, found_weights = attention(packing.pack(hidden), packing)
    assert torch.allclose(found, packing.pack(context), atol=1e-12)
    assert torch.allclose(found_weights * kept[:, None, :, None], weights * kept[:, None, :, None], atol=1e-12)


@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_pooling_with_one_query_a_row(kernels: str, mask: str) -> None:
    attention, hidden, queries, kept = make_case(1, mask)
    packing = Packing(kept)
    context, weights = by_formula(attention, hidden, queries[:, None], kept)
    found, _ = compute(kernels, attention, packing.pack(hidden), packing, queries)
    assert found.shape == (10, HIDDEN)
    assert torch.allclose(found, context[:, 0], atol=1e-12)
    if kernels == "fast":
        found, found_weights = call_with_weights(attention, packing.pack(hidden), packing, queries, weights=True)
    else:
        found, found_weights = attention(packing.pack(hidden), packing, queries)
    assert torch.allclose(found, context[:, 0], atol=1e-12)
    assert found_weights.shape == (10, HEADS, 1, 6)
    assert torch.allclose(found_weights, weights, atol=1e-12)
    assert torch.allclose(found_weights.sum(-1), torch.ones(10, HEADS, 1).double())


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_gradients_through_dropout_are_those_of_differences(kernels: str, mask: str, pooled: bool) -> None:
    attention, hidden, queries, kept = make_case(2, mask)
    kept, hidden, queries = kept[:4, :4], hidden[:4, :4], queries[:4]
    packing = Packing(kept)
    attention.train()

    def context(packed: Tensor, asking: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same weights are dropped each time
        result: Tensor = compute(kernels, attention, packed, packing, asking if pooled else None)[0]
        return result

    packed = packing.pack(hidden).requires_grad_()
    assert torch.autograd.gradcheck(context, (packed, queries.requires_grad_(pooled)))
    dropped = context(packed, queries)
    attention.eval()
    assert not torch.allclose(dropped, context(packed, queries))


def test_gradients_through_plain_dropout(kernels: str, exact_rate: Callable[[float], float]) -> None:
    dropout = Dropout(0.4)

    def dropped(states: Tensor) -> Tensor:
        torch.manual_seed(3)
        result: Tensor = compute(kernels, dropout, states)
        return result

    states = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dropped, states)
    gone = dropped(states) == 0
    assert 0 < gone.sum() < 35
    assert torch.allclose(dropped(states)[~gone], states[~gone] / (1 - exact_rate(0.4)), rtol=1e-12)


@pytest.mark.parametrize("mask", ["none", "right"])
def test_second_derivatives_are_refused_by_the_fast_path_and_right_on_the_reference(mask: str) -> None:
    attention, hidden, _, kept = make_case(3, mask)
    packing = Packing(kept)
    states = packing.pack(hidden).requires_grad_()

    def penalty(kernels: str) -> Tensor:
        context = compute(kernels, attention, states, packing)[0]
        (gradient,) = torch.autograd.grad(context.square().sum(), states, create_graph=True)
        return gradient.square().sum()

    with pytest.raises(InputError, match="second derivatives need the reference path: .* `with minbert.kernels"):
        penalty("fast").backward()
    attention.zero_grad()
    penalty("reference").backward()
    weight, step = attention.query.weight, 1e-5
    assert weight.grad is not None
    found = weight.grad[2, 1].item()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[2, 1] += sign * step
        values.append(penalty("reference").item())
        with torch.no_grad():
            weight[2, 1] -= sign * step
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)
