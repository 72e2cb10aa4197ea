"""A learned bias on the scores, through attention of packed rows: against the formula on padded ones, by autograd."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minbert
from minbert import BertModel
from minbert.attention import MultiHeadAttention
from minbert.fast.attention import Heads, attention, fitted_bias, self_attention
from minbert.packing import Packing

Inputs = dict[str, Tensor]
Change = Callable[[BertModel], None]
pytestmark = pytest.mark.usefixtures("fast")
HEADS, SIZE = 3, 4
HIDDEN = HEADS * SIZE


def draw_mask(kind: str, batch: int, seq: int) -> Tensor:
    """Bool (batch, seq); with padding or holes, one row is full and one has a single token."""
    generator = torch.Generator().manual_seed(1)
    if kind == "none" or seq == 1:
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


# Whole models


def make_mpnet(make_model: Any, **values: Any) -> BertModel:
    model: BertModel = make_model(model_type="mpnet", pad_token_id=1, max_position_embeddings=160, **values)
    return model


def hooked(place: str) -> Change:
    """A hook that changes the output: a piece that did not call it would be seen."""

    def change(model: BertModel) -> None:
        model.get_submodule(place).register_forward_hook(
            lambda module, arguments, output: (
                (1.5 * output[0], *output[1:]) if isinstance(output, tuple) else 1.5 * output
            )
        )

    return change


class Falling(nn.Module):
    """In the place of the learned bias: each head minds distance by a slope of its own."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.linspace(0.1, 0.5, heads, dtype=torch.float64))

    def forward(self, seq: int) -> Tensor:
        places = torch.arange(seq)
        return -self.slopes[:, None, None] * (places - places[:, None]).abs()


def replace_bias(model: BertModel) -> None:
    model.relative_attention_bias = Falling(2)  # type: ignore[assignment]


def replace_attention(model: BertModel) -> None:
    class Doubled(MultiHeadAttention):
        def forward(self, *arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
            context, weights = super().forward(*arguments, **named)
            return 2 * context, weights

    model.layers[0].attention.__class__ = Doubled


def freeze_bias(model: BertModel) -> None:
    model.relative_attention_bias.requires_grad_(False)


CHANGES: dict[str, Change] = {
    "none": lambda _: None,
    "frozen": freeze_bias,
    "another bias": replace_bias,
    "another attention": replace_attention,
    **{f"hook on {place}": hooked(place) for place in ("relative_attention_bias", "layers.0", "layers.1.attention")},
    "hook on a linear": hooked("layers.1.attention.query"),
}


@pytest.mark.parametrize("attentions", [False, True], ids=["", "attentions"])
@pytest.mark.parametrize("mask", ["right", "holes"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_model_is_that_of_the_reference(
    make_model: Any, make_inputs: Any, change: Change, mask: str, attentions: bool, computed: Any, assert_equal: Any
) -> None:
    found = []
    for name in ("fast", "reference"):
        model = make_mpnet(make_model).double().train()
        change(model)
        with minbert.kernels(name):
            found.append(computed(model, make_inputs(0, model.config, mask), attentions))
    assert_equal(*found)
    assert ("relative_attention_bias.weight" in found[0]) == (change not in (freeze_bias, replace_bias))


@pytest.mark.parametrize("mask", ["none", "right", "holes"])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_long_rows_without_a_gradient(
    make_model: Any, make_inputs: Any, dtype: torch.dtype, allowed: float, mask: str
) -> None:
    """Past the largest distance, and long enough for torch's fused attention, some of them."""
    model = make_mpnet(make_model).to(dtype)
    inputs = make_inputs(0, model.config, mask, batch=9, seq=150)
    with torch.inference_mode():
        found = model(**inputs).last_hidden_state
        with minbert.kernels("reference"):
            assert (found - model.double()(**inputs).last_hidden_state).abs().max() < allowed


def test_bfloat16_has_the_gradients_of_float32(make_model: Any, make_inputs: Any, computed: Any) -> None:
    model = make_mpnet(make_model, initializer_range=0.05).train()
    inputs, found = make_inputs(0, model.config, "right", batch=20, seq=40), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(computed(model, inputs))
    bias = [each["relative_attention_bias.weight"] for each in found]
    assert bias[1].dtype == torch.float32
    assert not torch.equal(*bias)
    assert torch.cosine_similarity(bias[0].flatten(), bias[1].flatten(), dim=0) > 0.99
    assert (found[0]["last"] - found[1]["last"]).abs().max() < 0.15


def test_outputs_without_a_gradient_are_those_with_one(make_model: Any, make_inputs: Any) -> None:
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    model = make_mpnet(make_model, **rates).train()
    inputs, found = make_inputs(0, model.config, "holes"), []
    for context in (nullcontext, torch.no_grad):
        torch.manual_seed(0)
        with context():
            found.append(model(**inputs).last_hidden_state.detach())
    assert torch.equal(*found)


def test_second_derivatives_are_refused(make_model: Any) -> None:
    model = make_mpnet(make_model)
    model.layers.requires_grad_(False)
    model.embeddings.requires_grad_(False)  # nothing but the bias is differentiated
    loss = model(torch.arange(2, 14).view(2, 6)).packed.square().sum()
    with pytest.raises(minbert.InputError, match="second derivatives need the reference path"):
        torch.autograd.grad(loss, list(model.relative_attention_bias.parameters()), create_graph=True)
