"""A layer computed piece by piece: whatever part is replaced or hooked, it is the reference's, and stays packed."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import minbert
from minbert import BertModel
from minbert.fast.model import whole_settings
from minbert.packing import Packing

Inputs = dict[str, Tensor]
Change = Callable[[BertModel], None]


class LowRank(nn.Module):
    """W x + B A x, as in LoRA (Hu et al. 2022, arXiv 2106.09685); the base stays as it is."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        self.a = nn.Parameter(torch.randn(rank, base.in_features, generator=generator, dtype=base.weight.dtype))
        self.b = nn.Parameter(torch.randn(base.out_features, rank, generator=generator, dtype=base.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        low: Tensor = self.base(x)
        return low + x @ self.a.t() @ self.b.t()


class Doubled(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def adapters(model: BertModel) -> None:
    for layer in model.layers:
        layer.attention.query = LowRank(layer.attention.query)
        layer.attention.value = LowRank(layer.attention.value)


def no_bias(model: BertModel) -> None:
    for place in ("attention.key", "attention_output", "intermediate"):
        model.layers[0].get_submodule(place).bias = None
    model.pooler.bias = None


def swap_norms(kind: type[nn.LayerNorm]) -> Change:
    def change(model: BertModel) -> None:
        for parent, name in ((model.embeddings, "LayerNorm"), (model.layers[1], "output_LayerNorm")):
            old = getattr(parent, name)
            new = kind(old.normalized_shape, eps=old.eps, dtype=old.weight.dtype)
            new.load_state_dict(old.state_dict())
            setattr(parent, name, new)

    return change


def freeze_norm_weights(model: BertModel) -> None:
    layer = model.layers[0]
    layer.attention_LayerNorm = nn.LayerNorm(16, elementwise_affine=False)
    layer.output_LayerNorm = nn.LayerNorm(16, bias=False, dtype=torch.float64)


def max_norm(model: BertModel) -> None:
    words = model.embeddings.word_embeddings
    words.max_norm = 0.5 * words.weight.norm(dim=1).median().item()


def scaled_by_frequency(model: BertModel) -> None:
    model.embeddings.word_embeddings.scale_grad_by_freq = True


def other_activation(model: BertModel) -> None:
    model.layers[1].activation = torch.tanh


def tie_layers(model: BertModel) -> None:
    model.layers[1] = model.layers[0]


def doubling_hook(place: str) -> Change:
    """A hook that changes the output: a piece that did not call it would be seen."""

    def double(module: nn.Module, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return 1.5 * output[0], *output[1:]
        return 1.5 * output

    def change(model: BertModel) -> None:
        model.get_submodule(place).register_forward_hook(double)

    return change


def subclass(place: str) -> Change:
    """A type derived from the part's own, with another forward."""

    def change(model: BertModel) -> None:
        module = model.get_submodule(place)
        kind = type(module)
        module.__class__ = type("Doubled", (kind,), {"forward": lambda self, x: 1.5 * kind.forward(self, x)})

    return change


PLACES = [
    "embeddings",
    "embeddings.word_embeddings",
    "embeddings.position_embeddings",
    "embeddings.token_type_embeddings",
    "embeddings.LayerNorm",
    "embeddings.dropout",
    "layers.0",
    "layers.1.attention",
    "layers.1.attention.query",
    "layers.0.attention.key",
    "layers.1.attention.value",
    "layers.0.attention.dropout",
    "layers.0.attention_output",
    "layers.0.attention_LayerNorm",
    "layers.1.intermediate",
    "layers.1.output",
    "layers.1.output_LayerNorm",
    "layers.1.dropout",
    "pooler",
]
WITH_MORE_ARGUMENTS = ("embeddings", "layers.0", "layers.1.attention")
CHANGES: dict[str, Change] = {
    "adapters": adapters,
    "no bias": no_bias,
    "torch's norms": swap_norms(nn.LayerNorm),
    "other norms": swap_norms(Doubled),
    "norms without weights": freeze_norm_weights,
    "max_norm": max_norm,
    "scale_grad_by_freq": scaled_by_frequency,
    "another activation": other_activation,
    "one layer twice": tie_layers,
    **{f"hook on {place}": doubling_hook(place) for place in PLACES},
    **{f"subclass at {place}": subclass(place) for place in PLACES if place not in WITH_MORE_ARGUMENTS},
}


@pytest.mark.parametrize("attentions", [False, True], ids=["", "attentions"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pieces_are_those_of_the_reference(
    make_model: Any, make_inputs: Any, change: Change, attentions: bool, computed: Any, assert_equal: Any
) -> None:
    found = {}
    for name in ("fast", "reference", "unchanged"):
        model = make_model().double().train()
        if name != "unchanged":
            change(model)
        with minbert.kernels("reference" if name == "unchanged" else name):
            found[name] = computed(model, make_inputs(0, model.config, "holes"), attentions)
    assert_equal(found["fast"], found["reference"])
    if change not in (CHANGES["torch's norms"],):  # all others compute something else
        with pytest.raises(AssertionError):
            assert_equal(found["reference"], found["unchanged"])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_attentions_of_plain_layers_are_those_of_the_reference(
    make_model: Any, make_inputs: Any, training: bool, computed: Any, assert_equal: Any
) -> None:
    model = make_model().double().train(training)
    inputs, found = make_inputs(0, model.config, "holes"), []
    for name in ("fast", "reference"):
        with minbert.kernels(name):
            found.append(computed(model, inputs, attentions=True))
    assert_equal(*found)


def test_attentions_in_train_mode_are_those_that_were_used(make_model: Any, exact_rate: Any, kernels: str) -> None:
    """After dropout: zeros at its rate, and the rest scaled."""
    model = make_model(attention_probs_dropout_prob=0.25, max_position_embeddings=64).double().train()
    ids = torch.arange(1, 33).view(1, 32).repeat(16, 1)
    weights = torch.cat(model(ids, output_attentions=True).attentions[:1])
    with torch.no_grad():
        whole = torch.cat(model.eval()(ids, output_attentions=True).attentions[:1])
    kept = weights != 0
    assert abs((~kept).double().mean() - 0.25) < 0.02
    assert torch.allclose(weights[kept], (whole / (1 - exact_rate(0.25)))[kept])


class ProductRows(TorchDispatchMode):
    """Records the rows of the first operand of every product with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("mm", "addmm", "linear", "_linear_pointwise", "mkldnn_linear"):
            first = [arg for arg in args if isinstance(arg, Tensor) and arg.dim() >= 2][0]
            self.rows.append(first.shape[:-1].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("change", [lambda _: None, adapters, no_bias], ids=["plain", "adapters", "no bias"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_attentions_stay_on_packed_tokens(make_model: Any, change: Change, training: bool) -> None:
    model = make_model(max_position_embeddings=100).double().train(training)
    change(model)
    lengths = torch.tensor([4] * 7 + [100])
    mask = torch.arange(100) < lengths[:, None]  # 128 real tokens of 800
    with minbert.kernels("fast"), ProductRows() as products:
        model(torch.ones(mask.shape, dtype=torch.int64), mask, output_attentions=True)
    assert max(products.rows) <= 128 + 32
    assert len([rows for rows in products.rows if rows >= 128]) >= 2 * 4


def test_a_part_is_called_once_each_pass(make_model: Any) -> None:
    """Not once to look at it and once to use it, and the layer below stays whole."""
    model, calls = make_model(), []
    for place in ("attention", "attention.query", "output_LayerNorm", "intermediate"):
        module = model.layers[1].get_submodule(place)
        module.register_forward_hook(lambda *_, place=place: calls.append(place))
    with minbert.kernels("fast"):
        for attentions in (False, True):
            calls.clear()
            model(torch.arange(1, 9).view(2, 4), output_attentions=attentions)
            assert sorted(calls) == ["attention", "attention.query", "intermediate", "output_LayerNorm"]
    packing = Packing(torch.ones(2, 4, dtype=torch.bool))
    assert [whole_settings(layer, packing, torch.zeros(8, 16)) is not None for layer in model.layers] == [True, False]


@pytest.mark.parametrize("asked", [False, True], ids=["not asked for", "asked for"])
def test_hidden_states_live_on_only_if_they_are_asked_for(kernels: str, make_model: Any, asked: bool) -> None:
    """Each layer's input, looked at where the last layer begins."""
    model, states, alive = make_model(num_hidden_layers=5), [], []

    def look(module: nn.Module, arguments: Any) -> None:
        gc.collect()
        alive.append(sum(state() is not None for state in states))
        states.append(weakref.ref(arguments[0].untyped_storage()))

    for layer in model.layers:
        layer.register_forward_pre_hook(look)
    with torch.no_grad():
        output = model(torch.arange(1, 9).view(2, 4), output_hidden_states=asked)
    assert (output.hidden_states is not None) == asked
    assert alive == ([0, 1, 2, 3, 4] if asked else [0, 0, 0, 0, 0])
