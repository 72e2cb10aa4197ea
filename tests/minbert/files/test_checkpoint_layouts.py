"""Every layout of a checkpoint that HuggingFace writes is read, and what was done to it is reported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert import BertModel, WeightsError

Tensors = dict[str, Tensor]


def test_prefix_and_heads(outputs: Callable[..., Tensor], tiny_weights: Path, expected: Tensor) -> None:
    model = BertModel.from_pretrained(tiny_weights)
    assert not model.training
    heads = [name for name in load_file(tiny_weights / "model.safetensors") if name.startswith("cls.")]
    assert len(heads) == 7
    assert sorted(model.load_report.dropped) == sorted(heads)
    assert not model.load_report.renamed
    assert torch.equal(outputs(model), expected)


def test_without_prefix(
    outputs: Callable[..., Tensor], plain_encoder: Callable[[Tensors], Tensors], rewrite: Any, expected: Tensor
) -> None:
    model = BertModel.from_pretrained(rewrite(plain_encoder))
    assert torch.equal(outputs(model), expected)
    assert not model.load_report.dropped


def test_old_layer_norm_names(outputs: Callable[..., Tensor], rewrite: Any, expected: Tensor) -> None:
    def change(tensors: Tensors) -> Tensors:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, name in old.items():
            tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
        return tensors

    model = BertModel.from_pretrained(rewrite(change))
    assert torch.equal(outputs(model), expected)
    assert len(model.load_report.renamed) == 2 * (1 + 2 * 2)
    assert all("gamma" in name or "beta" in name for name in model.load_report.renamed)


def test_only_a_layer_norms_gamma_is_renamed(rewrite: Any) -> None:
    folder = rewrite(lambda tensors: {**tensors, "bert.gamma": torch.ones(1), "bert.my.beta": torch.ones(1)})
    with pytest.raises(WeightsError, match="unexpected bert.gamma.*unexpected bert.my.beta"):
        BertModel.from_pretrained(folder)


def test_extra_heads_and_position_ids_are_dropped_and_reported(
    outputs: Callable[..., Tensor], rewrite: Any, expected: Tensor
) -> None:
    extra = {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "classifier.weight": torch.ones(2, 32),
        "classifier.bias": torch.ones(2),
        "qa_outputs.weight": torch.ones(2, 32),
    }
    model = BertModel.from_pretrained(rewrite(lambda tensors: {**tensors, **extra}))
    assert torch.equal(outputs(model), expected)
    assert set(extra) < set(model.load_report.dropped)
    assert "dropped" in str(model.load_report)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_shards(
    outputs: Callable[..., Tensor],
    plain_encoder: Callable[[Tensors], Tensors],
    rewrite: Any,
    expected: Tensor,
    prefix: str,
) -> None:
    folder = rewrite(lambda tensors: {prefix + name: t for name, t in plain_encoder(tensors).items()})
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = [f"model-0000{part + 1}-of-00003.safetensors" for part in range(3)]
    for part, file in enumerate(files):
        save_file({name: tensors[name] for name in names[part::3]}, folder / file)
    weight_map = {name: files[number % 3] for number, name in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    assert torch.equal(outputs(BertModel.from_pretrained(folder)), expected)
    (folder / files[1]).unlink()
    with pytest.raises(WeightsError, match=files[1]):
        BertModel.from_pretrained(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, "bert.more": files[0]}}))
    shutil.copy(folder / files[0], folder / files[1])
    with pytest.raises(WeightsError, match=r"index.json: the shards must hold every .*missing"):
        BertModel.from_pretrained(folder)
    index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
    with pytest.raises(WeightsError, match="same folder"):
        BertModel.from_pretrained(folder)


def test_without_a_pooler(inputs: Tensors, rewrite: Any, expected: Tensor) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if "pooler" not in name}

    folder = rewrite(change)
    with pytest.raises(WeightsError, match="missing bert.pooler.dense.*add_pooling_layer=False"):
        BertModel.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    with torch.no_grad():
        output = model(**inputs)
    assert output.pooler_output is None
    states = output.last_hidden_state[inputs["attention_mask"].bool()].flatten()
    assert torch.equal(states, expected[: len(states)])


def test_a_pooler_that_is_not_wanted_is_dropped(inputs: Tensors, tiny_weights: Path) -> None:
    model = BertModel.from_pretrained(tiny_weights, add_pooling_layer=False)
    assert model(**inputs).pooler_output is None
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < set(model.load_report.dropped)


def test_an_untrained_pooler_is_mentioned(rewrite: Any, tiny_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {**tensors, "bert.pooler.dense.bias": torch.zeros(32)}

    assert not BertModel.from_pretrained(tiny_weights).load_report.notes
    assert not caplog.messages
    folder = rewrite(change)
    (note,) = BertModel.from_pretrained(folder).load_report.notes
    assert "pooler looks untrained" in note
    assert str(folder) in note
    assert caplog.messages == [note]
    assert BertModel.from_pretrained(folder, warn=False).load_report.notes == (note,)
    assert caplog.messages == [note]


def test_half_precision_is_widened_and_reported(outputs: Callable[..., Tensor], rewrite: Any, expected: Tensor) -> None:
    model = BertModel.from_pretrained(rewrite(lambda tensors: {n: t.half() for n, t in tensors.items()}))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(model.load_report.converted) == len(list(model.parameters()))
    assert (outputs(model) - expected).abs().max() < 0.05


def test_dropout_replaces_the_rates_of_the_folder(tiny_weights: Path) -> None:
    config = BertModel.from_pretrained(tiny_weights, dropout=0.25).config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)
    assert BertModel.from_pretrained(tiny_weights).config.hidden_dropout_prob == 0.1
