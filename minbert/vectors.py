"""Turn many texts into vectors: tokenize once, compute in batches of similar length, keep the texts' order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from minbert.errors import InputError
from minbert.fast.casts import hold_casts
from minbert.fit import check_fit
from minbert.model import BertModel, BertOutput
from minbert.token_batch import batches_by_length
from minbert.tokenizer import BertTokenizer

__all__ = ["POOLINGS", "encode", "mean_pool"]

POOLINGS = ("mean", "cls", "pooler")


def mean_pool(output: BertOutput) -> Tensor:
    """Average the last hidden states of each row's real tokens, special tokens included; it can be trained through.

    Source: Reimers and Gurevych 2019 (Sentence-BERT, arXiv 1908.10084), section 3.

    :return: (batch, hidden_size).
    """
    return output.packing.mean(output.packed)


def encode(
    model: BertModel,
    tokenizer: BertTokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    pooling: str = "mean",
    max_length: int | None = None,
) -> Tensor:
    """Compute a vector for each text, or for each pair of texts read together.

    A model in train mode is in eval mode meanwhile. Run this within ``torch.autocast("cpu", torch.bfloat16)`` where the
    machine is fast at bfloat16.

    :param pairs: the second text of each row, None for single texts.
    :param pooling: ``"mean"``, of the last hidden states of all tokens, as in sentence-transformers; ``"cls"``, the
        first token's; ``"pooler"``, the pooler's output.
    :param max_length: rows are cut to so many tokens; None means the tokenizer's ``model_max_length``.
    :return: (texts, hidden_size), float32, on the model's device.
    :raises WeightsError: for a tokenizer that does not fit the model.
    :raises InputError: for an unknown pooling, for ``"pooler"`` where the model has none, and for what the tokenizer
        rejects.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if pooling == "pooler" and model.pooler is None:
        raise InputError("pooling must be mean or cls for a model without a pooler, got 'pooler'")
    check_fit(tokenizer, model.config, "encode")
    rows = tokenizer.tokenize_all(texts, pairs, max_length=max_length)
    # Made out here, as a tensor of inference_mode could not be trained on.
    vectors = torch.empty(len(rows), model.config.hidden_size, device=model.device)
    was_training = model.training
    if was_training:  # a model in eval mode is left alone: dropout may have been switched on in it on purpose
        model.eval()
    try:
        with torch.inference_mode(), hold_casts():
            for indices in batches_by_length(rows.lengths):
                output = model(**rows.batch(indices).to(model.device))
                vectors[torch.from_numpy(indices).to(model.device)] = _pooled(output, pooling).float()
    finally:
        if was_training:
            model.train()
    return vectors


def _pooled(output: BertOutput, pooling: str) -> Tensor:
    """Reduce the hidden states of each row to one vector: (batch, hidden_size)."""
    if pooling == "pooler":
        assert output.pooler_output is not None
        return output.pooler_output
    return output.packing.first(output.packed) if pooling == "cls" else mean_pool(output)
