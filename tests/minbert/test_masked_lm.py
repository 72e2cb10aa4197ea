"""The masked-language-model head of every family, beside that of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from minbert import BertConfig, BertForMaskedLM, BertModel, WeightsError
from minbert.families.members import family_of

IDS = torch.tensor([[5, 6, 9, 7, 20], [8, 9, 3, 33, 7]])
# Of RoBERTa and its relatives the head has gelu, whatever the layers have.
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "hidden_act": "relu",
}


@pytest.fixture
def model(kind: str) -> BertForMaskedLM:
    """A model with random parameters, in eval mode; with a pooler where the family has one."""
    family = family_of(kind)
    torch.manual_seed(3)
    model = BertForMaskedLM(BertConfig(model_type=kind, **{**SIZES, **family.defaults, **family.fixed, **SIZES}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found = model(IDS)
    return getattr(found, "logits", found)


def test_transformers_loads_what_is_written_and_the_other_way_round(
    transformers: Any, model: BertForMaskedLM, kind: str, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(theirs).__name__]
    assert (logits_of(theirs) - logits_of(model)).abs().max() <= 1e-5
    theirs.save_pretrained(tmp_path / "theirs")
    again = BertForMaskedLM.from_pretrained(tmp_path / "theirs")
    assert again.bert.pooler is None
    assert torch.equal(logits_of(again), logits_of(model))


def test_the_encoder_and_its_pooler_are_loaded_back(model: BertForMaskedLM, kind: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    encoder = BertModel.from_pretrained(tmp_path, add_pooling_layer=kind != "distilbert")
    assert (encoder.pooler is None) == (kind == "distilbert")
    for name, parameter in encoder.named_parameters():
        assert torch.equal(parameter, model.bert.get_parameter(name)), name


def test_a_copy_of_the_words_must_equal_them(model: BertForMaskedLM, kind: str, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tensors, family = load_file(tmp_path / "model.safetensors"), model.config.family
    copy = {"bert": "cls.predictions.decoder", "distilbert": "vocab_projector"}.get(kind, "lm_head.decoder")
    words = tensors[f"{family.prefix}embeddings.word_embeddings.weight"]
    save_file({**tensors, f"{copy}.weight": words.clone()}, tmp_path / "model.safetensors")
    assert torch.equal(logits_of(BertForMaskedLM.from_pretrained(tmp_path)), logits_of(model))
    save_file({**tensors, f"{copy}.weight": words + 1}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"{copy}\.weight must equal the parameter"):
        BertForMaskedLM.from_pretrained(tmp_path)


def test_weights_without_a_head_are_refused(model: BertForMaskedLM, tmp_path: Path) -> None:
    model.bert.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"the weights must fit the model: missing \S*"):
        BertForMaskedLM.from_pretrained(tmp_path)


def test_a_next_sentence_head_is_left_out_and_reported(tiny_weights: Path) -> None:
    model = BertForMaskedLM.from_pretrained(tiny_weights, dropout=0.25)
    assert model.load_report is not None
    assert set(model.load_report.dropped) == {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0.25
