"""Layers that are computed once more in the backward pass: the same numbers, dropout included, from less memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

import minbert

DROPOUT = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.25}


def step(model: minbert.BertModel, inputs: dict[str, Tensor], **asked: bool) -> list[Tensor]:
    """Hidden states and gradients of one step in train mode, from a fixed seed."""
    model.zero_grad()
    torch.manual_seed(0)
    output = model.train()(**inputs, **asked)
    generator = torch.Generator().manual_seed(1)
    (output.packed * torch.randn(output.packed.shape, generator=generator)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [output.packed.detach(), *gradients, torch.rand(3)]  # the generator goes on from the same state, too


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet"])
@pytest.mark.parametrize("asked", [{}, {"output_attentions": True, "output_hidden_states": True}], ids=str)
def test_numbers_do_not_change(
    kernels: str, make_model: Any, make_inputs: Any, model_type: str, asked: dict[str, bool]
) -> None:
    model = make_model(0, model_type=model_type, **DROPOUT)
    inputs = make_inputs(0, model.config, "holes")
    plain = step(model, inputs, **asked)
    model.checkpoint_layers = True
    again = step(model, inputs, **asked)
    assert len(plain) == len(again) > 20
    for first, second in zip(plain, again, strict=True):
        assert torch.equal(first, second)


def test_only_training_with_gradients_recomputes(make_model: Any, make_inputs: Any) -> None:
    model = make_model(0, **DROPOUT)
    model.checkpoint_layers = True
    inputs, calls = make_inputs(0, model.config, "none"), []
    model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with minbert.kernels("reference"):
        step(model, inputs)
        assert len(calls) == 2
        model.eval()(**inputs).packed.sum().backward()
        assert len(calls) == 3
        with torch.no_grad():
            model.train()(**inputs)
        assert len(calls) == 4


def test_less_is_kept_for_the_backward_pass(kernels: str, make_model: Any, make_inputs: Any) -> None:
    model = make_model(0, num_hidden_layers=6, **DROPOUT).train()
    inputs, kept = make_inputs(0, model.config, "none"), []
    for model.checkpoint_layers in (False, True):
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model(**inputs)
        kept.append(sum(sizes.values()))
        assert output.packed.requires_grad
    assert kept[1] < kept[0] / 3
