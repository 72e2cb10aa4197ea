"""Which of the two paths computes: a default of the process, a choice within, and where each is read."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import minbert
from minbert import AdamW, BertModel, InputError
from minbert.fast import layer as fast_layer
from minbert.fast import model as fast_model
from minbert.fast import optim as fast_optim

IDS = torch.arange(1, 13).view(2, 6)


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    """Begins with the fast path, and puts back what a test changes."""
    before = minbert.get_kernels()
    minbert.set_kernels("fast")
    yield
    minbert.set_kernels(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the fast path computes, by name."""
    found: list[str] = []

    def watch(home: Any, name: str) -> None:
        whole = getattr(home, name)
        monkeypatch.setattr(home, name, lambda *args, **named: found.append(name) or whole(*args, **named))

    watch(fast_model, "encode")
    watch(fast_optim, "adamw_step")
    watch(fast_layer, "attention_backward")
    return found


def backward(model: BertModel) -> Callable[[], None]:
    return model(IDS).last_hidden_state.square().sum().backward


def test_a_choice_within_stands_over_the_default_and_ends() -> None:
    with minbert.kernels("reference"):
        assert minbert.get_kernels() == "reference"
        with minbert.kernels("fast"):
            minbert.set_kernels("reference")
            assert minbert.get_kernels() == "fast"
        minbert.set_kernels("fast")
        assert minbert.get_kernels() == "reference"
    assert minbert.get_kernels() == "fast"
    with pytest.raises(ZeroDivisionError), minbert.kernels("reference"):
        raise ZeroDivisionError
    assert minbert.get_kernels() == "fast"


@pytest.mark.parametrize("where", ["kernels", "set_kernels"])
def test_an_unknown_name_is_one_sentence(where: str) -> None:
    with pytest.raises(InputError, match=f"^{where}: name must be one of reference, fast, got 'quick'$"):
        minbert.set_kernels("quick") if where == "set_kernels" else minbert.kernels("quick").__enter__()
    assert minbert.get_kernels() == "fast"


def test_a_choice_within_is_of_its_thread_alone(make_model: Any, calls: list[str]) -> None:
    """Two threads within different choices, each computing while the other is within its own."""
    model, together = make_model(), threading.Barrier(2)
    bits: dict[str, Tensor] = {}

    def compute(name: str) -> tuple[str, Tensor]:
        with minbert.kernels(name):
            together.wait(60)
            states = model(IDS).last_hidden_state
            together.wait(60)
            return minbert.get_kernels(), states

    for name in ("reference", "fast"):
        with minbert.kernels(name):
            bits[name] = model(IDS).last_hidden_state
    assert not torch.equal(*bits.values())  # a rounding apart, which tells them apart
    with ThreadPoolExecutor(2) as pool:
        for (name, states), due in zip(pool.map(compute, bits), bits, strict=True):
            assert name == due
            assert torch.equal(states, bits[due])
    with minbert.kernels("reference"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(minbert.get_kernels).result() == "fast"  # a new thread begins with the default


def test_a_choice_within_is_of_its_asynchronous_task_alone() -> None:
    async def choose(name: str) -> str:
        with minbert.kernels(name):
            await asyncio.sleep(0.01)
            return minbert.get_kernels()

    async def both() -> list[str]:
        return list(await asyncio.gather(choose("reference"), choose("fast")))

    assert asyncio.run(both()) == ["reference", "fast"]


def test_a_backward_pass_follows_its_forward_pass(make_model: Any, calls: list[str]) -> None:
    found = {}
    for forward, later in (("fast", "fast"), ("fast", "reference"), ("reference", "reference"), ("reference", "fast")):
        model = make_model()
        calls.clear()
        with minbert.kernels(forward):
            run = backward(model)
        with minbert.kernels(later):
            run()
        assert calls == (["encode", "attention_backward", "attention_backward"] if forward == "fast" else [])
        found[forward, later] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.equal(found["fast", "fast"], found["fast", "reference"])
    assert torch.equal(found["reference", "reference"], found["reference", "fast"])
    assert not torch.equal(found["fast", "fast"], found["reference", "fast"])


def test_an_optimizer_reads_the_choice_where_it_steps(make_model: Any, calls: list[str]) -> None:
    model = make_model()
    optimizer = AdamW(model.parameters())
    for name, due in (("fast", ["adamw_step"]), ("reference", []), ("fast", ["adamw_step"])):
        backward(model)()
        calls.clear()
        with minbert.kernels(name):
            optimizer.step()
        assert calls == due


def test_neither_is_read_where_a_forward_is_compiled_or_exported(make_model: Any, calls: list[str]) -> None:
    model = make_model()
    found = []
    for name in ("fast", "reference"):
        minbert.set_kernels(name)
        torch._dynamo.reset()
        exported = torch.export.export(model, (IDS,)).module()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        found += [exported(IDS).last_hidden_state, compiled(IDS).last_hidden_state]
        with minbert.kernels(name):
            found.append(torch.compile(model, backend="eager", fullgraph=True)(IDS).last_hidden_state)
    assert calls == []
    assert all(torch.equal(states, found[0]) for states in found)
    minbert.set_kernels("fast")
    model(IDS)
    assert calls == ["encode"]
