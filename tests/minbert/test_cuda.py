"""On a GPU: what the encoder and AdamW compute there is what they compute on the CPU.

Left out unless asked for: python -m pytest -m cuda
"""

from typing import Any

import pytest
import torch
from torch import Tensor

import minbert
from minbert import AdamW, BertModel, BertTokenizer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.usefixtures("kernels"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
Found = tuple[Tensor, dict[str, Tensor]]


def computed(model: BertModel, inputs: dict[str, Tensor], device: str, dtype: torch.dtype = torch.float32) -> Found:
    """The outputs of real tokens and of a pooler in one vector, and the gradient of its squares, on the CPU."""
    model = model.to(device)
    model.zero_grad()
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        output = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    pooled = [] if output.pooler_output is None else [output.pooler_output.flatten()]
    found = torch.cat([output.packed.flatten(), *pooled]).float()
    found.square().mean().backward()
    return found.detach().cpu(), {
        name: p.grad.cpu().clone() for name, p in model.named_parameters() if p.grad is not None
    }


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm().clamp_min(1e-6)).item()


@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_outputs_and_gradients_are_those_of_the_cpu(make_model: Any, make_inputs: Any, kind: str, mask: str) -> None:
    model = make_model(model_type=kind).train()
    inputs = make_inputs(0, model.config, mask)
    expected, gradients = computed(model, inputs, "cpu")
    found, found_gradients = computed(model, inputs, "cuda")
    assert (found - expected).abs().max() <= 1e-5
    assert set(found_gradients) == set(gradients)
    largest = max(gradient.norm() for gradient in gradients.values())
    for name, gradient in gradients.items():  # that of a key's bias is zero but for rounding
        assert (found_gradients[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6 * largest, name


def test_bfloat16_is_near_float32(make_model: Any, make_inputs: Any, kind: str) -> None:
    model = make_model(model_type=kind).train()
    inputs = make_inputs(0, model.config, "right")
    (expected, gradients), (found, found_gradients) = (
        computed(model, inputs, "cuda", dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < distance(found, expected) <= 0.02
    all_found, all_expected = (torch.cat([g.flatten() for g in each.values()]) for each in (found_gradients, gradients))
    assert distance(all_found, all_expected) <= 0.05


def test_dropout_drops_its_share(make_model: Any, make_inputs: Any) -> None:
    model = make_model(hidden_dropout_prob=0.5).cuda().train()
    ids = torch.randint(model.config.vocab_size, (64, model.config.max_position_embeddings), device="cuda")
    states = model(ids, output_hidden_states=True).hidden_states[0]
    assert (states == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_adamw_steps_as_on_the_cpu(make_model: Any, make_inputs: Any) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        model = make_model().train().to(device)
        optimizer = AdamW(model.parameters(), lr=1e-3)
        for seed in range(3):
            computed(model, make_inputs(seed, model.config, "right"), device)
            optimizer.step()
        ends.append(torch.cat([p.detach().cpu().flatten() for p in model.parameters()]))
    assert (ends[0] - ends[1]).abs().max() <= 2e-4  # of 3e-3, where a gradient near zero decides the sign


def test_vectors_of_texts_are_those_of_the_cpu(tiny_weights: Any) -> None:
    model, tokenizer = BertModel.from_pretrained(tiny_weights), BertTokenizer.from_pretrained(tiny_weights)
    texts = ["A film.", "", "One that is longer than the others, by far."] * 50
    expected = minbert.encode(model, tokenizer, texts)
    found = minbert.encode(model.cuda(), tokenizer, texts)
    assert found.device.type == "cuda"
    assert (found.cpu() - expected).abs().max() <= 1e-5
