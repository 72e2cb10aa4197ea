"""Dropout where BERT has it: on the attention weights, not their output; after the norm; with HuggingFace's moments."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minbert
from minbert.attention import MultiHeadAttention
from minbert.fast.parts import call
from minbert.packing import Packing

ROWS = 20_000
ExactRate = Callable[[float], float]


def compute(attention: MultiHeadAttention, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Context and weights by the path in use."""
    return call(attention, *arguments) if minbert.get_kernels() == "fast" else attention(*arguments)


def context_draws(attention: MultiHeadAttention, length: int, draws: int) -> tuple[Tensor, Tensor]:
    """Contexts of one text drawn anew in each of `draws` rows, and the expected one without dropout.

    Shapes (draws, hidden_size) and (hidden_size,): of the text's first token.
    """
    text = torch.randn(length, 8, generator=torch.Generator().manual_seed(0))
    packing = Packing(torch.ones(draws, length, dtype=torch.bool))
    with torch.no_grad():
        drawn, _ = compute(attention.train(), text.repeat(draws, 1), packing)
        still, _ = compute(attention.eval(), text, Packing(torch.ones(1, length, dtype=torch.bool)))
    return drawn.view(draws, length, 8)[:, 0], still[0]


def assert_dropout_is_on_the_weights(attention: MultiHeadAttention, p: float) -> None:
    """By the covariance of the context, c = sum_j w_j v_j, when each w_j is dropped on its own and scaled.

    Var[c] = p / (1 - p) sum_j w_j^2 v_j v_j' within a head, and zero across heads, whose weights are dropped
    on their own; dropout on the context would give p / (1 - p) diag(c^2). For a single token w is 1: the
    context of a head is dropped as a whole, and with probability p.

    :param p: the rate that the path in use draws at.
    """
    drawn, still = context_draws(attention, 1, ROWS)
    by_head = drawn.view(ROWS, 2, 4)
    gone = by_head == 0
    assert (gone.any(-1) == gone.all(-1)).all()
    assert abs(gone.float().mean().item() - p) < 5 * (p * (1 - p) / (2 * ROWS)) ** 0.5
    assert torch.allclose(by_head[~gone], (still / (1 - p)).expand(ROWS, 8).reshape(by_head.shape)[~gone])

    drawn, still = context_draws(attention, 3, ROWS)
    text = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        packing = Packing(torch.ones(1, 3, dtype=torch.bool))
        weights = attention(text, packing)[1][0, :, 0]  # (heads, seq), in eval mode
        values = attention.value(text).view(3, 2, 4).transpose(0, 1)  # (heads, seq, head_size)
    weighted = weights[..., None] * values
    expected = torch.block_diag(*(p / (1 - p) * weighted.transpose(1, 2) @ weighted))  # (hidden, hidden)
    scale = expected.diagonal().max().item()
    assert (drawn.mean(0) - still).abs().max().item() < 5 * (scale / ROWS) ** 0.5
    assert (torch.cov(drawn.T) - expected).abs().max().item() < 0.06 * scale


class OutputDropout(MultiHeadAttention):
    """The mutant: dropout on what attention gives, not on its weights."""

    def forward(self, hidden: Tensor, rows: Packing, queries: Tensor | None = None) -> tuple[Tensor, Tensor]:
        training, rate = self.training, self.dropout.p
        self.train(False)
        context, weights = super().forward(hidden, rows, queries)
        self.train(training)
        return nn.functional.dropout(context, rate, training), weights


def make_attention(kind: type[MultiHeadAttention], rate: float) -> MultiHeadAttention:
    torch.manual_seed(1)
    attention = kind(8, 2, rate)
    for projection in (attention.query, attention.key, attention.value):
        nn.init.normal_(projection.weight, std=0.6)
    return attention


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_dropout_acts_on_the_attention_weights(exact_rate: ExactRate, rate: float) -> None:
    assert_dropout_is_on_the_weights(make_attention(MultiHeadAttention, rate), exact_rate(rate))


def test_dropout_on_the_attention_output_would_be_seen(kernels: str) -> None:
    mutant = make_attention(OutputDropout, 0.3)
    with pytest.raises(AssertionError):
        assert_dropout_is_on_the_weights(mutant, 0.3)  # torch's dropout, exactly that
    drawn, still = context_draws(mutant, 3, ROWS)
    outside = 0.3 / 0.7 * still.square().diag()
    assert (torch.cov(drawn.T) - outside).abs().max() < 0.06 * outside.max()  # it is the mutant it says


def test_dropped_attention_weights_are_zero_and_the_rest_scaled(exact_rate: ExactRate, make_pair: Any) -> None:
    mine, _ = make_pair(0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.3)
    rate = exact_rate(0.3)
    inputs = {"input_ids": torch.arange(1, 13).repeat(400, 1)}
    with torch.no_grad():
        still = mine(**inputs, output_attentions=True).attentions[0]
        dropped = mine.train()(**inputs, output_attentions=True).attentions[0]
    gone = dropped == 0
    deviation = (rate * (1 - rate) / gone.numel()) ** 0.5
    assert abs(gone.float().mean().item() - rate) < 5 * deviation
    assert torch.allclose(dropped[~gone], still[~gone] / (1 - rate), rtol=1e-4, atol=1e-7)


def test_embedding_dropout_acts_after_the_norm(exact_rate: ExactRate, make_pair: Any) -> None:
    mine, _ = make_pair(0, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.0)
    rate = exact_rate(0.3)
    inputs = {"input_ids": torch.arange(1, 13).repeat(400, 1)}
    with torch.no_grad():
        still = mine(**inputs, output_hidden_states=True).hidden_states[0]
        states = mine.train()(**inputs, output_hidden_states=True).hidden_states
    gone = states[0] == 0
    deviation = (rate * (1 - rate) / gone.numel()) ** 0.5
    assert abs(gone.float().mean().item() - rate) < 5 * deviation
    assert torch.allclose(states[0][~gone], still[~gone] / (1 - rate), rtol=1e-4, atol=1e-6)
    assert not any((layer == 0).any() for layer in states[1:])  # a norm stands last in a layer


@pytest.mark.parametrize(("hidden_rate", "attention_rate"), [(0.2, 0.0), (0.0, 0.4), (0.1, 0.1)])
def test_moments_under_dropout_equal_huggingface(
    exact_rate: ExactRate, make_pair: Any, hidden_rate: float, attention_rate: float
) -> None:
    """Mean and variance of every hidden state and of the pooler's output over many draws."""
    draws, rates = 10_000, (hidden_rate, attention_rate)
    mine, theirs = make_pair(
        3,
        hidden_size=8,
        hidden_dropout_prob=hidden_rate,
        attention_probs_dropout_prob=attention_rate,
    )
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = exact_rate(module.p)
    ids = torch.tensor([[2, 7, 11]]).repeat(draws, 1)
    torch.manual_seed(0)
    with torch.no_grad():
        found, expected = (model.train()(ids, output_hidden_states=True) for model in (mine, theirs))
    pairs = [*zip(found.hidden_states, expected.hidden_states, strict=True)]
    pairs.append((found.pooler_output, expected.pooler_output))
    for ours, other in pairs:
        variance = other.var(0)
        if not variance.any():
            assert rates[0] == 0
            continue
        assert ((ours.mean(0) - other.mean(0)).abs() <= 6 * (2 * variance / draws).sqrt() + 1e-6).all()
        assert ((ours.var(0) / variance).log().abs() < 0.15).all()


@pytest.mark.parametrize("mask", ["none", "holes"])
def test_dropout_acts_where_transformers_has_it(
    make_pair: Any, make_inputs: Any, monkeypatch: pytest.MonkeyPatch, kind: str, mask: str
) -> None:
    """In train mode, with a dropout on both sides that draws nothing and is not linear, so that its place shows."""

    def steadily(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
        return x * (1 - p * x.abs().clamp(max=1)) if training else x

    def steady(module: nn.Dropout, x: Tensor) -> Tensor:
        return steadily(x, module.p, module.training)

    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}
    mine, theirs = make_pair(0, kind=kind, **rates)
    inputs = make_inputs(0, theirs.config, mask)
    kept = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    for place, function in ((nn.Dropout, steady), (minbert.Dropout, steady)):
        monkeypatch.setattr(place, "forward", function)
    monkeypatch.setattr(nn.functional, "dropout", steadily)
    with torch.no_grad(), minbert.kernels("reference"):
        found = mine.train()(**inputs, output_hidden_states=True).hidden_states
        expected = theirs.train()(**inputs, output_hidden_states=True).hidden_states
        still = mine.eval()(**inputs).last_hidden_state
    for mine_state, their_state in zip(found, expected, strict=True):
        assert (mine_state - their_state)[kept].abs().max() <= 1e-5
    assert (still - found[-1])[kept].abs().max() > 0.1


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet"])
def test_attentions_output_is_dropped_in_all_families_but_distilbert(kernels: str, make_model: Any, kind: str) -> None:
    model = make_model(model_type=kind, hidden_dropout_prob=0.4)
    model.embeddings.dropout.p = 0.0
    with torch.no_grad():
        for layer in model.layers:  # no other dropout is left
            layer.output.weight.zero_()
            layer.output.bias.zero_()
        ids = torch.arange(2, 14).view(2, 6)
        whole = model(ids).last_hidden_state
        dropped = model.train()(ids).last_hidden_state
    assert torch.equal(whole, dropped) == (kind == "distilbert")
