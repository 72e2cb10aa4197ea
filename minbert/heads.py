"""The two heads BERT is pretrained with, for further pretraining on a task's own text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.errors import InputError
from minbert.layers import ACTIVATIONS, LayerNorm
from minbert.model import BertModel, BertOutput

if TYPE_CHECKING:
    from minbert.files.checkpoint import LoadReport

__all__ = ["BertForPreTraining", "PreTrainingOutput"]


@dataclass
class PreTrainingOutput:
    """What both pretraining heads give back.

    - ``prediction_logits`` (batch, seq, vocab_size), zero at masked positions.
    - ``seq_relationship_logits`` (batch, 2), class 0 meaning that the second text follows the first.
    - ``encoder``: the encoder's own output.
    """

    prediction_logits: Tensor
    seq_relationship_logits: Tensor
    encoder: BertOutput


class BertForPreTraining(nn.Module):
    """BERT with the masked-language-model head, tied to the word embeddings, and the next-sentence head.

    Source: Devlin et al. 2019, section 3.1; the transform before the tied projection as in the released code.

    :raises InputError: for the configuration of another family, whose heads differ.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        if config.model_type != "bert":
            raise InputError(f"BertForPreTraining must be given model_type bert, got {config.model_type!r}")
        self.config = config
        self.bert = BertModel(config)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.transform_LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.prediction_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.load_report: LoadReport | None = None
        for linear in (self.transform, self.seq_relationship):
            nn.init.normal_(linear.weight, std=config.initializer_range)
            nn.init.zeros_(linear.bias)

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where a batch has to be."""
        return self.bert.device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> PreTrainingOutput:
        """Compute both heads; arguments and errors as of BertModel."""
        encoded = self.bert(input_ids, attention_mask, token_type_ids)
        logits = self.predict_tokens(encoded.packed)
        return PreTrainingOutput(
            prediction_logits=encoded.packing.unpack(encoded.packing.real(logits)),
            seq_relationship_logits=self.seq_relationship(encoded.pooler_output),
            encoder=encoded,
        )

    def predict_tokens(self, hidden: Tensor) -> Tensor:
        """Compute logits: (tokens, hidden_size) -> (tokens, vocab_size). Pass the masked tokens alone to save most."""
        transformed = self.transform_LayerNorm(self.activation(self.transform(hidden)))
        return F.linear(transformed, self.bert.embeddings.word_embeddings.weight, self.prediction_bias)

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, *, drop: Iterable[str] = ()) -> Self:
        """Load encoder and both heads, in eval mode; WeightsError if the checkpoint has no heads.

        :param drop: tensors to leave out that no part of the model wants, by their names in the file.
        """
        from minbert.files.checkpoint import load_pretraining, read_config
        from minbert.files.registry import resolve

        folder = resolve(name_or_folder)
        model = cls(read_config(folder))
        model.load_report = load_pretraining(dict(model.named_parameters()), folder, model.config.family, drop=drop)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what ``transformers.BertForPreTraining`` reads; errors as of BertModel.save_pretrained."""
        from minbert.files.checkpoint import save_parameters

        with torch.device("meta"):
            own = BertForPreTraining(self.config).state_dict()
        save_parameters(self.state_dict(), own, self.config, Path(folder), "BertForPreTraining")


# An exported forward may give back what the model's own does.
torch.export.register_dataclass(PreTrainingOutput, serialized_type_name="minbert.PreTrainingOutput")
