"""Vectors of many texts: tokenized once, computed in batches of like length, given back in the texts' order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minbert.errors import InputError
from minbert.fast.casts import hold_casts
from minbert.model import BertModel, BertOutput
from minbert.token_batch import batches_by_length
from minbert.tokenizer import BertTokenizer

__all__ = ["POOLINGS", "encode"]

POOLINGS = ("mean", "cls", "pooler")


@torch.inference_mode()
def encode(
    model: BertModel,
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    pooling: str = "mean",
    max_length: int | None = None,
) -> Tensor:
    """One vector a text, or a pair of texts read together: (texts, hidden_size), float32, on the model's device.

    Run it within ``torch.autocast("cpu", torch.bfloat16)`` where the machine is fast at that.

    :param pooling: ``"mean"`` of the last hidden states of all tokens, as sentence-transformers has it; ``"cls"``, the
        first token's; ``"pooler"``, the pooler's output.
    :param max_length: tokens that longer rows are cut to; the tokenizer's ``model_max_length`` unless told.
    :raises InputError: for an unknown pooling, or one that needs a pooler of a model without, and for what the
        tokenizer refuses.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling is {pooling!r}; known: {', '.join(POOLINGS)}")
    if pooling == "pooler" and model.pooler is None:
        raise InputError("pooling is 'pooler', and the model has none; mean or cls need none")
    rows = tokenizer.tokenize_all(texts, pairs, max_length=max_length)
    device = model.embeddings.word_embeddings.weight.device
    vectors = torch.empty(len(rows), model.config.hidden_size, device=device)
    with hold_casts():
        for indices in batches_by_length(rows.lengths):
            output = model(**rows.batch(indices).to(device))
            vectors[torch.from_numpy(indices).to(device)] = _pooled(output, pooling).float()
    return vectors


def _pooled(output: BertOutput, pooling: str) -> Tensor:
    """(batch, hidden_size)."""
    if pooling == "pooler":
        assert output.pooler_output is not None
        return output.pooler_output
    rows = output.packing
    return rows.first(output.packed) if pooling == "cls" else rows.mean(output.packed)
