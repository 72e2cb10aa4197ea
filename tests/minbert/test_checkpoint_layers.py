"""Layers computed again in the backward pass: equal numbers, from no more than each layer's input."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from minbert import BertModel

Change = Callable[[BertModel], None]
RATES = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


def computed(model: BertModel, inputs: dict[str, Tensor], **named: Any) -> dict[str, Tensor]:
    """Outputs and gradients, and what is drawn after them."""
    model.zero_grad()
    torch.manual_seed(5)
    output = model(**inputs, **named)
    drawn = torch.rand(3)
    output.last_hidden_state.square().sum().backward()
    found = {"last": output.last_hidden_state, "drawn": drawn, "drawn later": torch.rand(3)}
    found |= {f"weights {number}": weights for number, weights in enumerate(output.attentions or ())}
    return {**found, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def hook(place: str) -> Change:
    def change(model: BertModel) -> None:
        model.get_submodule(place).register_forward_hook(lambda *_: None)

    return change


def freeze_some(model: BertModel) -> None:
    model.embeddings.requires_grad_(False)
    model.layers[0].requires_grad_(False)


CHANGES: dict[str, Change] = {
    "plain": lambda _: None,
    "hook on a layer": hook("layers.0"),
    "hook within": hook("layers.1.attention.query"),
    "frozen": freeze_some,
}


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("attentions", [False, True], ids=["", "attentions"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet"])
def test_every_number_is_the_same(
    kernels: str, make_model: Any, make_inputs: Any, kind: str, change: Change, attentions: bool, bfloat16: bool
) -> None:
    model = make_model(model_type=kind, **RATES).train()
    change(model)
    inputs, found = make_inputs(0, model.config, "holes"), []
    for again in (False, True):
        model.checkpoint_layers = again
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found.append(computed(model, inputs, output_attentions=attentions))
    assert set(found[0]) == set(found[1])
    assert all(torch.equal(found[1][name], due) for name, due in found[0].items())


class Alive(TorchDispatchMode):
    """Counts the bytes of what was computed within and is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, Tensor):
                storage = result.untyped_storage()
                self.made[storage.data_ptr()] = weakref.ref(storage), storage.nbytes()
        return results

    def bytes(self, apart_from: nn.Module) -> int:
        gc.collect()
        own = {parameter.untyped_storage().data_ptr() for parameter in apart_from.parameters()}
        return sum(size for place, (storage, size) in self.made.items() if place not in own and storage() is not None)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_each_layers_input_alone_is_kept(kernels: str, make_model: Any, make_inputs: Any, kind: str) -> None:
    layers, batch, seq, hidden = 8, 16, 20, 16
    model = make_model(model_type=kind, num_hidden_layers=layers, max_position_embeddings=30, **RATES).train()
    inputs, kept = make_inputs(0, model.config, "none", batch=batch, seq=seq), []
    for model.checkpoint_layers in (False, True):
        with Alive() as alive:
            output = model(**inputs)
            kept.append(alive.bytes(model))
        del output
    state = batch * seq * hidden * 4
    assert kept[0] > 10 * layers * state
    assert kept[1] < (layers + 12) * state  # the embeddings' parts, masks and indices make up the rest


def test_nothing_is_computed_again_in_eval_mode_or_without_a_gradient(kernels: str, make_model: Any) -> None:
    model, calls = make_model(), []
    model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model.checkpoint_layers = True
    ids = torch.arange(2, 14).view(2, 6)
    model(ids).packed.sum().backward()
    assert len(calls) == 1
    model.train()
    with torch.no_grad():
        model(ids)
    assert len(calls) == 2
    model(ids).packed.sum().backward()
    assert len(calls) == 4
