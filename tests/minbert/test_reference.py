"""The encoder against what `transformers` computed once with the weights of weights/; needs no `transformers`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from minbert import BertForPreTraining, BertModel, BertTokenizer
from minbert.attention import relative_buckets

pytestmark = pytest.mark.smoke
CASES = ["plain", "padded", "holes"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def recorded(tiny_weights: Path) -> dict[str, Tensor]:
    with safe_open(tiny_weights / "reference.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


@pytest.fixture(scope="module")
def about(tiny_weights: Path) -> dict[str, object]:
    with safe_open(tiny_weights / "reference.safetensors", framework="pt") as file:
        content: dict[str, object] = json.loads(file.metadata()["about"])
    return content


def inputs_of(recorded: dict[str, Tensor], case: str) -> tuple[dict[str, Tensor], Tensor]:
    """The recorded inputs of a case, and the unmasked positions, bool (batch, seq)."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: recorded[f"{case}.{name}"] for name in names if f"{case}.{name}" in recorded}
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    return inputs, mask.bool()


def test_the_recording_names_its_versions(about: dict[str, object]) -> None:
    assert str(about["transformers"]).count(".") >= 2
    assert str(about["torch"]).count(".") >= 2


@pytest.mark.parametrize("case", CASES)
def test_encoder(kernels: str, tiny_weights: Path, recorded: dict[str, Tensor], case: str) -> None:
    inputs, kept = inputs_of(recorded, case)
    assert (case == "plain") == bool(kept.all())
    model = BertModel.from_pretrained(tiny_weights)
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True, output_attentions=True)
        plain = model(**inputs)
    assert found.hidden_states is not None
    assert found.attentions is not None
    assert len(found.hidden_states) == 3
    assert len(found.attentions) == 2
    pooled = recorded[f"{case}.pooler_output"]
    assert (found.pooler_output - pooled).abs().max() <= TOLERANCE
    assert (plain.pooler_output - pooled).abs().max() <= TOLERANCE
    for layer, states in enumerate(found.hidden_states):
        assert (states - recorded[f"{case}.hidden_states.{layer}"])[kept].abs().max() <= TOLERANCE
        assert not states[~kept].any()
    difference = plain.last_hidden_state - recorded[f"{case}.hidden_states.2"]
    assert difference[kept].abs().max() <= TOLERANCE
    for layer, weights in enumerate(found.attentions):
        difference = weights - recorded[f"{case}.attentions.{layer}"]  # (batch, heads, seq, seq)
        assert difference.transpose(1, 2)[kept].abs().max() <= TOLERANCE
        assert not weights.transpose(1, 2)[~kept].any()


def test_pretraining_heads(kernels: str, tiny_weights: Path, recorded: dict[str, Tensor]) -> None:
    inputs, kept = inputs_of(recorded, "holes")
    with torch.no_grad():
        found = BertForPreTraining.from_pretrained(tiny_weights)(**inputs)
    difference = found.prediction_logits - recorded["holes.prediction_logits"]
    assert difference[kept].abs().max() <= TOLERANCE
    difference = found.seq_relationship_logits - recorded["holes.seq_relationship_logits"]
    assert difference.abs().max() <= TOLERANCE


def test_token_ids(tiny_weights: Path, recorded: dict[str, Tensor], about: dict[str, list[str]]) -> None:
    tokenizer = BertTokenizer.from_pretrained(tiny_weights)
    limit = int(str(about["max_length"]))
    batch = tokenizer(about["texts"], about["pairs"], truncation=True, max_length=limit)
    for name, tensor in batch.items():
        assert torch.equal(tensor, recorded[f"texts.{name}"]), name


def test_mpnet(kernels: str, root: Path) -> None:
    folder = root / "weights" / "tiny-mpnet"
    with safe_open(folder / "reference.safetensors", framework="pt") as file:
        recorded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    model, ids, kept = BertModel.from_pretrained(folder), recorded["input_ids"], recorded["attention_mask"]
    assert (ids[kept] == model.config.pad_token_id).any()  # which have a position, and others none
    assert not kept.all()
    with torch.no_grad():
        plain, holes = model(ids), model(ids, kept, output_hidden_states=True)
    assert (plain.last_hidden_state - recorded["plain"]).abs().max() <= TOLERANCE
    assert (plain.pooler_output - recorded["plain.pooler_output"]).abs().max() <= TOLERANCE
    assert holes.hidden_states is not None
    assert len(holes.hidden_states) == 3
    for layer, states in enumerate(holes.hidden_states):
        assert (states - recorded[f"holes.{layer}"])[kept].abs().max() <= TOLERANCE
        assert not states[~kept].any()
    with torch.no_grad():  # the guard: what is compared depends on the bias
        assert model.relative_attention_bias is not None
        model.relative_attention_bias.weight.copy_(model.relative_attention_bias.weight.flip(0))
        assert (model(ids).last_hidden_state - recorded["plain"]).abs().max() > 0.01


def test_buckets_of_relative_attention(root: Path) -> None:
    with safe_open(root / "weights" / "tiny-mpnet" / "reference.safetensors", framework="pt") as file:
        recorded = file.get_tensor("buckets")
    assert torch.equal(relative_buckets(torch.arange(-200, 201)), recorded.long())
    assert relative_buckets(torch.tensor([0, -1, 1, -7, 7, -8, -128, 128])).tolist() == [0, 1, 17, 7, 23, 8, 15, 31]
