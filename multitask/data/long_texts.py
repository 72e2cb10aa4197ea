"""Texts with more tokens than an encoder has positions: what is kept of them, or the windows that they are read in.

Works on what the tokenizer gives for whole texts, ``[CLS] a [SEP]`` or ``[CLS] a [SEP] b [SEP]`` (RoBERTa and MPNet
have two separators there), and finds the texts by their spans: not all families tell them apart by token types.
"""

import numpy as np

from minbert.token_batch import TokenizedTexts, spans_of

__all__ = ["NO_LIMIT", "cut_note", "keep_ends", "to_windows"]

NO_LIMIT = 2**20  # tokens that a tokenizer may give for a row; one that is longer is cut even so
# Of the tokens that are kept, the share from the beginning: 128 of 510 (Sun et al. 2019, arXiv 1905.05583, 5.3.1).
HEAD_SHARE = 128 / 510


def keep_ends(tokens: TokenizedTexts, max_length: int) -> TokenizedTexts:
    """Cut what is longer than ``max_length`` tokens in the middle of its text; the ends are kept, 128 to 382.

    The head-tail of Sun et al. 2019 (arXiv 1905.05583, section 5.3.1). Of a pair the longer text is cut first, until
    both are as long, as a tokenizer does from the end.

    :param tokens: whole rows, of texts and of pairs.
    :return: rows of at most ``max_length`` tokens, ``truncated`` where one was cut.
    """
    kept = np.ones(len(tokens.input_ids), dtype=bool)
    long = tokens.lengths > max_length
    for row in np.flatnonzero(long):
        start, end = tokens.offsets[row : row + 2].tolist()
        spans = [(start + low, start + high) for low, high in tokens.spans[row].tolist()]
        special = end - start - sum(high - low for low, high in spans)
        rooms = _rooms([high - low for low, high in spans], max_length - special)
        for (low, high), room in zip(spans, rooms, strict=True):
            head = round(room * HEAD_SHARE)
            kept[low + head : high - (room - head)] = False
    ends = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])  # tokens kept before each place
    starts = tokens.offsets[:-1, None, None]
    return TokenizedTexts(
        tokens.input_ids[kept],
        tokens.token_type_ids[kept],
        ends[tokens.offsets],
        tokens.truncated | long,
        tokens.pad_token_id,
        (ends[starts + tokens.spans] - ends[starts]).astype(np.int32),
    )


def _rooms(lengths: list[int], room: int) -> list[int]:
    """Share out the places among two texts: the shorter has at least half of them, as far as it needs them."""
    short = min(*lengths, room // 2)
    return [room - short, short] if lengths[0] > lengths[1] else [short, room - short]


def to_windows(tokens: TokenizedTexts, max_length: int, most: int) -> tuple[TokenizedTexts, np.ndarray]:
    """Cut single texts into overlapping windows of at most ``max_length`` tokens, [CLS] and [SEP] included.

    A window begins half a window after the one before it; a text's last one ends where the text does, and is as long
    as the others.

    :param tokens: whole texts.
    :param most: windows of a text; what comes after them is cut off, and their text ``truncated``.
    :return: the windows of all texts, and the first window of each text, with their number at the end: int64
        (texts + 1,).
    """
    room = max_length - 2
    step = max(1, room // 2)
    contents = tokens.lengths - 2
    wanted = 1 + np.maximum(0, -((room - contents) // step))
    counts = np.minimum(wanted, most)
    places, lengths = [], []
    for row, (start, end) in enumerate(zip(tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True)):
        if counts[row] == 1 and wanted[row] == 1:
            places.append(np.arange(start, end))
            lengths.append(end - start)
            continue
        for window in range(counts[row]):
            low = start + 1 + min(window * step, end - start - 2 - room)
            places += [np.array([start]), np.arange(low, low + room), np.array([end - 1])]
            lengths.append(max_length)
    chosen = np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
    cut = tokens.truncated | (wanted > most)
    windows = TokenizedTexts(
        tokens.input_ids[chosen],
        tokens.token_type_ids[chosen],
        np.cumsum([0, *lengths], dtype=np.int64),
        np.repeat(cut, counts),
        tokens.pad_token_id,
        spans_of(lengths),
    )
    return windows, np.cumsum([0, *counts.tolist()], dtype=np.int64)


def cut_note(name: str, long: str, cut: int, rows: int, max_length: int, *, what: str = "rows") -> str:
    """Say how many rows are not read whole, and which key changes that.

    :param name: of the task, whose ``long`` is given.
    :param what: what the rows are called, such as "training rows".
    """
    percent = 100 * cut / rows
    share = f"{cut:,} of {rows:,} {what} ({percent:{'.0f' if percent >= 1 else '.1g'}} %)"
    if long == "windows":
        return f"{name}: {share} have more windows of {max_length} tokens and are cut: tasks.{name}.windows"
    fate = "lose their middle" if long == "head-tail" else "are cut"
    return f"{name}: {share} are longer than {max_length} tokens and {fate}: tasks.{name}.long"
