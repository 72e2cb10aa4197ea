"""Vectors of lists, against the encoder called on each text alone."""

from pathlib import Path

import pytest
import torch

from minbert import BertModel, BertTokenizer, InputError, encode

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
