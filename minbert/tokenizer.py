"""Turn texts or text pairs into token ids: the `tokenizers` library splits and cuts, this file makes batches.

Reads what HuggingFace writes (tokenizer.json, else a vocabulary, with tokenizer_config.json and the files of added
tokens) and gives the ids that `transformers.AutoTokenizer` gives. Truncation and padding that a tokenizer.json has
baked in (all-minilm-l6-v2's cuts at 128 tokens) are switched off: only the arguments of a call decide. Rows are padded
on the right.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import Tokenizer, processors

from minbert.errors import InputError, WeightsError, listed
from minbert.texts import Padding, Truncation, checked_texts, padding_width, truncation_strategy
from minbert.token_batch import TokenBatch, TokenizedTexts, spans_of

__all__ = ["BertTokenizer", "TokenBatch", "TokenizedTexts"]

# Rows encoded at a time: an Encoding holds far more than the ids, so few may live at once.
CHUNK_ROWS = 4096
_MAX_ROW_TOKENS = 2**20  # the largest max_length that a call may ask for
_NEEDED = ("cls_token", "pad_token", "sep_token", "unk_token")
_KEPT_BACKENDS = 16  # settings of truncation whose backends are kept for the next call
# What transformers' clean_up_tokenization_spaces joins, in its order.
_JOINED = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {end}", end) for end in ("n't", "'m", "'s", "'ve", "'re")),
)


class BertTokenizer:
    """The tokenizer of any member of the family: [CLS] a [SEP] for a text, [CLS] a [SEP] b [SEP] for a pair.

    RoBERTa's and MPNet's write <s> and </s>, with </s></s> between the texts of a pair.

    `pad_token_id`, `cls_token_id`, `sep_token_id`, `unk_token_id` are int; `mask_token_id` is None for a
    vocabulary without a mask token. `model_max_length` is the most tokens that the model has positions for,
    `token_types` how many types a pair has, 1 or 2. Threads may share one: no call changes it.

    :param backend: the splitter; its rules are taken over, without truncation and padding, and it is left as it is.
    :param special_tokens: tokens by their roles: `pad_token`, `cls_token`, `sep_token`, `unk_token`, `mask_token`.
    :param name: what errors call the tokenizer.
    :param tokenizer_class: transformers' class that is written by save_pretrained; None finds one that fits.
    :param token_types: False for an encoder without token types: all are 0.
    :param clean_up: whether decode takes out the spaces before punctuation.
    :raises WeightsError: if the vocabulary lacks a special token that rows need.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        model_max_length: int,
        name: str = "tokenizer",
        tokenizer_class: str | None = None,
        token_types: bool = True,
        clean_up: bool = False,
    ) -> None:
        backend = _with_same_rules(backend)
        ids = {role: backend.token_to_id(token) for role, token in special_tokens.items()}
        known = {role: token_id for role, token_id in ids.items() if token_id is not None}
        absent = [special_tokens.get(role, role) for role in _NEEDED if role not in known]
        if absent:
            raise WeightsError(f"{name}: the vocabulary must hold all special tokens, but lacks {listed(absent)}")
        self.cls_token_id, self.pad_token_id, self.sep_token_id, self.unk_token_id = (known[role] for role in _NEEDED)
        self.mask_token_id = known.get("mask_token")
        self.model_max_length = model_max_length
        self._special_tokens = {role: special_tokens[role] for role in known}
        self._class, self._clean_up = tokenizer_class, clean_up
        if backend.post_processor is None:
            cls, sep = special_tokens["cls_token"], special_tokens["sep_token"]
            backend.post_processor = processors.TemplateProcessing(
                single=f"{cls}:0 $A:0 {sep}:0",
                pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
                special_tokens=[(cls, self.cls_token_id), (sep, self.sep_token_id)],
            )
        self.token_types = 1 + max(backend.encode("", "").type_ids, default=0) if token_types else 1
        self._backend = backend  # never changed from here on
        self._cutting: dict[tuple[int, str], Tokenizer] = {}

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path) -> "BertTokenizer":
        """Read the tokenizer of a folder, or of weights known by name, which are fetched unless they are cached.

        Reads tokenizer.json, else vocab.txt (BERT, DistilBERT, MPNet), or vocab.json and merges.txt (RoBERTa); the
        settings and special tokens of tokenizer_config.json, special_tokens_map.json and added_tokens.json hold as in
        HuggingFace's. No code of the folder is run.

        :raises WeightsError: for a folder without these files or with one that can't be read, for a tokenizer_class
            of another kind (BertJapaneseTokenizer), and for settings that contradict each other.
        """
        from minbert.files.tokenizer_files import read_tokenizer

        folder = Path(name_or_folder)
        if not folder.is_dir():
            from minbert.files.registry import resolve

            folder = resolve(name_or_folder)
        return cls(**read_tokenizer(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and, of word pieces, vocab.txt, as `AutoTokenizer` reads them.

        :raises WeightsError: if the disk refuses.
        """
        from minbert.files.tokenizer_files import write_tokenizer

        # A mask of null keeps transformers from adding one.
        settings: dict[str, Any] = {"model_max_length": self.model_max_length, "mask_token": None}
        settings |= self._special_tokens
        settings["clean_up_tokenization_spaces"] = self._clean_up
        if self._class is not None:
            settings["tokenizer_class"] = self._class
        if self.token_types == 1:
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        write_tokenizer(Path(folder), self._backend, settings)

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens, special and added ones included, and their ids, which may have gaps."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @cached_property
    def largest_id(self) -> int:
        """The largest id of a token."""
        return max(self.vocabulary.values())

    def tokens_from(self, first: int) -> list[str]:
        """Return the tokens whose ids are ``first`` or larger, by their ids."""
        return [token for token, number in sorted(self.vocabulary.items(), key=lambda of: of[1]) if number >= first]

    def __getstate__(self) -> dict[str, Any]:
        # The kept backends would be written with a vocabulary each.
        return {**self.__dict__, "_cutting": {}}

    @property
    def vocab_size(self) -> int:
        """Count the tokens of the vocabulary, special and added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def __call__(
        self,
        texts: Sequence[str] | str,
        pairs: Sequence[str] | str | None = None,
        *,
        max_length: int | None = None,
        truncation: Truncation = False,
        padding: Padding = True,
    ) -> TokenBatch:
        """Tokenize `texts`, or text i together with `pairs[i]`.

        :param texts: a text for each row; a single string is a batch of one.
        :param pairs: the second text of each row.
        :param max_length: None means `model_max_length`; it cuts nothing unless `truncation` says so.
        :param truncation: True or "longest_first" removes tokens from the longer text of a pair until the row has
            at most `max_length` tokens, "only_first" and "only_second" remove them from that text, False none.
        :param padding: True or "longest" pads to the longest row, "max_length" to `max_length` tokens; False pads
            nothing, so the rows must have equal lengths.
        :return: three int64 tensors of shape (batch, seq).
        :raises InputError: for a text that is not a string (None, NaN), for unequal numbers of texts and pairs,
            for a `max_length` without room for the special tokens, and for a row that its truncation can't fit.
        """
        strategy = truncation_strategy(truncation)
        width = padding_width(padding, max_length or self.model_max_length)
        rows = self._encode(texts, pairs, max_length=max_length, strategy=strategy)
        lengths = rows.lengths
        if padding in (False, "do_not_pad") and len(rows) and lengths.min() != lengths.max():
            raise InputError(
                f"padding must be True for rows of unequal lengths, got {padding!r} for {lengths.min()} to"
                f" {lengths.max()} tokens"
            )
        return rows.batch(range(len(rows)), width=width)

    def tokenize_all(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int | None = None
    ) -> TokenizedTexts:
        """Tokenize all rows of a data set into 5 bytes a token; rows longer than `max_length` are cut.

        :param max_length: None means `model_max_length`; rows are cut as `truncation="longest_first"` does.
        :raises InputError: as a call does.
        """
        return self._encode(texts, pairs, max_length=max_length, strategy="longest_first")

    def decode(self, ids: Sequence[int] | np.ndarray | torch.Tensor, skip_special_tokens: bool = False) -> str:
        """Spell a row of token ids as `transformers` does: word pieces joined, no gap before a full stop.

        :param ids: whole numbers (tokens,), each in [0, vocab_size).
        :param skip_special_tokens: leave out [CLS], [SEP], [PAD] and the like.
        :raises InputError: for anything else; decode the rows of a batch one by one.
        """
        row = np.asarray(ids.cpu() if isinstance(ids, torch.Tensor) else ids)
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise InputError(f"ids must be one row of token ids, got the shape {row.shape} of {row.dtype}")
        outside = row[(row < 0) | (row >= self.vocab_size)]
        if outside.size:
            raise InputError(f"ids must be from 0 to {self.vocab_size - 1}, got {outside[0]}")
        text: str = self._backend.decode(row.tolist(), skip_special_tokens=skip_special_tokens)
        for spaced, joined in _JOINED if self._clean_up else ():
            text = text.replace(spaced, joined)
        return text

    def _encode(
        self,
        texts: Sequence[str] | str,
        pairs: Sequence[str] | str | None,
        *,
        max_length: int | None,
        strategy: str | None,
    ) -> TokenizedTexts:
        first = checked_texts("texts", texts)
        second = None if pairs is None else checked_texts("pairs", pairs)
        if second is not None and len(second) != len(first):
            raise InputError(f"pairs must have as many entries as texts ({len(first)}), got {len(second)}")
        if strategy == "only_second" and second is None:
            raise InputError("pairs must be given for truncation='only_second', got None")
        limit = self.model_max_length if max_length is None else max_length
        least = self._backend.num_special_tokens_to_add(second is not None)
        if not isinstance(limit, int) or isinstance(limit, bool) or not least <= limit <= _MAX_ROW_TOKENS:
            raise InputError(f"max_length must be an integer from {least} to {_MAX_ROW_TOKENS}, got {limit!r}")
        backend = self._backend if strategy is None else self._cutting_backend(limit, strategy)
        inputs: list[Any] = first if second is None else list(zip(first, second, strict=True))
        ids: list[np.ndarray] = []
        types: list[np.ndarray] = []
        spans: list[np.ndarray] = []
        lengths: list[int] = []
        truncated: list[bool] = []
        for start in range(0, len(inputs), CHUNK_ROWS):
            encodings = _encode_chunk(backend, inputs, start)
            ids.append(np.array([i for row in encodings for i in row.ids], dtype=np.int32))
            types.append(np.array([i for row in encodings for i in row.type_ids], dtype=np.uint8))
            lengths.extend(len(row) for row in encodings)
            marks = None if second is None else [row.sequence_ids for row in encodings]
            spans.append(spans_of(lengths[start:], marks))
            truncated.extend(bool(row.overflowing) for row in encodings)
        token_type_ids = np.concatenate(types) if types else np.zeros(0, dtype=np.uint8)
        return TokenizedTexts(
            input_ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
            token_type_ids=token_type_ids if self.token_types > 1 else np.zeros_like(token_type_ids),
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            truncated=np.array(truncated, dtype=bool),
            pad_token_id=self.pad_token_id,
            spans=np.concatenate(spans) if spans else np.zeros((0, 2, 2), dtype=np.int32),
        )

    def _cutting_backend(self, limit: int, strategy: str) -> Tokenizer:
        """Return a backend that cuts this way, which no other call changes.

        Truncation is a setting of the library's tokenizer. Changing that of a shared one would need a lock, which
        makes threads wait and may be held across a fork; one for each setting shares the vocabulary and costs little.
        """
        backend = self._cutting.get((limit, strategy))
        if backend is None:
            backend = _with_same_rules(self._backend)
            backend.enable_truncation(limit, strategy=strategy)
            if len(self._cutting) >= _KEPT_BACKENDS:
                self._cutting.clear()
            self._cutting[limit, strategy] = backend
        return backend


def _with_same_rules(backend: Tokenizer) -> Tokenizer:
    """Return a backend with the same rules and no truncation or padding, in microseconds.

    The two share the model with its vocabulary, which neither changes.
    """
    own = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (rule := getattr(backend, part)) is not None:
            setattr(own, part, rule)
    added = backend.get_added_tokens_decoder()
    own.add_tokens([added[token_id] for token_id in sorted(added)])  # in order of their ids, as from a file
    if own.get_added_tokens_decoder().keys() != added.keys():  # ids that only a file can say
        own = Tokenizer.from_str(backend.to_str())
        own.no_truncation()
        own.no_padding()
    own.encode_special_tokens = backend.encode_special_tokens
    return own


def _encode_chunk(backend: Tokenizer, inputs: list[Any], start: int) -> list[tokenizers.Encoding]:
    chunk = inputs[start : start + CHUNK_ROWS]
    try:
        return backend.encode_batch_fast(chunk)
    except Exception as error:  # the library raises bare Exceptions: only this one's text is known
        if "Truncation error" not in str(error):
            raise
        for row, text in enumerate(chunk, start):
            try:
                backend.encode(*([text] if isinstance(text, str) else text))
            except Exception as row_error:
                raise InputError(f"row {row} can't be cut to max_length by this truncation: {row_error}") from None
        raise
