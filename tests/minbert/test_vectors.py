"""Vectors of lists, against the encoder called on each text alone."""

from pathlib import Path

import pytest
import torch

from minbert import BertForPreTraining, BertModel, BertTokenizer, InputError, encode, mean_pool

pytestmark = pytest.mark.smoke
TEXTS = ["one", "two three four five six", "", "seven eight", "nine " * 12]


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize("paired", [False, True])
def test_vectors_are_those_of_each_text_alone(kernels: str, tiny_weights: Path, pooling: str, paired: bool) -> None:
    model, tokenizer = BertModel.from_pretrained(tiny_weights), BertTokenizer.from_pretrained(tiny_weights)
    pairs = TEXTS[::-1] if paired else None
    found = encode(model, tokenizer, TEXTS, pairs, pooling=pooling)
    assert found.dtype == torch.float32
    for row, vector in enumerate(found):
        with torch.no_grad():
            output = model(**tokenizer(TEXTS[row], None if pairs is None else pairs[row]))
        states = output.last_hidden_state[0]
        expected = {"mean": states.mean(0), "cls": states[0], "pooler": output.pooler_output[0]}[pooling]
        assert torch.allclose(vector, expected, atol=1e-5)


def test_what_cannot_be_encoded_is_refused(tiny_weights: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(tiny_weights)
    with pytest.raises(InputError, match="pooling must be one of mean, cls, pooler, got 'max'"):
        encode(BertModel.from_pretrained(tiny_weights), tokenizer, TEXTS, pooling="max")
    bare = BertModel.from_pretrained(tiny_weights, add_pooling_layer=False)
    with pytest.raises(InputError, match="pooling must be mean or cls for a model without a pooler"):
        encode(bare, tokenizer, TEXTS, pooling="pooler")
    assert encode(bare, tokenizer, []).shape == (0, bare.config.hidden_size)


def test_the_mean_is_that_of_sentence_transformers_and_trains(kernels: str, tiny_weights: Path) -> None:
    model, tokenizer = BertModel.from_pretrained(tiny_weights), BertTokenizer.from_pretrained(tiny_weights)
    batch = tokenizer(TEXTS)
    output = model(**batch)
    pooled = mean_pool(output)
    # sentence_transformers' Pooling, mode "mean", as its source has it.
    mask = batch.attention_mask.unsqueeze(-1).expand(output.last_hidden_state.shape).float()
    expected = (output.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    assert torch.allclose(pooled, expected, atol=1e-6)
    assert torch.allclose(pooled, encode(model, tokenizer, TEXTS), atol=1e-5)
    weight = model.embeddings.word_embeddings.weight
    (mine,) = torch.autograd.grad(pooled.square().sum(), weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected.square().sum(), weight)
    assert mine.abs().sum() > 0
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [BertModel, BertForPreTraining])
def test_a_model_knows_its_device(tiny_weights: Path, kind: type[BertModel | BertForPreTraining]) -> None:
    model = kind.from_pretrained(tiny_weights)
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")
