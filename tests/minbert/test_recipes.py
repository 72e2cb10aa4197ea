"""The usual recipes find in BertModel what they find in transformers' BertModel, and do the same to it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minbert
from minbert import BertModel, BertTokenizer, InputError, encode
from minbert.families.bert import BERT
from minbert.layers import Dropout, LayerNorm
from multitask.model.model import MultitaskModel
from multitask.settings.task import Task

RATES = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
IDS = torch.arange(1, 25).view(3, 8)


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def quantize(model: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao's quantization is on its way out
        return torch.ao.quantization.quantize_dynamic(model.eval(), {nn.Linear}, dtype=torch.qint8)


def quantized(model: nn.Module) -> int:
    return sum(type(m).__name__ == "Linear" and "quantized" in type(m).__module__ for m in model.modules())


def replace_dropouts(model: nn.Module, make: Callable[[], nn.Module]) -> int:
    """The recipe itself: every module that isinstance finds, in whatever parent."""
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Dropout)
    ]
    for parent, name in places:
        setattr(parent, name, make())
    return len(places)


@pytest.mark.parametrize("kind", [nn.Linear, nn.Embedding, nn.LayerNorm])
def test_as_many_modules_as_in_transformers(make_pair: Any, kind: type[nn.Module]) -> None:
    mine, theirs = make_pair(0, num_hidden_layers=6)
    assert count(mine, kind) == count(theirs, kind) > 0
    assert {type(module) for module in mine.modules() if isinstance(module, kind)} == {
        LayerNorm if kind is nn.LayerNorm else kind
    }
    if kind is nn.LayerNorm:
        assert count(mine, kind) == 13


# Quantization


@pytest.mark.filterwarnings("ignore")
def test_every_linear_is_quantized_and_outputs_are_those_of_transformers(
    kernels: str, make_pair: Any, make_inputs: Any
) -> None:
    mine, theirs = make_pair(0, hidden_size=64, num_attention_heads=4, intermediate_size=96, initializer_range=0.1)
    inputs = make_inputs(0, theirs.config, "right")
    mask = inputs["attention_mask"].bool()
    with torch.no_grad():
        plain = mine(**inputs)
        mine, theirs = quantize(mine), quantize(theirs)
        assert quantized(mine) == quantized(theirs) == 6 * 2 + 1
        found, expected = mine(**inputs), theirs(**inputs)
    for name in ("last_hidden_state", "pooler_output"):
        exact, my, due = (getattr(output, name) for output in (plain, found, expected))
        if name == "last_hidden_state":
            exact, my, due = exact[mask], my[mask], due[mask]
        noise = (due - exact).abs().mean()
        assert noise > 1e-4  # quantized they are
        # A scale is taken from the whole batch, in theirs from padding, too: as close as each is to plain linears.
        assert (my - due).abs().mean() < 1.5 * noise
        assert (my - exact).abs().mean() < 1.5 * noise


@pytest.mark.filterwarnings("ignore")
def test_quantized_without_padding_is_transformers_to_a_rounding_step(kernels: str, make_pair: Any) -> None:
    """The same scales, so the same numbers, but where a product falls on the edge of two steps."""
    mine, theirs = make_pair(0)
    with torch.no_grad():
        plain = mine(IDS).last_hidden_state
        found, expected = quantize(mine)(IDS).last_hidden_state, quantize(theirs)(IDS).last_hidden_state
    assert (found - expected).abs().mean() < 0.1 * (plain - expected).abs().mean()


@pytest.mark.filterwarnings("ignore")
def test_quantized_under_autocast_is_one_sentence(kernels: str, make_model: Any, tiny_weights: Path) -> None:
    model = quantize(make_model())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="without autocast"):
        model(IDS)
    task = Task(name="t", text=("a",), label="y", labels=tuple("012"), pooling="attention")
    tasks = quantize(MultitaskModel({task.encoder: make_model()}, [task]))
    assert quantized(tasks) == 6 * 2 + 1 + 5
    with torch.no_grad():
        assert tasks("t", {"input_ids": IDS}).isfinite().all()
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="without autocast"):
            tasks("t", {"input_ids": IDS})
    tokenizer = BertTokenizer.from_pretrained(tiny_weights)
    vectors = encode(quantize(BertModel.from_pretrained(tiny_weights)), tokenizer, ["a good film", "bad"])
    assert vectors.isfinite().all()


# Dropout


def test_monte_carlo_dropout_by_isinstance(kernels: str, make_model: Any) -> None:
    model, other = make_model(**RATES), make_model()
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(dropouts) == 1 + 2 * 2
    expected = other(IDS).last_hidden_state
    assert torch.equal(model(IDS).last_hidden_state, expected)
    for module in dropouts:
        module.train()
    found = torch.stack([model(IDS).last_hidden_state for _ in range(50)])
    assert not torch.equal(found[0], found[1])
    assert (found.std(0) > 0.01).float().mean() > 0.99  # of nearly every element
    for module in dropouts:
        module.p = 0.0
    assert torch.equal(model(IDS).last_hidden_state, expected)


@pytest.mark.parametrize("make", [lambda: nn.Dropout(0.0), nn.Identity], ids=["Dropout(0.)", "Identity"])
@pytest.mark.parametrize("attentions", [False, True], ids=["", "attentions"])
def test_a_replaced_dropout_drops_nothing_anywhere(
    kernels: str, make_model: Any, make: Callable[[], nn.Module], attentions: bool
) -> None:
    task = Task(name="t", text=("a", "b"), label="y", labels=tuple("012"), pooling="attention", dropout=0.4)
    model = MultitaskModel({task.encoder: make_model(**RATES)}, [task])
    with torch.no_grad():
        expected = model.eval()("t", {"input_ids": IDS})
        states = model.encoder_of("t")(IDS).last_hidden_state
        assert replace_dropouts(model, make) == 1 + 2 * 2 + 3  # embeddings, layers; pooling, decoder, head
        assert torch.allclose(model.train()("t", {"input_ids": IDS}), expected, atol=1e-6)
        output = model.encoder_of("t")(IDS, output_attentions=attentions)
    assert torch.allclose(output.last_hidden_state, states, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: nn.Dropout(0.3), lambda: nn.AlphaDropout(0.3)], ids=["torch's", "alpha"])
def test_a_dropout_of_torch_drops_in_train_mode(kernels: str, make_model: Any, make: Callable[[], nn.Module]) -> None:
    model = make_model()
    expected = model(IDS).last_hidden_state
    assert replace_dropouts(model, make) == 5
    assert torch.allclose(model.eval()(IDS).last_hidden_state, expected, atol=1e-5)
    found = torch.stack([model.train()(IDS).last_hidden_state for _ in range(20)])
    assert (found.std(0) > 0.01).float().mean() > 0.99
    assert type(model.embeddings.dropout) is not Dropout


# Norms


def test_the_name_recipe_decays_what_it_decays_in_transformers(make_pair: Any) -> None:
    """By the names here and by those that HuggingFace writes, by isinstance, and by parameter_groups."""
    mine, theirs = make_pair(0)

    def decayed(names: Any) -> set[str]:
        return {name for name in names if not any(part in name for part in ("bias", "LayerNorm.weight"))}

    expected = decayed(name for name, _ in theirs.named_parameters())
    assert decayed(BERT.to_hub_name(name) for name, _ in mine.named_parameters()) == expected
    assert set(map(BERT.to_hub_name, decayed(name for name, _ in mine.named_parameters()))) == expected
    norms = {id(part) for module in mine.modules() if isinstance(module, nn.LayerNorm) for part in module.parameters()}
    by_type = {n for n, p in mine.named_parameters() if id(p) not in norms and not n.endswith("bias")}
    assert set(map(BERT.to_hub_name, by_type)) == expected
    groups = minbert.parameter_groups(mine, 1e-3, 0.1)
    tensors: set[Tensor] = {p for group in groups if group["weight_decay"] for p in group["params"]}
    assert {BERT.to_hub_name(n) for n, p in mine.named_parameters() if p in tensors} == expected
