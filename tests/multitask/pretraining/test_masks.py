"""Which tokens are masked, and by what."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from minbert import BertTokenizer, TokenBatch
from multitask import ConfigError
from multitask.pretraining.masks import Masked, Masker


def draw(masker: Masker, batch: TokenBatch, seed: int = 0) -> Masked:
    return masker(batch, np.random.default_rng(seed))


def by_row(batch: TokenBatch, masked: Masked) -> np.ndarray:
    """Which places of (batch, seq) were chosen."""
    chosen = np.zeros(batch.input_ids.numel(), dtype=bool)
    chosen[masked.places.numpy()] = True
    return chosen.reshape(tuple(batch.input_ids.shape))


@pytest.fixture
def batch(tokenizer: BertTokenizer, sentences: list[str]) -> TokenBatch:
    """Rows of different lengths, and one with special and unknown tokens in its text."""
    return tokenizer([*sentences, "[SEP] ☃ [MASK] [CLS] ☃"])


def test_a_row_has_15_percent_of_its_tokens_chosen_and_one_at_least(masker: Masker, batch: TokenBatch) -> None:
    allowed = masker.may_be_masked(batch.input_ids.numpy())
    counts = by_row(batch, draw(masker, batch)).sum(1)
    expected = np.maximum(1, np.rint(0.15 * allowed.sum(1)))
    expected[-1] = 0  # nothing but special and unknown tokens
    assert np.array_equal(counts, expected)
    assert counts.max() > 2


def test_special_and_unknown_tokens_are_never_chosen(
    tokenizer: BertTokenizer, masker: Masker, batch: TokenBatch
) -> None:
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    for seed in range(20):
        masked = draw(masker, batch, seed)
        assert special.isdisjoint(masked.targets.tolist())
        assert tokenizer.mask_token_id not in masked.targets.tolist()
        assert special.isdisjoint(masked.tokens.input_ids.flatten()[masked.places].tolist())


def test_80_percent_are_masked_10_random_10_as_they_were(
    tokenizer: BertTokenizer, masker: Masker, batch: TokenBatch
) -> None:
    drawn = [draw(masker, batch, seed) for seed in range(60)]
    targets = np.concatenate([masked.targets.numpy() for masked in drawn])
    found = np.concatenate([masked.tokens.input_ids.flatten()[masked.places].numpy() for masked in drawn])
    assert len(targets) > 10_000
    masked_share = (found == tokenizer.mask_token_id).mean()
    kept_share = (found == targets).mean()  # some of the random ones are the token itself, one in a hundred
    assert masked_share == pytest.approx(0.8, abs=0.015)
    assert kept_share == pytest.approx(0.1, abs=0.015)
    others = found[(found != tokenizer.mask_token_id) & (found != targets)]
    assert len(set(others.tolist())) > 60


def test_only_the_chosen_tokens_change(masker: Masker, batch: TokenBatch) -> None:
    before = batch.input_ids.clone()
    masked = draw(masker, batch)
    assert batch.input_ids.equal(before)
    assert masked.targets.equal(before.flatten()[masked.places])
    rest = ~by_row(batch, masked)
    assert np.array_equal(masked.tokens.input_ids.numpy()[rest], before.numpy()[rest])
    assert masked.tokens.attention_mask.equal(batch.attention_mask)


def test_masks_follow_from_the_generator_alone(masker: Masker, batch: TokenBatch) -> None:
    one, same, other = (draw(masker, batch, seed) for seed in (1, 1, 2))
    assert one.tokens.input_ids.equal(same.tokens.input_ids)
    assert not one.tokens.input_ids.equal(other.tokens.input_ids)


def test_every_token_is_chosen_as_often(masker: Masker, tokenizer: BertTokenizer, sentences: list[str]) -> None:
    row = tokenizer([max(sentences, key=len)])
    counts = sum(by_row(row, draw(masker, row, seed))[0] for seed in range(2000))
    inner = np.asarray(counts)[1:-1] / 2000
    assert inner.min() > 0.1
    assert inner.max() < 0.2


def test_whole_words_are_chosen_with_all_their_pieces(tokenizer: BertTokenizer, batch: TokenBatch) -> None:
    masker = Masker(tokenizer, whole_words=True)
    pieces = {number for token, number in tokenizer.vocabulary.items() if token.startswith("##")}
    ids, several = batch.input_ids.numpy(), 0
    shares = []
    for seed in range(20):
        chosen = by_row(batch, draw(masker, batch, seed))
        for row in range(len(ids)):
            for place in range(1, ids.shape[1]):
                if ids[row, place] in pieces and masker.may_be_masked(ids[row, place - 1]):
                    assert chosen[row, place] == chosen[row, place - 1]
                    several += bool(chosen[row, place])
        shares.append(chosen.sum() / masker.may_be_masked(ids).sum())
    assert several > 100
    assert np.mean(shares) == pytest.approx(0.15, abs=0.04)  # a long word alone may be more than that of a row


def test_whole_words_need_pieces_that_say_so() -> None:
    names = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "Ġa", "b"]
    backend = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, [], unk_token="<unk>"))
    roles = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), names, strict=False))
    tokenizer = BertTokenizer(backend, special_tokens=roles, model_max_length=10)
    Masker(tokenizer)
    with pytest.raises(ConfigError, match=r"^whole_words must be false for .* other than WordPiece.*got true$"):
        Masker(tokenizer, whole_words=True)
    del roles["mask_token"]
    with pytest.raises(ConfigError, match="^weights must have a tokenizer with a mask token, got one without$"):
        Masker(BertTokenizer(backend, special_tokens=roles, model_max_length=10))
