"""parameter_groups: what decays, and rates that fall from the top layer down."""

from typing import Any

import pytest
import torch
from torch import nn

import minbert
from minbert import BertForPreTraining, InputError, parameter_groups
from multitask.model.model import MultitaskModel
from multitask.settings.task import Task

TASK = Task(name="t", text=("a", "b"), label="y", labels=tuple("012"), pooling="attention")


def settings_of(model: nn.Module, **values: Any) -> dict[str, tuple[float, float]]:
    """Each parameter's rate and decay, by name; no parameter is in two groups."""
    groups = parameter_groups(model, **{"lr": 0.5, "weight_decay": 0.1, **values})
    found = [(p, (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(dict(found)) == len(found)
    by_parameter = dict(found)
    return {name: by_parameter[p] for name, p in model.named_parameters() if p in by_parameter}


def test_biases_and_norms_do_not_decay(make_model: Any) -> None:
    model = make_model()
    found = settings_of(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        # All matrices decay, the released code's rule: neither LayerNorm, layer_norm nor bias.
        assert found[name] == (0.5, 0.1 if parameter.dim() == 2 else 0.0), name
    assert [(group["lr"], group["weight_decay"]) for group in parameter_groups(model, 0.5, 0.1)] == [
        (0.5, 0.1),
        (0.5, 0.0),
    ]


def test_the_relative_attention_bias_is_a_bias(make_model: Any) -> None:
    """Transformers' Trainer goes by names, too, so it does not decay there."""
    sizes = {"type_vocab_size": 0, "pad_token_id": 1, "relative_attention_num_buckets": 32}
    found = settings_of(make_model(model_type="mpnet", **sizes))
    assert found["relative_attention_bias.weight"] == (0.5, 0.0)
    assert found["embeddings.word_embeddings.weight"] == (0.5, 0.1)


def test_rates_fall_from_the_last_layer_to_the_embeddings(make_model: Any) -> None:
    """Powers of two are exact."""
    model = make_model(num_hidden_layers=3)
    rates = {name: rate for name, (rate, _) in settings_of(model, layer_decay=0.5).items()}
    expected = {
        "pooler": 0.5,
        "layers.2": 0.25,
        "layers.1": 0.125,
        "layers.0": 0.0625,
        "embeddings": 0.03125,
    }
    for name, rate in rates.items():
        (place,) = (place for place in expected if name.startswith(place + "."))
        assert rate == expected[place], name
    groups = parameter_groups(model, 0.5, 0.1, layer_decay=0.5)
    assert [group["lr"] for group in groups] == sorted(group["lr"] for group in groups)
    assert len(groups) == 2 * 5


def test_decoders_and_heads_have_the_rate_itself(make_model: Any) -> None:
    model = MultitaskModel({TASK.encoder: make_model()}, [TASK])
    found = settings_of(model, layer_decay=0.5)
    assert set(found) == {name for name, _ in model.named_parameters()}
    decoders = {name: value for name, value in found.items() if name.startswith("decoders.")}
    assert len(decoders) == 2 * (3 + 1 + 1)
    for name, (rate, decay) in decoders.items():
        assert (rate, decay) == (0.5, 0.0 if name.endswith("bias") else 0.1)
    encoder = f"encoders.{TASK.encoder}."
    assert found[encoder + "layers.1.output.weight"] == (0.25, 0.1)
    assert found[encoder + "embeddings.word_embeddings.weight"] == (0.0625, 0.1)
    assert found[encoder + "pooler.weight"] == (0.5, 0.1)


def test_tied_and_frozen_parameters(make_model: Any) -> None:
    model = BertForPreTraining(make_model().config)
    found = settings_of(model, layer_decay=0.5)
    assert found["bert.embeddings.word_embeddings.weight"] == (0.0625, 0.1)
    assert found["prediction_bias"] == (0.5, 0.0)
    assert found["transform_LayerNorm.weight"] == (0.5, 0.0)
    assert found["transform.weight"] == (0.5, 0.1)
    model.bert.embeddings.requires_grad_(False)
    assert set(settings_of(model)) == {n for n, p in model.named_parameters() if p.requires_grad}


def test_norms_of_torch_do_not_decay(make_model: Any) -> None:
    model = make_model()
    model.layers[0].output_LayerNorm = nn.LayerNorm(16)
    found = settings_of(model)
    assert found["layers.0.output_LayerNorm.weight"] == (0.5, 0.0)


@pytest.mark.parametrize("optimizer", [minbert.AdamW, torch.optim.AdamW, torch.optim.SGD])
def test_optimizers_take_them(make_model: Any, optimizer: Any) -> None:
    """One step with a zero gradient is the decay alone."""
    model = make_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = settings_of(model, layer_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer(parameter_groups(model, 0.5, 0.1, 0.5)).step()
    for name, parameter in model.named_parameters():
        rate, decay = settings[name]
        assert torch.allclose(parameter, before[name] * (1 - rate * decay), rtol=1e-6, atol=0), name


@pytest.mark.parametrize("decay", [0, -0.5, 1.01, float("nan")])
def test_a_layer_decay_outside_its_range_is_one_sentence(make_model: Any, decay: float) -> None:
    with pytest.raises(InputError, match=f"layer_decay must be above 0 and at most 1, got {decay}"):
        parameter_groups(make_model(), 0.5, 0.1, decay)


@pytest.mark.parametrize("values", [{"lr": -1.0}, {"weight_decay": -0.1}, {"lr": float("nan")}])
def test_a_rate_or_decay_outside_its_range_is_refused_by_the_optimizer(make_model: Any, values: Any) -> None:
    groups = parameter_groups(make_model(), **{"lr": 0.5, "weight_decay": 0.1, **values})
    with pytest.raises(InputError, match="must be a finite number of at least 0"):
        minbert.AdamW(groups)
