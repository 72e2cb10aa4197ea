"""The two heads BERT is pretrained with, for further pretraining on a user's own text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.errors import InputError
from minbert.layers import ACTIVATIONS, LayerNorm
from minbert.model import BertModel, BertOutput

if TYPE_CHECKING:
    from minbert.files.checkpoint import LoadReport

__all__ = ["BertForMaskedLM", "BertForPreTraining", "PreTrainingOutput"]


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


class BertForMaskedLM(nn.Module):
    """An encoder of any family with the masked-language-model head, whose decoder is the word embeddings.

    Source: Devlin et al. 2019, section 3.1; the transform before the tied projection as in the released code.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config, add_pooling_layer)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.family.head_act or config.hidden_act]
        self.transform_LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.prediction_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.load_report: LoadReport | None = None
        _draw(self.transform, config)

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where a batch has to be."""
        return self.bert.device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Any:
        """Compute logits (batch, seq, vocab_size), zero at masked positions; arguments and errors as of BertModel."""
        encoded = self.bert(input_ids, attention_mask, token_type_ids)
        return self._padded_logits(encoded)

    def predict_tokens(self, hidden: Tensor) -> Tensor:
        """Compute logits: (tokens, hidden_size) -> (tokens, vocab_size). Pass the masked tokens alone to save most."""
        transformed = self.transform_LayerNorm(self.activation(self.transform(hidden)))
        return F.linear(transformed, self.bert.embeddings.word_embeddings.weight, self.prediction_bias)

    def _padded_logits(self, encoded: BertOutput) -> Tensor:
        logits = self.predict_tokens(encoded.packed)
        return encoded.packing.unpack(encoded.packing.real(logits))

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, dropout: float | None = None, drop: Iterable[str] = ()
    ) -> Self:
        """Load encoder and heads, in eval mode; WeightsError if the checkpoint lacks a head.

        :param dropout: replaces both dropout rates of the folder's config.json.
        :param drop: tensors to leave out that no part of the model wants, by their names in the file.
        """
        from minbert.files.checkpoint import has_pooler, load_pretraining, read_config
        from minbert.files.registry import resolve

        folder = resolve(name_or_folder)
        model = cls._of(read_config(folder).with_dropout(dropout), has_pooler(folder))
        model.load_report = load_pretraining(dict(model.named_parameters()), folder, model.config.family, drop=drop)
        return model.eval()

    @classmethod
    def _of(cls, config: BertConfig, pooler: bool) -> Self:
        """Build the model that a folder's files describe."""
        return cls(config, pooler)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write what transformers' class of the same name, for its family, reads; errors as of BertModel's."""
        from minbert.files.checkpoint import save_parameters

        with torch.device("meta"):
            own = self._of(self.config, self.bert.pooler is not None).state_dict()
        save_parameters(self.state_dict(), own, self.config, Path(folder), self._architecture)

    @property
    def _architecture(self) -> str:
        """HuggingFace's name of the class."""
        return self.config.family.architecture.removesuffix("Model") + "ForMaskedLM"


class BertForPreTraining(BertForMaskedLM):
    """BERT with the masked-language-model head, tied to the word embeddings, and the next-sentence head.

    Source: Devlin et al. 2019, section 3.1.

    :raises InputError: for the configuration of another family, which has no next-sentence head.
    """

    def __init__(self, config: BertConfig) -> None:
        if config.model_type != "bert":
            raise InputError(f"BertForPreTraining must be given model_type bert, got {config.model_type!r}")
        super().__init__(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        _draw(self.seq_relationship, config)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> PreTrainingOutput:
        """Compute both heads; arguments and errors as of BertModel."""
        encoded = self.bert(input_ids, attention_mask, token_type_ids)
        return PreTrainingOutput(
            prediction_logits=self._padded_logits(encoded),
            seq_relationship_logits=self.seq_relationship(encoded.pooler_output),
            encoder=encoded,
        )

    @classmethod
    def _of(cls, config: BertConfig, pooler: bool) -> Self:
        return cls(config)

    @property
    def _architecture(self) -> str:
        return "BertForPreTraining"


def _draw(linear: nn.Linear, config: BertConfig) -> None:
    """Draw a head's weights as the encoder's are."""
    nn.init.normal_(linear.weight, std=config.initializer_range)
    nn.init.zeros_(linear.bias)


# An exported forward may give back what the model's own does.
torch.export.register_dataclass(PreTrainingOutput, serialized_type_name="minbert.PreTrainingOutput")
