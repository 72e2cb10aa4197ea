"""Decoders: each pooling against its formula, masks in every one, and rows that do not see each other."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.model import BertOutput
from minbert.token_batch import TokenBatch
from multitask.errors import ConfigError
from multitask.model.decoders import TaskDecoder
from multitask.model.poolings import AttentionPooling
from multitask.settings.task import Task

POOLINGS = ("attention", "pooler", "cls", "mean", "max")
HEADS = 4
CLASSES = tuple(str(index) for index in range(16))


def make_task(**values: Any) -> Task:
    settings = {"name": "t", "text": ("a",), "label": "y", "labels": ("x", "y", "z"), "dropout": 0.0}
    return Task(**{**settings, **values})


def encode(model: Any, batch: Any) -> BertOutput:
    encoded: BertOutput = model.encoder_of("t")(**batch.tokens)
    return encoded


def attention_by_hand(decoder: TaskDecoder, query: Tensor, states: Tensor) -> Tensor:
    """One row: a query (hidden,) over its real tokens' states (tokens, hidden), head after head."""
    attention = decoder.pooling.attention
    size = len(query) // HEADS
    q, k, v = attention.query(query), attention.key(states), attention.value(states)
    context = []
    for head in range(HEADS):
        mine = slice(head * size, (head + 1) * size)
        scores = [float(q[mine] @ key) / math.sqrt(size) for key in k[:, mine]]
        total = sum(math.exp(score) for score in scores)
        context.append(sum(math.exp(score) / total * value for score, value in zip(scores, v[:, mine], strict=True)))
    return torch.cat(context)  # type: ignore[arg-type]


def pooled_by_hand(decoder: TaskDecoder, encoded: BertOutput, mask: Tensor) -> Tensor:
    rows = []
    for row, real in enumerate(mask.bool()):
        states = encoded.last_hidden_state[row][real]  # (tokens, hidden): what is masked is not even there
        pooler = encoded.pooler_output
        match decoder.task.pooling:
            case "mean":
                rows.append(states.sum(0) / len(states))
            case "max":
                rows.append(states.max(0).values)
            case "cls":
                rows.append(states[0])
            case "pooler":
                assert pooler is not None
                rows.append(pooler[row])
            case "attention":
                assert pooler is not None
                rows.append(attention_by_hand(decoder, pooler[row], states))
    return torch.stack(rows)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_its_formula_under_the_mask(
    kernels: str, make_model: Any, make_batch: Any, pooling: str, holes: bool
) -> None:
    task = make_task(pooling=pooling)
    model, batch = make_model([task]).eval(), make_batch(task, 19)
    if holes:
        kept = torch.rand(batch.tokens.input_ids.shape, generator=torch.Generator().manual_seed(3)) < 0.7
        kept[:, 0] = True
        mask = batch.tokens.attention_mask * kept
        batch = dataclasses.replace(batch, tokens=dataclasses.replace(batch.tokens, attention_mask=mask))
    decoder, mask = model.decoders["t"], batch.tokens.attention_mask
    assert len(set(mask.sum(1).tolist())) > 1
    with torch.no_grad():
        encoded = encode(model, batch)
        pooled = pooled_by_hand(decoder, encoded, mask)
        assert torch.allclose(decoder.pool(encoded), pooled, atol=1e-12)
        projected = decoder.pooling.project(pooled) if pooling == "attention" else pooled
        outputs = projected @ decoder.head.linear.weight.T + decoder.head.linear.bias
        assert torch.allclose(model("t", batch.tokens), outputs, atol=1e-12)


@pytest.mark.parametrize("text", [("a",), ("a", "b")])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_batch_mates_do_not_change_an_answer(
    kernels: str, make_model: Any, make_batch: Any, pooling: str, text: tuple[str, ...]
) -> None:
    task = make_task(pooling=pooling, text=text, input="separate")
    model, tokens = make_model([task]).float().eval(), make_batch(task, 11).tokens
    with torch.no_grad():
        together = model("t", tokens)
        for row in range(11):
            rows = [row, row + 11] if len(text) == 2 else [row]
            width = int(tokens.attention_mask[rows].sum(1).max())
            alone = TokenBatch(*(tensor[rows, :width] for tensor in tokens.values()))
            assert (model("t", alone) - together[row]).abs().max() <= 1e-5


@pytest.mark.parametrize("pooling", POOLINGS)
def test_separate_input_joins_two_encodings(make_model: Any, make_batch: Any, pooling: str) -> None:
    task = make_task(pooling=pooling, text=("a", "b"), input="separate", kind="regression", labels=None)
    model, batch = make_model([task]).eval(), make_batch(task, 5)
    decoder = model.decoders["t"]
    with torch.no_grad():
        vectors = decoder.pool(encode(model, batch))  # (10, hidden): first texts, then second
        if pooling == "attention":
            vectors = decoder.pooling.project(vectors)
        first, second = decoder.head.linear.weight.split(16, dim=1)
        expected = vectors[:5] @ first.T + vectors[5:] @ second.T + decoder.head.linear.bias
        assert torch.allclose(model("t", batch.tokens), expected, atol=1e-12)
    assert expected.shape == (5, 1)


def test_cosine_head(make_model: Any, make_batch: Any) -> None:
    pair: dict[str, Any] = {"text": ("a", "b"), "input": "separate", "kind": "regression", "labels": (0.0, 5.0)}
    task = make_task(**pair, pooling="mean", head="cosine")
    model, batch = make_model([task]).eval(), make_batch(task, 5)
    assert not list(model.decoders["t"].parameters())
    with torch.no_grad():
        vectors = model.decoders["t"].pool(encode(model, batch))
        outputs = model("t", batch.tokens)
        same = model("t", TokenBatch(*(tensor[[3, 3]] for tensor in batch.tokens.values())))
    for row in range(5):
        a, b = vectors[row], vectors[row + 5]
        assert outputs[row].item() == pytest.approx(2.5 * (1 + float(a @ b / (a.norm() * b.norm()))), abs=1e-5)
    assert same.item() == pytest.approx(5)
    other = make_task(**{**pair, "labels": (-1.0, 1.0)}, pooling="mean", head="cosine")
    with torch.no_grad():
        assert torch.allclose(make_model([other]).eval()("t", batch.tokens), outputs / 2.5 - 1, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_dropout_acts_before_projection_and_head(make_model: Any, make_batch: Any, pooling: str) -> None:
    """With the identity for a head, what dropout left of the pooled vector can be looked at."""
    task = make_task(pooling=pooling, labels=CLASSES, dropout=0.3)
    model, batch = make_model([task]), make_batch(task, 300)
    decoder = model.decoders["t"]
    with torch.no_grad():
        for linear in filter(None, (getattr(decoder.pooling, "project", None), decoder.head.linear)):
            linear.weight.copy_(torch.eye(16))
            linear.bias.zero_()
        whole = model.eval()("t", batch.tokens)
        torch.manual_seed(0)
        dropped = model.train()("t", batch.tokens)
    gone, rate = dropped == 0, 77 / 256  # what 0.3 comes to in the fast path's 8 random bits
    assert abs(gone.double().mean().item() - rate) < 5 * math.sqrt(rate * (1 - rate) / gone.numel())
    assert torch.allclose(dropped[~gone], whole[~gone] / (1 - rate), rtol=1e-5)


def test_a_decoder_has_the_weights_of_its_pooling() -> None:
    config = BertConfig(vocab_size=9, hidden_size=16, num_attention_heads=4, attention_probs_dropout_prob=0.07)
    plain = TaskDecoder(make_task(pooling="mean"), config)
    assert {name: tuple(p.shape) for name, p in plain.named_parameters()} == {
        "head.linear.weight": (3, 16),
        "head.linear.bias": (3,),
    }
    pooled = TaskDecoder(make_task(pooling="attention", dropout=0.4), config)
    names = {name.rsplit(".", 1)[0] for name, _ in pooled.named_parameters()}
    attention = {f"pooling.attention.{name}" for name in ("query", "key", "value")}
    assert names == {*attention, "pooling.project", "head.linear"}
    assert isinstance(pooled.pooling, AttentionPooling)
    assert pooled.pooling.attention.num_heads == 4
    assert pooled.pooling.attention.dropout.p == 0.07
    assert pooled.dropout.p == 0.4
    assert isinstance(pooled.pooling.project, nn.Linear)
    assert pooled.pooling.project.weight.shape == (16, 16)


@pytest.mark.parametrize("pooling", ["attention", "pooler"])
def test_an_encoder_without_a_pooler_is_named(make_model: Any, make_batch: Any, pooling: str) -> None:
    task = make_task(pooling=pooling)
    with pytest.raises(ConfigError, match=rf"tasks\.t\.pooling must be one of cls, mean, max, .* got '{pooling}'"):
        make_model([task], pooler=False)


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_other_poolings_need_no_pooler(make_model: Any, make_batch: Any, pooling: str) -> None:
    task = make_task(pooling=pooling)
    assert make_model([task], pooler=False)("t", make_batch(task, 4).tokens).shape == (4, 3)


def test_tasks_share_the_encoder_and_no_decoder(make_model: Any, three_tasks: tuple[Task, ...]) -> None:
    model = make_model(three_tasks)
    owners: dict[int, str] = {}
    for name, decoder in model.decoders.items():
        for parameter in decoder.parameters():
            assert owners.setdefault(id(parameter), name) == name
    assert not set(owners) & {id(parameter) for parameter in model.encoder_of("sst").parameters()}
    assert len({id(model.encoder_of(name)) for name in model.tasks}) == 1
