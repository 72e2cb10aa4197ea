"""An exported, compiled or transformed forward follows lengths and masks other than those traced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import minbert
from minbert import BertModel, InputError
from minbert.packing import PaddedRows
from multitask.model.model import MultitaskModel
from multitask.settings.task import Task

Inputs = tuple[Tensor, ...]
SHAPES = [(3, 7), (5, 12), (1, 1), (1, 9), (2, 20)]
TRACED = (3, 7)
ROWS = {0: Dim("batch"), 1: Dim("seq", max=20)}


class Everything(nn.Module):
    """All that an encoder gives, as tensors."""

    def __init__(self, model: BertModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, types: Tensor | None = None) -> Inputs:
        output = self.model(input_ids, mask, types, output_hidden_states=True, output_attentions=True)
        return output.last_hidden_state, output.pooler_output, *output.hidden_states, *output.attentions


def draw(shape: tuple[int, int], seed: int = 0, *, holes: bool = True) -> Inputs:
    """Ids, mask and token types; the mask has holes, or pads on the right."""
    generator = torch.Generator().manual_seed(seed)
    if holes:
        mask = (torch.rand(shape, generator=generator) < 0.6).long()
        mask[:, 0] = 1
    else:
        mask = (torch.arange(shape[1]) < torch.randint(1, shape[1] + 1, (shape[0], 1), generator=generator)).long()
    ids = torch.randint(50, shape, generator=generator)
    return ids, mask, torch.randint(2, shape, generator=generator)


def export(model: nn.Module, inputs: Inputs, *, strict: bool) -> nn.Module:
    shapes = tuple(ROWS for _ in inputs)
    return torch.export.export(model, inputs, dynamic_shapes=shapes, strict=strict).module()


def assert_equal(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for mine, due in zip(found, expected, strict=True):
        assert mine.shape == due.shape
        assert torch.allclose(torch.as_tensor(mine), due, atol=1e-5)


def assert_follows(found: Callable[..., Any], model: Callable[..., Any], given: int = 3) -> None:
    """Both give the same for other lengths and masks than those traced; ``given`` of the three inputs are passed."""
    with torch.no_grad():
        for seed, shape in enumerate(SHAPES, 1):
            for holes in (False, True):
                inputs = draw(shape, seed, holes=holes)[:given]
                assert_equal(found(*inputs), model(*inputs))


# torch.export


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("given", [1, 2, 3], ids=["ids", "mask", "types"])
def test_an_exported_encoder_follows_lengths_and_masks(make_model: Any, given: int, strict: bool) -> None:
    model = Everything(make_model())
    assert_follows(export(model, draw(TRACED)[:given], strict=strict), model, given)


@pytest.mark.parametrize(("kind", "strict"), [("roberta", False), ("mpnet", True)])
def test_members_are_exported_with_their_positions_and_bias(make_model: Any, kind: str, strict: bool) -> None:
    model = Everything(make_model(model_type=kind, max_position_embeddings=22))
    assert_follows(export(model, draw(TRACED)[:2], strict=strict), model, 2)


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_a_bare_encoder_is_exported_with_its_output(kernels: str, make_model: Any, strict: bool) -> None:
    model = make_model()
    exported = export(model, draw(TRACED), strict=strict)
    inputs = draw((4, 11), 3)
    found, expected = exported(*inputs), model(*inputs)
    assert isinstance(found, minbert.BertOutput)
    assert isinstance(found.packing, PaddedRows)
    assert_equal([found.last_hidden_state, found.pooler_output], [expected.last_hidden_state, expected.pooler_output])
    assert not found.last_hidden_state[inputs[1] == 0].any()  # a mean over all positions would count them
    means = found.packing.mean(found.packed), expected.packing.mean(expected.packed)
    assert torch.allclose(*means, atol=1e-5)
    assert found.hidden_states is None
    assert found.attentions is None


def test_an_exported_forward_looks_at_no_values(kernels: str, make_model: Any) -> None:
    """What the encoder refuses, one that was exported computes: row 0's first token is masked."""
    ids, mask, types = draw(TRACED)
    mask[0, 0] = 0
    model = make_model()
    with pytest.raises(InputError, match="first token"):
        model(ids, mask, types)
    exported = export(model, draw(TRACED), strict=False)
    mask[0, 1] = 1
    assert exported(ids, mask, types).last_hidden_state.isfinite().all()


@pytest.mark.parametrize(
    ("pooling", "text"),
    [("mean", ("a",)), ("attention", ("a", "b")), ("cls", ("a",)), ("max", ("a",)), ("pooler", ("a",))],
)
def test_a_task_is_exported_through_a_small_wrapper(make_model: Any, pooling: str, text: tuple[str, ...]) -> None:
    task = Task(name="t", text=text, label="y", labels=tuple("012"), pooling=pooling, input="joint")
    model = MultitaskModel({task.encoder: make_model()}, [task]).eval()

    class OneTask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor]:
            return (self.model("t", {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}),)

    assert_follows(export(OneTask(), draw(TRACED), strict=False), OneTask())


# torch.compile


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_encoder_is_one_graph(make_model: Any, backend: str) -> None:
    model = Everything(make_model())
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    assert_follows(compiled, model)


def test_gradients_of_a_compiled_encoder(make_model: Any) -> None:
    """In train mode, without dropout."""
    found = []
    for compiled in (False, True):
        model = make_model().train()
        torch._dynamo.reset()
        forward = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        forward(*draw((4, 11), 3)).last_hidden_state.square().sum().backward()
        found.append([parameter.grad for name, parameter in model.named_parameters() if "pooler" not in name])
    for mine, due in zip(found[1], found[0], strict=True):
        assert (mine - due).abs().max() <= 1e-5 * max(1, due.abs().max())


# ONNX


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize(("kind", "given"), [("bert", 3), ("mpnet", 2)])
def test_an_onnx_encoder_follows_lengths_and_masks(make_model: Any, tmp_path: Path, kind: str, given: int) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript, which is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="runs with onnxruntime, which is not installed")
    model = Everything(make_model(model_type=kind, max_position_embeddings=22))
    path, names = str(tmp_path / "encoder.onnx"), ("ids", "mask", "types")[:given]
    shapes = {"dynamic_shapes": (ROWS,) * given, "input_names": names}
    torch.onnx.export(model, draw(TRACED)[:given], path, dynamo=True, verbose=False, **shapes)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Any:
        return session.run(None, dict(zip(names, (part.numpy() for part in inputs), strict=True)))

    assert_follows(run, model, given)


# torch.jit.trace, torch.func


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_jit_trace_refuses_and_names_the_way_out(kernels: str, make_model: Any) -> None:
    for model in (make_model(), Everything(make_model())):
        with pytest.raises(InputError, match=r"torch.onnx.export\(..., dynamo=True\)"):
            torch.jit.trace(model, draw(TRACED), check_trace=False, strict=False)


def test_func_grad_gives_the_gradients_of_backward(make_model: Any) -> None:
    model, inputs = make_model(), draw((4, 11))
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        output = torch.func.functional_call(model, values, inputs)
        return output.last_hidden_state.square().sum() + output.pooler_output.sum()

    with minbert.kernels("reference"):
        found = torch.func.grad(loss)(parameters)
        loss(dict(model.named_parameters())).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-6), name
    with minbert.kernels("fast"):
        for transformed in (torch.func.grad(loss), torch.func.jacrev(loss)):
            with pytest.raises(InputError, match=r"within `with minbert.kernels\('reference'\):`"):
                transformed(parameters)
        assert loss(parameters).isfinite()  # a functional call alone is no transform
