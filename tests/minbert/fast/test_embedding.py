"""Spare gradients: whatever else writes to the word embeddings' gradient, each step is that of the reference path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import minbert
from minbert import BertConfig, BertForPreTraining
from minbert.fast.embedding import SpareGradients

STEPS = 6
Write = Callable[[Tensor], None]
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}


def word_weight(model: BertForPreTraining) -> Tensor:
    return model.bert.embeddings.word_embeddings.weight


def fresh() -> BertForPreTraining:
    torch.manual_seed(0)
    return BertForPreTraining(BertConfig(**SIZES)).double().train()


def states_loss(model: BertForPreTraining, ids: Tensor) -> Tensor:
    return model.bert(ids).last_hidden_state.square().sum() / ids.numel()


def tied_loss(model: BertForPreTraining, ids: Tensor) -> Tensor:
    """The masked tokens' own ids are to be found: the head's projection is the word embeddings."""
    encoded = model.bert(ids)
    return F.cross_entropy(model.predict_tokens(encoded.packed[::3]), encoded.packing.pack(ids)[::3])


def penalised_loss(model: BertForPreTraining, ids: Tensor) -> Tensor:
    return states_loss(model, ids) + 0.1 * word_weight(model).square().sum()


def sometimes_tied_loss(model: BertForPreTraining, ids: Tensor) -> Tensor:
    """Every other step is of the encoder alone, and would find what the head has left behind."""
    return (tied_loss if int(ids[0, 0]) % 2 else states_loss)(model, ids)


LOSSES = {
    "the encoder alone": states_loss,
    "a tied head": tied_loss,
    "a tied head in some steps": sometimes_tied_loss,
    "a penalty": penalised_loss,
}


def clip(weight: Tensor) -> None:
    torch.nn.utils.clip_grad_norm_([weight], 0.01)


def replace(weight: Tensor) -> None:
    weight.grad = 2 * weight.grad + 1


def add_in_place(weight: Tensor) -> None:
    weight.grad[7].add_(1)


def add_through_data(weight: Tensor) -> None:
    weight.grad.data[7].add_(1)  # a write that torch keeps no account of


def add_through_numpy(weight: Tensor) -> None:
    weight.grad.numpy()[7] += 1


def add_not_a_number(weight: Tensor) -> None:
    weight.grad.data[7, 0] = torch.nan


WRITES: list[Write] = [clip, replace, add_in_place, add_through_data, add_through_numpy]
HOOKS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "another tensor": lambda gradient: gradient + 1,
    "a view": lambda gradient: gradient.flip(0),
    "in place": lambda gradient: gradient.add_(1),
    "through data": lambda gradient: gradient.data.copy_(gradient + 1),
}


def train(
    kernels: str,
    loss: Callable[[BertForPreTraining, Tensor], Tensor] = states_loss,
    *,
    write: Write | None = None,
    hook: Callable[[Tensor], Tensor | None] | None = None,
    batches: int = 1,
) -> tuple[list[Tensor], int]:
    """Steps of plain descent: the word embeddings' gradient of each, and how many steps began with a spare one."""
    model, spares, found, taken = fresh(), SpareGradients(), [], 0
    weight = word_weight(model)
    if hook is not None:
        weight.register_hook(hook)
    generator = torch.Generator().manual_seed(1)
    with minbert.kernels(kernels):
        for step in range(STEPS):
            taken += weight in spares._spare
            for _ in range(batches):
                ids = torch.randint(8, 60, (3, 5), generator=generator)  # row 7 is no token's
                ids[0, 0] = 8 + step  # odd and even in turn
                with spares.lent():
                    value = loss(model, ids)
                value.backward()
            if write is not None:
                write(weight)
            found.append(weight.grad.clone())
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.01 * parameter.grad.nan_to_num()
            spares.drop(weight)
            model.zero_grad()
    return found, taken


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for step, (mine, due) in enumerate(zip(found, expected, strict=True)):
        allowed = 1e-10 * max(1.0, due.abs().nan_to_num().max().item())
        assert torch.allclose(mine, due, rtol=0, atol=allowed, equal_nan=True), f"step {step}"


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_steps_are_those_of_the_reference(loss: Callable[..., Tensor], batches: int) -> None:
    found, taken = train("fast", loss, batches=batches)
    expected, none = train("reference", loss, batches=batches)
    assert_equal(found, expected)
    assert none == 0
    assert taken == {states_loss: STEPS - 1, sometimes_tied_loss: 3}.get(loss, 0)


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)
def test_a_gradient_that_was_written_to_is_not_taken_for_zero(write: Write, batches: int) -> None:
    found, taken = train("fast", write=write, batches=batches)
    assert_equal(found, train("reference", write=write, batches=batches)[0])
    assert taken == (STEPS - 1 if write is clip else 0)  # clipping leaves zeros where they were


def test_a_gradient_with_a_nan_is_not_used_again() -> None:
    found, taken = train("fast", write=add_not_a_number)
    assert_equal(found, train("reference", write=add_not_a_number)[0])
    assert taken == 0


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_a_hook_of_the_weight_is_seen(hook: Callable[[Tensor], Tensor | None]) -> None:
    assert_equal(train("fast", hook=hook)[0], train("reference", hook=hook)[0])


def test_a_spare_gradient_is_the_same_memory() -> None:
    """What all this is for: the table's gradient is taken from the system once."""
    model, spares, places = fresh(), SpareGradients(), set()
    weight = word_weight(model)
    with minbert.kernels("fast"):
        for _ in range(4):
            with spares.lent():
                value = states_loss(model, torch.arange(8, 14).view(2, 3))
            value.backward()
            places.add(weight.grad.data_ptr())
            kept = weight.grad
            spares.drop(weight)
            assert not kept.any()
            del kept  # autograd copies a gradient that someone else holds
    assert len(places) == 1


@pytest.mark.parametrize("change", ["cast", "other sizes"])
def test_a_weight_that_changed_its_type_or_sizes_gets_zeros_of_its_own(change: str) -> None:
    model, spares = fresh(), SpareGradients()
    weight = word_weight(model)

    def step() -> Tensor:
        with minbert.kernels("fast"), spares.lent():
            value = states_loss(model, torch.arange(8, 14).view(2, 3))
        value.backward()
        return weight.grad

    step()
    spares.drop(weight)
    assert weight in spares._spare
    model.zero_grad()
    if change == "cast":
        model.float()
    else:
        weight.data = torch.cat([weight.data, weight.data[:4]])
    gradient = step()
    assert gradient.shape == weight.shape
    assert gradient.dtype == weight.dtype


def test_spares_are_lent_within_alone() -> None:
    model, spares = fresh(), SpareGradients()
    with minbert.kernels("fast"):
        with spares.lent():
            pass
        states_loss(model, torch.arange(8, 14).view(2, 3)).backward()
    spares.drop(word_weight(model))
    assert not len(spares._spare)
