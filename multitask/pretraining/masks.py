"""Which tokens of a batch are masked, and what stands in their places.

Source: Devlin et al. 2019 (arXiv 1810.04805), section 3.1 and appendix A.1; drawn anew for each step as in Liu et al.
2019 (arXiv 1907.11692), section 4.1; whole words as in BERT's later released code.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minbert.token_batch import TokenBatch
from minbert.tokenizer import BertTokenizer
from multitask.errors import ConfigError

__all__ = ["Masked", "Masker"]

SHARE = 0.15
MASK, RANDOM = 0.8, 0.1  # of the chosen tokens; the rest stays as it is
WORD_PIECE = "##"


class Masked(NamedTuple):
    """A batch with masks.

    :param tokens: with what stands in the places of the chosen tokens.
    :param places: of the chosen tokens in the flattened batch, int64 (chosen,), rising.
    :param targets: what stood there, int64 (chosen,).
    """

    tokens: TokenBatch
    places: Tensor
    targets: Tensor


class Masker:
    """Draws masks for batches of a tokenizer's.

    :param whole_words: choose words, all pieces of each, instead of tokens.
    :raises ConfigError: for a vocabulary without a mask token; for whole words where no token says that it goes on a
        word, as WordPiece's do with ``##``.
    """

    def __init__(self, tokenizer: BertTokenizer, *, whole_words: bool = False) -> None:
        if tokenizer.mask_token_id is None:
            raise ConfigError("weights must have a tokenizer with a mask token, got one without")
        self.mask_id = tokenizer.mask_token_id
        vocabulary, size = tokenizer.vocabulary, tokenizer.largest_id + 1
        special = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id]
        self._may_be_masked = np.zeros(size, dtype=bool)
        self._may_be_masked[list(vocabulary.values())] = True
        self._may_be_masked[[*special, self.mask_id]] = False
        self._drawn = np.flatnonzero(self._may_be_masked)  # what a random token is drawn from
        self._goes_on = np.zeros(size, dtype=bool)
        if whole_words:
            pieces = [token_id for token, token_id in vocabulary.items() if token.startswith(WORD_PIECE)]
            if not pieces:
                raise ConfigError(
                    "whole_words must be false for a tokenizer other than WordPiece, whose tokens do not say where a"
                    " word begins (RoBERTa's, XLM-RoBERTa's, CamemBERT's), got true"
                )
            self._goes_on[pieces] = True

    def may_be_masked(self, ids: np.ndarray) -> np.ndarray:
        """Say which of the ids are neither special nor unknown: bool, the same shape."""
        allowed: np.ndarray = self._may_be_masked[ids]
        return allowed

    def __call__(self, tokens: TokenBatch, rng: np.random.Generator) -> Masked:
        """Choose 15 % of each row's tokens, one at least; of these mask 80 %, replace 10 % by a random token.

        Whole words are taken in random order while more than half of the next one fits into the 15 %.

        :param rng: what all is drawn from; the result follows from its state and the batch alone.
        """
        ids = tokens.input_ids.numpy()
        places = np.flatnonzero(self.may_be_masked(ids))
        rows, flat = places // ids.shape[1], ids.reshape(-1)
        follows = np.diff(places, prepend=-2) == 1  # a row's first token is special
        begins = ~(self._goes_on[flat[places]] & follows)
        unit = np.cumsum(begins) - 1  # (places,): a token, or a word
        sizes, of_row = np.bincount(unit), rows[begins]
        room = np.maximum(1, np.rint(SHARE * np.bincount(rows, minlength=len(ids))))
        order = np.lexsort((rng.random(len(sizes)), of_row))  # rows in their order, the units of each shuffled
        before = np.cumsum(sizes[order]) - sizes[order]
        firsts = np.flatnonzero(np.diff(of_row, prepend=-1))
        before -= np.repeat(before[firsts], np.diff(firsts, append=len(order)))  # of the same row
        chosen = np.zeros(len(sizes), dtype=bool)
        chosen[order] = (before == 0) | (before + sizes[order] / 2 <= room[of_row])
        places = places[chosen[unit]]
        fate, drawn = rng.random(len(places)), rng.choice(self._drawn, len(places))
        targets, replaced = flat[places], flat.copy()
        replaced[places] = np.where(fate < MASK, self.mask_id, np.where(fate < MASK + RANDOM, drawn, targets))
        masked = TokenBatch(torch.from_numpy(replaced.reshape(ids.shape)), tokens.token_type_ids, tokens.attention_mask)
        return Masked(masked, torch.from_numpy(places), torch.from_numpy(targets))
