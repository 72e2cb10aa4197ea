"""The encoder against what `transformers` computed once with weights/tiny-bert; needs no `transformers`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from minbert import BertForPreTraining, BertModel, BertTokenizer

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
