"""From texts to rows of tokens: held out or trained on, long ones in pieces, and which make a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minbert.token_batch import TokenBatch, TokenizedTexts, spans_of
from minbert.tokenizer import BertTokenizer
from multitask.data.long_texts import NO_LIMIT
from multitask.errors import DataError
from multitask.pretraining.masks import Masker
from multitask.settings.checks import shown

__all__ = ["Order", "Rows", "build_rows", "hold_out"]

MOST_HELD_OUT = 2000
# Steps whose rows are sorted by length together, and share of the epoch's: enough that they are alike, few enough that
# other rows meet in each epoch.
SORTED_TOGETHER, SHARE = 50, 0.1
HELD_OUT, ORDER = 1, 2  # keep the streams of what is drawn apart; each is followed by its own words


@dataclass(frozen=True)
class Rows:
    """Rows of tokens, each with one at least that may be masked.

    :param tokens: ``[CLS] ... [SEP]`` each.
    :param cut: texts that are longer than a row, and are several.
    :param without: rows left out since all of their tokens are unknown.
    """

    tokens: TokenizedTexts
    cut: int
    without: int
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.kept)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (rows,)."""
        lengths: np.ndarray = self.tokens.lengths[self.kept]
        return lengths

    def batch(self, indices: np.ndarray) -> TokenBatch:
        """Return the rows at ``indices``."""
        return self.tokens.batch(self.kept[indices])


def hold_out(texts: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Split off a tenth of the texts, one at least and MOST_HELD_OUT at most, drawn by the seed.

    :return: the others and those held out, in their order.
    """
    count = min(MOST_HELD_OUT, max(1, len(texts) // 10))
    held = np.zeros(len(texts), dtype=bool)
    held[np.random.default_rng((seed, HELD_OUT)).permutation(len(texts))[:count]] = True
    train = [text for text, out in zip(texts, held, strict=True) if not out]
    return train, [text for text, out in zip(texts, held, strict=True) if out]


def build_rows(texts: Sequence[str], tokenizer: BertTokenizer, masker: Masker, max_length: int) -> Rows:
    """Tokenize texts; one of more than ``max_length`` tokens becomes as few rows as hold it, of like length.

    :raises DataError: for a text of more tokens than a tokenizer gives, NO_LIMIT: the rest would be lost.
    """
    tokens = tokenizer.tokenize_all(texts, max_length=NO_LIMIT)
    if tokens.truncated.any():
        longest = shown(texts[int(tokens.truncated.argmax())])
        raise DataError(f"a text must have at most {NO_LIMIT:,} tokens, got more in {longest}; break it into lines")
    cut = int((tokens.lengths > max_length).sum())
    if cut:
        tokens = in_pieces(tokens, max_length)
    maskable = np.add.reduceat(masker.may_be_masked(tokens.input_ids).astype(np.int64), tokens.offsets[:-1])
    kept = np.flatnonzero(maskable)
    return Rows(tokens, cut, len(tokens) - len(kept), kept)


def in_pieces(tokens: TokenizedTexts, max_length: int) -> TokenizedTexts:
    """Cut single texts into pieces of at most ``max_length`` tokens, [CLS] and [SEP] of each included."""
    room, lengths = max_length - 2, []
    chosen: list[np.ndarray] = []
    for start, end in zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
        inner = np.arange(start + 1, end - 1)
        for piece in np.array_split(inner, max(1, -(-len(inner) // room))):
            chosen += [np.array([start]), piece, np.array([end - 1])]
            lengths.append(len(piece) + 2)
    places = np.concatenate(chosen)
    return TokenizedTexts(
        tokens.input_ids[places],
        tokens.token_type_ids[places],
        np.cumsum([0, *lengths], dtype=np.int64),
        np.zeros(len(lengths), dtype=bool),
        tokens.pad_token_id,
        spans_of(lengths),
    )


class Order:
    """Which rows make a step: shuffled anew each epoch, of like length, each row once.

    All of it follows from (seed, epoch): a step can be entered without drawing those before it.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch, self._batches = -1, list[np.ndarray]()

    @property
    def steps(self) -> int:
        """Steps of an epoch; the last rows may be fewer than a batch."""
        return -(-len(self._lengths) // self._batch_size)

    def rows(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of a step, int64 (rows,)."""
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._drawn(epoch)
        return self._batches[step]

    def _drawn(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng((self._seed, ORDER, epoch))
        order = rng.permutation(len(self._lengths))
        batches = []
        together = self._batch_size * max(1, min(SORTED_TOGETHER, int(SHARE * self.steps)))
        for start in range(0, len(order), together):
            part = order[start : start + together]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += [part[at : at + self._batch_size] for at in range(0, len(part), self._batch_size)]
        return [batches[place] for place in rng.permutation(len(batches))]
