"""The layer that is computed as a whole: against the reference, against itself module by module, and its casts."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import minbert
from minbert import BertModel
from minbert.fast import kernels
from minbert.fast.model import whole_settings
from minbert.packing import Packing

Inputs = dict[str, Tensor]
pytestmark = pytest.mark.usefixtures("fast")


def outputs(model: BertModel, inputs: Inputs) -> Tensor:
    """All that the model gives, in one vector."""
    output = model(**inputs)
    return torch.cat([output.last_hidden_state.flatten(), output.pooler_output.flatten()])


def is_whole(layer: nn.Module) -> bool:
    """Whether the layer is computed as a whole."""
    return whole_settings(layer, Packing(torch.ones(1, 2, dtype=torch.bool)), torch.zeros(2, 16)) is not None


def in_bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def gradients(model: BertModel, inputs: Inputs, seed: int = 0) -> dict[str, Tensor]:
    """Of a random projection of all outputs."""
    model.zero_grad()
    found = outputs(model, inputs)
    projection = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed), dtype=found.dtype)
    (found * projection).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Per tensor: no element differs by more than ``tolerance`` of the largest, with a floor of ``tolerance``."""
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        allowed = tolerance * max(1.0, gradient.abs().max().item())
        assert (found[name] - gradient).abs().max().item() <= allowed, name


# Gradients


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("mask", ["none", "right", "holes"])
def test_gradients_equal_those_of_the_reference(make_model: Any, make_inputs: Any, mask: str, activation: str) -> None:
    model = make_model(hidden_act=activation).double().train()
    assert all(map(is_whole, model.layers))
    inputs = make_inputs(0, model.config, mask)
    found = gradients(model, inputs)
    minbert.set_kernels("reference")
    assert_close(found, gradients(model, inputs), 1e-10)
    assert len(found) == len([*model.parameters()])


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_gradients_through_dropout_are_those_of_differences(make_model: Any, make_inputs: Any, activation: str) -> None:
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    tiny = {"vocab_size": 5, "hidden_size": 4, "intermediate_size": 3, "max_position_embeddings": 4}
    model = make_model(hidden_act=activation, **tiny, **rates).double().train()
    inputs = make_inputs(0, model.config, "holes", batch=3, seq=4)
    model.embeddings.word_embeddings.requires_grad_(False)  # the padding's row has no gradient, by design

    weights = torch.randn(3 * 4 * 4 + 3 * 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def forward(*_: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same elements are dropped each time
        return outputs(model, inputs) @ weights

    assert torch.autograd.gradcheck(forward, [p for p in model.parameters() if p.requires_grad])
    dropped = forward()
    model.eval()
    assert not torch.allclose(dropped, forward())


def test_frozen_parts_get_no_gradient_and_change_none(make_model: Any, make_inputs: Any) -> None:
    model = make_model().train()
    inputs = make_inputs(0, model.config, "right")
    expected = gradients(model, inputs)
    model.embeddings.requires_grad_(False)
    model.layers[0].requires_grad_(False)
    model.layers[1].intermediate.requires_grad_(False)
    found = gradients(model, inputs)
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert_close(found, {name: expected[name] for name in found}, 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_long_rows_without_a_gradient_equal_those_of_the_reference(
    make_model: Any, make_inputs: Any, dtype: torch.dtype
) -> None:
    """Long enough for torch's fused attention, some of them."""
    model = make_model(max_position_embeddings=150).to(dtype)
    inputs = make_inputs(0, model.config, "right", batch=9, seq=150)
    calls = CountsFused()
    with torch.inference_mode():
        with calls:
            found = outputs(model, inputs)
        minbert.set_kernels("reference")
        expected = outputs(model.double(), inputs)
    assert 0 < calls.count < 9 * model.config.num_hidden_layers
    allowed = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    assert (found - expected).abs().max().item() < allowed


class CountsFused(TorchDispatchMode):
    """Counts calls of the fused attention."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "scaled_dot_product" in str(func)
        return func(*args, **(kwargs or {}))


def test_outputs_without_a_gradient_are_those_with_one(make_model: Any, make_inputs: Any) -> None:
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    model = make_model(**rates).train()
    inputs = make_inputs(0, model.config, "holes")
    found = []
    for context in (nullcontext, torch.no_grad, torch.inference_mode):
        torch.manual_seed(0)
        with context():
            found.append(outputs(model, inputs).detach())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("home", "name", "activation"),
    [
        (torch.ops.aten, "native_layer_norm_backward", "gelu"),
        (torch.ops.aten, "gelu_backward", "gelu"),
        (torch.ops.aten, "gelu_backward", "gelu_new"),
        (torch.ops.aten, "silu_backward", "silu"),
        (torch, "_softmax_backward_data", "gelu"),
        (kernels, "_linear_pointwise", "gelu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_gradients_without_a_private_function_of_torch(
    monkeypatch: pytest.MonkeyPatch, make_model: Any, make_inputs: Any, home: Any, name: str, activation: str
) -> None:
    private, calls = getattr(home, name), []
    if private is None:
        pytest.skip("this torch has none")
    bfloat16 = name == "_linear_pointwise"  # which serves no other type
    model = make_model(hidden_act=activation).to(torch.float32 if bfloat16 else torch.float64).train()
    inputs = make_inputs(0, model.config, "right")
    monkeypatch.setattr(home, name, lambda *args, **named: calls.append(name) or private(*args, **named))
    found = []
    for _ in range(2):
        with in_bfloat16() if bfloat16 else nullcontext():
            found.append(gradients(model, inputs))
        monkeypatch.setattr(home, name, None)
    assert len(calls) >= 2  # once a layer, in the first run
    assert_close(found[1], found[0], 0.05 if bfloat16 else 1e-10)


# Layers that are not plain


class Adapter(nn.Linear):
    """In the place of a Linear; with the weights of one it computes the same."""

    calls = 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(input)


@pytest.mark.parametrize(
    "place", ["", "attention", "attention.query", "attention_LayerNorm", "intermediate", "dropout"]
)
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_a_hook_is_called_and_changes_nothing(make_model: Any, make_inputs: Any, kind: str, place: str) -> None:
    model = make_model().train()
    inputs = make_inputs(0, model.config, "right")
    assert all(is_whole(layer) for layer in model.layers)
    states, expected = outputs(model, inputs), gradients(model, inputs)
    calls = []
    module = model.layers[1].get_submodule(place)
    handle = getattr(module, f"register_{kind}_hook")(lambda *_: calls.append(kind))
    assert [is_whole(layer) for layer in model.layers] == [True, False]
    assert (outputs(model, inputs) - states).abs().max() <= 1e-5
    assert_close(gradients(model, inputs), expected, 1e-5)
    assert calls or place == "dropout"  # at rate 0 nothing calls it
    handle.remove()
    assert is_whole(model.layers[1])


@pytest.mark.parametrize("place", ["attention.query", "attention.value", "attention_output", "intermediate", "output"])
def test_an_adapter_is_called_and_changes_nothing(make_model: Any, make_inputs: Any, place: str) -> None:
    model = make_model().train()
    inputs = make_inputs(0, model.config, "right")
    states, expected = outputs(model, inputs), gradients(model, inputs)
    plain = model.layers[0].get_submodule(place)
    adapter = Adapter(plain.in_features, plain.out_features)
    adapter.load_state_dict(plain.state_dict())
    parent, _, name = place.rpartition(".")
    setattr(model.layers[0].get_submodule(parent), name, adapter)
    assert [is_whole(layer) for layer in model.layers] == [False, True]
    assert (outputs(model, inputs) - states).abs().max() <= 1e-5
    assert adapter.calls == 1
    assert_close(gradients(model, inputs), expected, 1e-5)


# Padding


class ProductSizes(TorchDispatchMode):
    """Records both operands' shapes of every product of two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[list[int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "linear", "_linear_pointwise", "mkldnn_linear", "linear_backward"):
            matrices = [arg for arg in args if isinstance(arg, Tensor) and arg.dim() == 2]
            self.shapes.append([size for matrix in matrices for size in matrix.shape])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("plain", [True, False], ids=["as a whole", "by module"])
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_padding_never_reaches_a_matrix_product(make_model: Any, bfloat16: bool, plain: bool) -> None:
    model = make_model(max_position_embeddings=256).train()
    if not plain:
        model.layers[0].register_forward_hook(lambda *_: None)
    lengths = torch.tensor([8] * 20 + [200] + [8] * 11)
    tokens = int(lengths.sum())  # 448; padded to the longest row there would be 6400
    mask = torch.arange(200) < lengths[:, None]
    inputs = {"input_ids": torch.ones(mask.shape, dtype=torch.int64), "attention_mask": mask}
    with ProductSizes() as forward, in_bfloat16() if bfloat16 else nullcontext():
        output = model(**inputs)
    with ProductSizes() as backward:
        output.packed.sum().backward()
    with ProductSizes() as alone, torch.no_grad(), in_bfloat16() if bfloat16 else nullcontext():
        model(**inputs)
    for mode, least in ((forward, 4 * 2), (backward, 8 * 2), (alone, 4 * 2)):
        assert len([shape for shape in mode.shapes if max(shape) >= tokens]) >= least  # no product went unseen
        assert max(size for shape in mode.shapes for size in shape) <= tokens + 32  # every weight is smaller


def test_what_is_no_plain_layer_is_computed_module_by_module(fast: None, make_model: Any) -> None:
    """Another eps in one norm, a forward of an instance's own, a global hook, and no dropout where one was."""
    model = make_model()
    layer, ids = model.layers[0], torch.arange(1, 13).view(2, 6)
    assert is_whole(layer)
    layer.attention_LayerNorm.eps = 0.5
    assert not is_whole(layer)
    with torch.no_grad():
        found = model(ids).last_hidden_state
        minbert.set_kernels("reference")
        assert torch.allclose(found, model(ids).last_hidden_state, atol=1e-5)
        minbert.set_kernels("fast")
    layer.attention_LayerNorm.eps = layer.output_LayerNorm.eps

    calls: list[int] = []
    whole = layer.intermediate.forward
    layer.intermediate.forward = lambda states: calls.append(1) or whole(states)
    model(ids)
    assert calls
    del layer.intermediate.forward
    calls.clear()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    model(ids)
    handle.remove()
    assert len(calls) > 10
    expected = model(ids).last_hidden_state
    layer.dropout = torch.nn.Identity()
    assert torch.allclose(model(ids).last_hidden_state, expected, atol=1e-5)
