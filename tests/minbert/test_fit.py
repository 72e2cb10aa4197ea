"""An encoder and a tokenizer that do not belong together are found when they are loaded, naming sizes and tokens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minbert import BertModel, BertTokenizer, WeightsError, encode
from minbert.fit import check_fit


def save_with_new_tokens(weights: Path, folder: Path, count: int) -> BertTokenizer:
    """A copy of weights whose tokenizer has more tokens, of which ``count`` have no embedding."""
    model, tokenizer = BertModel.from_pretrained(weights), BertTokenizer.from_pretrained(weights)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ids = range(tokenizer.vocab_size, model.config.vocab_size + count)
    (folder / "added_tokens.json").write_text(json.dumps({f"<{token_id}>": token_id for token_id in ids}))
    return BertTokenizer.from_pretrained(folder)


def test_ids_without_an_embedding_are_named(tiny_weights: Path, tmp_path: Path) -> None:
    tokenizer, model = save_with_new_tokens(tiny_weights, tmp_path, 6), BertModel.from_pretrained(tiny_weights)
    size = model.config.vocab_size
    named = ", ".join(f"'<{size + number}>'" for number in range(5))
    message = f"the encoder's vocab_size of {size}, got 6 up to {size + 5}: {named} and 1 more$"
    with pytest.raises(WeightsError, match=f"{tmp_path}: .*{message}"):
        check_fit(tokenizer, model.config, tmp_path)
    with pytest.raises(WeightsError, match=message):
        encode(model, tokenizer, ["a text without them"])
    check_fit(save_with_new_tokens(tiny_weights, tmp_path, 0), model.config, tmp_path)


def test_fewer_tokens_than_embeddings_are_normal(tiny_weights: Path) -> None:
    tokenizer, config = BertTokenizer.from_pretrained(tiny_weights), BertModel.from_pretrained(tiny_weights).config
    check_fit(tokenizer, config, "here")
    check_fit(tokenizer, replace(config, vocab_size=config.vocab_size + 5), "here")


def test_other_padding_and_token_types_are_named(tiny_weights: Path) -> None:
    tokenizer, config = BertTokenizer.from_pretrained(tiny_weights), BertModel.from_pretrained(tiny_weights).config
    counting = replace(config, model_type="roberta", pad_token_id=1)
    with pytest.raises(WeightsError, match=r"here: .* pad_token_id must be 0, that of the tokenizer's \[PAD\], got 1"):
        check_fit(tokenizer, counting, "here")
    check_fit(tokenizer, replace(config, pad_token_id=1), "here")  # BERT's positions do not ask what padding is
    with pytest.raises(WeightsError, match="type_vocab_size must be at least 2, .* of the tokenizer's pairs, got 1"):
        check_fit(tokenizer, replace(config, type_vocab_size=1), "here")
