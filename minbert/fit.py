"""Whether an encoder and a tokenizer belong together: found when they are loaded, not in the middle of a run."""

from minbert.config import BertConfig
from minbert.errors import WeightsError, listed
from minbert.tokenizer import BertTokenizer

__all__ = ["check_fit"]


def check_fit(tokenizer: BertTokenizer, config: BertConfig, name: object) -> None:
    """Refuse a tokenizer that gives what an encoder has no embedding for, or pads with an id that gets a position.

    One with fewer tokens than the encoder has embeddings is normal: their number is often rounded up.

    :param name: of the folder that both come from, or what else errors should call the two.
    :raises WeightsError: naming sizes and tokens.
    """
    if tokenizer.largest_id >= config.vocab_size:
        beyond = tokenizer.tokens_from(config.vocab_size)
        raise WeightsError(
            f"{name}: the tokenizer's ids must be below the encoder's vocab_size of {config.vocab_size}, got"
            f" {len(beyond)} up to {tokenizer.largest_id}: {listed(map(repr, beyond))}"
        )
    # Where positions are columns, the mask alone says what padding is, and many a BERT's config.json names no id.
    if config.first_position and tokenizer.pad_token_id != config.pad_token_id:
        raise WeightsError(
            f"{name}: the encoder's pad_token_id must be {tokenizer.pad_token_id}, that of the tokenizer's"
            f" {tokenizer.decode([tokenizer.pad_token_id])}, got {config.pad_token_id}"
        )
    if tokenizer.token_types > max(1, config.type_vocab_size):
        raise WeightsError(
            f"{name}: the encoder's type_vocab_size must be at least {tokenizer.token_types}, the token types of the"
            f" tokenizer's pairs, got {config.type_vocab_size}"
        )
