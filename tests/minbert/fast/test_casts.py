"""Under autocast: no cast outlives the weights it was made of, and bfloat16 costs no more than in transformers."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from minbert import BertModel
from minbert.fast import casts as home
from minbert.fast.casts import hold_casts

Inputs = dict[str, Tensor]
Change = Callable[[BertModel, BertModel], None]
pytestmark = pytest.mark.usefixtures("fast")


def outputs(model: BertModel, inputs: Inputs) -> Tensor:
    """All that the model gives, in one vector."""
    output = model(**inputs)
    return torch.cat([output.last_hidden_state.flatten(), output.pooler_output.flatten()])


def in_bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def step_of(make: Callable[..., torch.optim.Optimizer], **values: Any) -> Change:
    """A step of an optimizer along random gradients."""

    def change(model: BertModel, _: BertModel) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        make(model.parameters(), lr=0.05, **values).step()

    return change


def edit_data(model: BertModel, _: BertModel) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.1)


def swap_data(model: BertModel, other: BertModel) -> None:
    for parameter, its in zip(model.parameters(), other.parameters(), strict=True):
        parameter.data = its.data.clone()


def load_other(model: BertModel, other: BertModel) -> None:
    model.load_state_dict(other.state_dict())


CHANGES: dict[str, Change] = {
    "fused AdamW": step_of(torch.optim.AdamW, fused=True),
    "SGD": step_of(torch.optim.SGD),
    "edit of data": edit_data,
    "swap of data": swap_data,
    "load_state_dict": load_other,
}


@pytest.mark.parametrize("stays_open", [False, True], ids=["two contexts", "one context"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("change", CHANGES)
def test_no_stale_cast_after_weights_change(
    make_model: Any, make_inputs: Any, change: str, training: bool, stays_open: bool
) -> None:
    model, fresh = make_model(0).train(training), make_model(1).train(training)
    inputs = make_inputs(0, model.config, "right")

    def forward(model: BertModel) -> Tensor:
        with in_bfloat16(), torch.set_grad_enabled(training):
            return outputs(model, inputs)

    with in_bfloat16() if stays_open else nullcontext():
        first = forward(model)
        CHANGES[change](model, fresh)
        second = forward(model)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(second, forward(fresh))
    assert (second - first).abs().max() > 0.01


@pytest.fixture
def casts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first weight of each cast to bfloat16, by id, as they come."""
    made: list[int] = []
    cast = home._joined

    def counted(parts: Any, dtype: torch.dtype) -> Tensor:
        if parts[0].dtype != dtype:
            made.append(id(parts[0]))
        return cast(parts, dtype)

    monkeypatch.setattr(home, "_joined", counted)
    return made


@in_bfloat16()
def test_hold_casts_casts_each_weight_once(make_model: Any, make_inputs: Any, casts: list[int]) -> None:
    model = make_model()
    inputs = make_inputs(0, model.config, "right")
    with torch.no_grad():
        expected = outputs(model, inputs)
        a_pass = len(casts)
        assert a_pass == 2 * 8 + 2  # a layer: weight and bias of queries, keys and values as one, and of three more
        outputs(model, inputs)
        assert len(casts) == 2 * a_pass
        casts.clear()
        with hold_casts():
            assert torch.equal(outputs(model, inputs), expected)
            with hold_casts():
                assert torch.equal(outputs(model, inputs), expected)
            assert torch.equal(outputs(model, inputs), expected)
            assert len(casts) == len(set(casts)) == a_pass
        edit_data(model, model)
        edited = outputs(model, inputs)
        assert len(casts) == 2 * a_pass
        fresh = make_model(1)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(edited, outputs(fresh, inputs))
        assert not torch.equal(edited, expected)
        with hold_casts():
            assert torch.equal(outputs(model, inputs), edited)


@in_bfloat16()
def test_hold_casts_ends_with_an_error(make_model: Any, make_inputs: Any) -> None:
    model = make_model()
    inputs = make_inputs(0, model.config, "right")

    def broken() -> None:
        with hold_casts():
            outputs(model, inputs)
            raise KeyError

    with torch.no_grad():
        pytest.raises(KeyError, broken)
        edit_data(model, model)
        fresh = make_model(1)
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(outputs(model, inputs), outputs(fresh, inputs))


@in_bfloat16()
def test_hold_casts_holds_none_that_a_gradient_goes_through(make_model: Any, make_inputs: Any) -> None:
    model = make_model()
    inputs = make_inputs(0, model.config, "right")
    with hold_casts():
        with torch.no_grad():
            outputs(model, inputs)
        outputs(model, inputs).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("mask", ["none", "right"])
def test_bfloat16_is_as_close_to_float32_as_in_transformers(make_pair: Any, make_inputs: Any, mask: str) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 128}
    errors = torch.zeros(2)
    for seed in range(3):
        models = make_pair(seed, **sizes)
        inputs = make_inputs(seed, models[1].config, mask)
        kept = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        with torch.no_grad():
            exact = [model(**inputs).last_hidden_state[kept] for model in models]
            with in_bfloat16():
                rounded = [model(**inputs).last_hidden_state[kept] for model in models]
        assert (exact[0] - exact[1]).abs().max() <= 1e-4
        errors += torch.stack([(a - b).abs().mean() for a, b in zip(exact, rounded, strict=True)])
    assert 0 < errors[0] <= 1.5 * errors[1]
