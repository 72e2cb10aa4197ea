"""What the tests that hold the fast path to the reference share: all that a model computes, and a comparison."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minbert import BertModel

Computed = dict[str, Tensor]


@pytest.fixture(scope="session")
def computed() -> Callable[..., Computed]:
    """A function of a model and its inputs: outputs, and gradients of a random projection of all of them."""

    def of(model: BertModel, inputs: dict[str, Tensor], attentions: bool = False) -> Computed:
        model.zero_grad()
        output = model(**inputs, output_hidden_states=True, output_attentions=attentions)
        found = {"pooled": output.pooler_output, "last": output.last_hidden_state}
        found |= {f"state {number}": states for number, states in enumerate(output.hidden_states)}
        found |= {f"weights {number}": weights for number, weights in enumerate(output.attentions or ())}
        generator = torch.Generator().manual_seed(0)
        parts = [
            (part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in found.values()
        ]
        torch.stack(parts).sum().backward()
        return {**found, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}

    return of


@pytest.fixture(scope="session")
def assert_equal() -> Callable[..., None]:
    """A function of two such results: compares them, each tensor by its largest element."""

    def compare(found: Computed, expected: Computed, tolerance: float = 1e-10) -> None:
        assert set(found) == set(expected)
        for name, due in expected.items():
            assert found[name].shape == due.shape, name
            assert (found[name] - due).abs().max() <= tolerance * max(1.0, due.abs().max().item()), name

    return compare
