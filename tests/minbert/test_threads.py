"""Threads beside one another: each call gives to the bit what it gives alone."""

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert import AdamW, BertModel, BertTokenizer, encode
from minbert.token_batch import TokenBatch

pytestmark = pytest.mark.usefixtures("one_thread")  # so that sums are taken in one order

AtOnce = Callable[[Callable[[int], Any]], list[Any]]
WORDS = ["a", "good", "bad", "film", "story", "the", "lovely", "dull", "great", "poor", "not"]
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 9)) for i in range(60)]
in_either_type = pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])


@pytest.fixture
def tokenizer(tiny_weights: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny_weights)


def autocast(bfloat16: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()


def changed(model: BertModel) -> dict[str, Tensor]:
    """Other weights; each call's differ from all before."""
    return {name: tensor * 0.9 + 0.01 for name, tensor in model.state_dict().items()}


def assert_all_equal(found: Sequence[Tensor], expected: Tensor) -> None:
    assert [torch.equal(vectors, expected) for vectors in found] == [True] * len(found)


@in_either_type
def test_encode_while_weights_change_between_calls(
    kernels: str, tiny_weights: Path, tokenizer: BertTokenizer, bfloat16: bool, at_once: AtOnce
) -> None:
    """Weights are changed where no call runs, as torch asks for; what an earlier call held may not come back."""
    model, before = BertModel.from_pretrained(tiny_weights), None

    def work(number: int) -> Tensor:
        with autocast(bfloat16):
            return encode(model, tokenizer, TEXTS, pooling=("mean", "cls")[number % 2])

    for _ in range(3):
        found = at_once(work)
        alone = BertModel(model.config).eval()
        alone.load_state_dict(model.state_dict())
        with autocast(bfloat16):
            expected = [encode(alone, tokenizer, TEXTS, pooling=pooling) for pooling in ("mean", "cls")]
            once_more = encode(model, tokenizer, TEXTS)
        assert_all_equal(found[::2], expected[0])
        assert_all_equal(found[1::2], expected[1])
        assert torch.equal(once_more, expected[0])
        assert before is None or not torch.equal(before, expected[0])
        before = expected[0]
        model.load_state_dict(changed(model))


@in_either_type
def test_each_thread_has_a_model_of_its_own(
    kernels: str, tiny_weights: Path, tokenizer: BertTokenizer, bfloat16: bool, at_once: AtOnce
) -> None:
    """And changes its weights while the others compute."""

    def work(number: int) -> list[Tensor]:
        model, vectors = BertModel.from_pretrained(tiny_weights), []
        for step in range(4):
            with autocast(bfloat16):
                vectors.append(encode(model, tokenizer, TEXTS))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.data.mul_(1 - 0.1 * (number + step))
        return vectors

    for number, vectors in enumerate(at_once(work)):
        assert all(torch.equal(mine, due) for mine, due in zip(vectors, work(number), strict=True))


def train(weights: Path, batch: TokenBatch, bfloat16: bool, steps: int = 25) -> list[Tensor]:
    """Losses, then all weights, of a run without dropout."""
    model = BertModel.from_pretrained(weights, dropout=0.0).train()
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(model.config.hidden_size, 1)
    with torch.no_grad():
        head.weight.normal_(generator=generator).mul_(0.1)
        head.bias.zero_()
    optimizer = AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
    labels, losses = torch.tensor([1.0, 0.0, 1.0, 0.0]), []
    for _ in range(steps):
        optimizer.zero_grad()
        with autocast(bfloat16):
            states = model(**batch).last_hidden_state[:, 0].float()
            loss = F.binary_cross_entropy_with_logits(head(states).squeeze(1).float(), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [*losses, *(parameter.detach() for parameter in model.parameters())]


@in_either_type
def test_a_model_trains_beside_threads_that_encode(
    kernels: str, tiny_weights: Path, tokenizer: BertTokenizer, bfloat16: bool, at_once: AtOnce
) -> None:
    batch = tokenizer(["a good film", "a bad film", "lovely", "a dull story"])
    alone = train(tiny_weights, batch, bfloat16)
    assert alone[24] < 0.5 * alone[0]  # it learns
    served, stop = BertModel.from_pretrained(tiny_weights), threading.Event()
    with autocast(bfloat16):
        expected = encode(served, tokenizer, TEXTS)

    def work(number: int) -> list[Tensor]:
        if number == 0:
            try:
                return train(tiny_weights, batch, bfloat16)
            finally:
                stop.set()
        vectors = []
        while not stop.is_set():
            with autocast(bfloat16):
                vectors.append(encode(served, tokenizer, TEXTS))
        return vectors

    found, *others = at_once(work)
    assert all(torch.equal(mine, due) for mine, due in zip(found, alone, strict=True))
    for vectors in others:
        assert vectors
        assert_all_equal(vectors, expected)
