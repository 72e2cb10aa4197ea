"""Poolings and heads of one's own: what they may be, how they begin, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.model import BertOutput
from multitask.errors import ConfigError
from multitask.model.decoders import TaskDecoder
from multitask.model.poolings import AttentionPooling
from multitask.settings.choices import HEADS, POOLINGS
from multitask.settings.task import Task


def make_task(**values: Any) -> Task:
    return Task(**{"name": "t", "text": "a", "label": "y", "labels": ("x", "y", "z"), "dropout": 0.0, **values})


@pytest.fixture
def own_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (POOLINGS, HEADS):
        for name in ("_entries", "_origins"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_a_pooling_of_ones_own_has_a_width_and_a_function_is_one_too(
    kernels: str, own_parts: None, make_model: Any, make_batch: Any
) -> None:
    @POOLINGS.register("wide")
    class Wide(nn.Module):
        def __init__(self, task: Task, config: BertConfig) -> None:
            super().__init__()
            self.width = 3 * config.hidden_size
            self.project = nn.Linear(config.hidden_size, self.width, bias=False)

        def forward(self, encoded: BertOutput) -> Tensor:
            return encoded.last_hidden_state[:, 0]

    @POOLINGS.register("twice")
    def twice(encoded: BertOutput) -> Tensor:
        return 2 * encoded.last_hidden_state[:, 0]

    outputs = {}
    for pooling in ("wide", "twice", "cls"):
        task = make_task(pooling=pooling)
        model, batch = make_model([task]).eval(), make_batch(task, 5)
        decoder = model.decoders["t"]
        with torch.no_grad():
            if pooling == "wide":
                decoder.pooling.project.weight.copy_(torch.cat([torch.eye(16), torch.zeros(32, 16)]))
            decoder.head.linear.weight.copy_(torch.eye(3, decoder.width))
            decoder.head.linear.bias.zero_()
            outputs[pooling] = model("t", batch.tokens)
        assert decoder.head.linear.in_features == (48 if pooling == "wide" else 16)
    assert torch.allclose(outputs["wide"], outputs["cls"])
    assert torch.allclose(outputs["twice"], 2 * outputs["cls"])


def test_linears_of_ones_own_begin_as_the_encoders_do(own_parts: None) -> None:
    @HEADS.register("two")
    class Two(nn.Sequential):
        def __init__(self, task: Task, width: int) -> None:
            super().__init__(nn.Linear(width, 400, bias=False), nn.Tanh(), nn.Linear(400, task.num_outputs))

    config = BertConfig(vocab_size=9, hidden_size=400, num_attention_heads=4, initializer_range=0.1)
    head: Any = TaskDecoder(make_task(head="two", pooling="mean"), config).head
    assert head[0].weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert head[2].bias.eq(0).all()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (torch.zeros(9, 4), r"(9, 4)"),
        (torch.zeros(5, 16), r"(5, 16)"),
        (torch.zeros(9, 3, 16), r"(9, 3, 16)"),
        ((torch.zeros(9, 16), None), "tuple"),
    ],
)
def test_a_pooling_of_a_wrong_shape_is_named(
    own_parts: None, make_model: Any, make_batch: Any, found: Any, said: str
) -> None:
    POOLINGS.register("odd")(lambda encoded: found)
    task = make_task(pooling="odd")
    with pytest.raises(ConfigError) as caught:
        make_model([task])("t", make_batch(task, 9).tokens)
    assert str(caught.value) == f"tasks.t.pooling 'odd' must return a tensor (9, 16), got {said}"


def test_a_head_of_a_wrong_shape_is_named(own_parts: None, make_model: Any, make_batch: Any) -> None:
    @HEADS.register("odd")
    class Odd(nn.Module):
        def __init__(self, task: Task, width: int) -> None:
            super().__init__()

        def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
            return first if second is None else torch.cat((first, second))

    task = make_task(head="odd", pooling="cls")
    with pytest.raises(ConfigError, match=r"tasks\.t\.head 'odd' must return a tensor \(9, 3\), got \(9, 16\)"):
        make_model([task])("t", make_batch(task, 9).tokens)
    task = make_task(head="odd", pooling="cls", text=("a", "b"), input="separate")
    with pytest.raises(ConfigError, match=r"must return a tensor \(9, 3\), got \(18, 16\)"):
        make_model([task])("t", make_batch(task, 9).tokens)


def test_what_is_no_part_is_refused(own_parts: None, make_model: Any) -> None:
    POOLINGS.register("number")(int)
    POOLINGS.register("narrow")(type("Narrow", (AttentionPooling,), {"width": 0}))
    HEADS.register("number")(int)
    HEADS.register("word")(lambda task, width: 3)
    for values, message in (
        ({"pooling": "number"}, "tasks.t.pooling 'number' must be an nn.Module class or a function, got <class 'int"),
        ({"pooling": "narrow"}, "the width of tasks.t.pooling 'narrow' must be at least 1, got 0"),
        ({"head": "number"}, "tasks.t.head 'number' must be an nn.Module class, got <class 'int'>"),
        ({"head": "word"}, "tasks.t.head 'word' must be an nn.Module class, got <function "),
    ):
        with pytest.raises(ConfigError) as caught:
            make_model([make_task(**values)])
        assert str(caught.value).startswith(message)
