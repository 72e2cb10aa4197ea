"""What a pretraining starts from: an encoder with the masked-language-model head of its weights, or with a new one."""

from pathlib import Path

import numpy as np
import torch

from minbert.files.checkpoint import has_masked_head, has_pooler, read_config
from minbert.files.registry import resolve
from minbert.fit import check_fit
from minbert.heads import BertForMaskedLM
from minbert.model import BertModel
from minbert.tokenizer import BertTokenizer

__all__ = ["load_model", "load_tokenizer", "start_head"]

# From here on GELU is nearly the identity.
LINEAR_FROM = 3.0


def load_tokenizer(weights: str | Path) -> BertTokenizer:
    """Load the tokenizer of weights; WeightsError if it gives ids that their encoder does not know."""
    folder = resolve(weights)
    tokenizer = BertTokenizer.from_pretrained(folder)
    check_fit(tokenizer, read_config(folder), folder)
    return tokenizer


def load_model(weights: str | Path, dropout: float | None) -> tuple[BertForMaskedLM, bool]:
    """Load an encoder, its pooler if it has one, and its head if it has one, in eval mode.

    :return: the model, and whether the head is the weights' own; a new one has to be started.
    """
    folder = resolve(weights)
    if has_masked_head(folder, read_config(folder).family):
        return BertForMaskedLM.from_pretrained(folder, dropout=dropout), True
    encoder = BertModel.from_pretrained(folder, add_pooling_layer=has_pooler(folder), dropout=dropout, warn=False)
    model = BertForMaskedLM(encoder.config, encoder.pooler is not None)
    model.bert, model.load_report = encoder, encoder.load_report
    return model.eval(), False


@torch.no_grad()
def start_head(model: BertForMaskedLM, ids: np.ndarray) -> None:
    """Make a new head compare the encoder's state with each word's embedding, and prefer words that are frequent.

    The transform is the identity, moved to where its activation is nearly linear, so that the norm behind it gives the
    normed state; the bias is the logarithm of the tokens' frequencies, smoothed by adding one. The decoder is the
    word embeddings, as in all these heads.

    :param ids: of the training rows, special tokens among them; any shape.
    """
    model.transform.weight.copy_(torch.eye(model.config.hidden_size))
    model.transform.bias.fill_(LINEAR_FROM)
    counts = torch.from_numpy(np.bincount(ids.ravel(), minlength=model.config.vocab_size) + 1.0)
    model.prediction_bias.copy_((counts / counts.sum()).log())
