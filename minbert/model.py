"""The BERT encoder: embeddings, layers, pooler. Reads top to bottom as the paper does.

Source: Devlin et al. 2019 (arXiv 1810.04805); layers as in Vaswani et al. 2017, with the norm after the residual.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from minbert.attention import MultiHeadAttention
from minbert.config import BertConfig
from minbert.errors import InputError
from minbert.fast.attention import Heads
from minbert.fast.kernels import get_kernels, keep_freed_memory, product_dtype
from minbert.fast.layer import LayerSettings, encoder_layer
from minbert.layers import ACTIVATIONS, Dropout, Embedding, LayerNorm, Linear, add_residual, is_watched
from minbert.packing import Packing

if TYPE_CHECKING:
    from minbert.files.checkpoint import LoadReport

__all__ = ["BertModel", "BertOutput"]


@dataclass
class BertOutput:
    """What an encoder gives back. Padded views are made when they are asked for.

    - ``packed`` (tokens, hidden_size): the last layer's hidden states of real tokens; ``packing`` says whose.
    - ``last_hidden_state`` (batch, seq, hidden_size): the same, zero at masked positions.
    - ``pooler_output`` (batch, hidden_size): tanh(W h + b) of each row's first token; None without a pooler.
    - ``hidden_states``: embeddings and each layer, (batch, seq, hidden_size) each; None unless asked for.
    - ``attentions``: each layer's weights, (batch, heads, seq, seq), after dropout in train mode; None unless asked.
    """

    packed: Tensor
    packing: Packing
    pooler_output: Tensor | None
    packed_hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    @cached_property
    def last_hidden_state(self) -> Tensor:
        return self.packing.unpack(self.packed)

    @cached_property
    def hidden_states(self) -> tuple[Tensor, ...] | None:
        if self.packed_hidden_states is None:
            return None
        return tuple(self.packing.unpack(states) for states in self.packed_hidden_states)


class BertEmbeddings(nn.Module):
    """Sum of word, position and segment embeddings, normed, then dropout (section 3, figure 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, positions: Tensor) -> Tensor:
        """Three int64 (tokens,) -> (tokens, hidden_size)."""
        summed = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        embedded: Tensor = self.dropout(self.norm(summed + self.position_embeddings(positions)))
        return embedded


class BertLayer(nn.Module):
    """Self-attention and a feed-forward part, each followed by dropout, the residual and a layer norm.

    Source: Vaswani et al. 2017, sections 3.1 and 3.3 (equation 2), with GELU for ReLU as in Devlin et al., A.2.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.attention = MultiHeadAttention(hidden, config.num_attention_heads, config.attention_probs_dropout_prob)
        self.attention_output = Linear(hidden, hidden)
        self.attention_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.intermediate = Linear(hidden, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = Linear(config.intermediate_size, hidden)
        self.output_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, packing: Packing, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Packed (tokens, hidden_size) -> the same, and the attention weights if they are needed."""
        if need_weights:
            context, weights = self.attention.forward_with_weights(hidden, packing)
        else:
            context, weights = self.attention(hidden, packing), None
        attended = self.attention_norm(add_residual(hidden, self.attention_output(context), self.dropout))
        expanded = self.activation(self.intermediate(attended))  # (tokens, intermediate_size)
        return self.output_norm(add_residual(attended, self.output(expanded), self.dropout)), weights

    @property
    def is_plain(self) -> bool:
        """Whether every module is the one that was built here, and no hook watches it."""
        return (
            self.activation in ACTIVATIONS.values()
            and all(type(module) in _PLAIN and not is_watched(module) for module in self.modules())
            and self.attention_norm.eps == self.output_norm.eps
        )

    def as_a_whole(self, hidden: Tensor, packing: Packing) -> Tensor:
        """Packed (slots, hidden_size) -> the same: what ``forward`` computes, for a plain layer, on the fast path."""
        settings = LayerSettings(
            heads=Heads(packing, self.attention.num_heads, self.attention.dropout.rate),
            dropout=self.dropout.rate,
            eps=self.output_norm.eps,
            activation="gelu" if self.activation is ACTIVATIONS["gelu"] else "relu",
            dtype=product_dtype(hidden),
        )
        attention = (self.attention.query, self.attention.key, self.attention.value)
        rest = (self.attention_output, self.attention_norm, self.intermediate, self.output, self.output_norm)
        parameters = [parameter for module in (*attention, *rest) for parameter in (module.weight, module.bias)]
        return encoder_layer(hidden, settings, parameters)


_PLAIN = {BertLayer, MultiHeadAttention, Linear, LayerNorm, Dropout}


class BertModel(nn.Module):
    """A BERT encoder over int64 token ids, computing on real tokens alone.

    :param config: sizes and dropout rates.
    :param add_pooling_layer: False for checkpoints without a pooler; ``pooler_output`` is None then.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))
        self.pooler = Linear(config.hidden_size, config.hidden_size) if add_pooling_layer else None
        self.load_report: LoadReport | None = None
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Normal of standard deviation ``initializer_range``, biases zero (the paper's released code)."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> BertOutput:
        """Encode a padded batch; what a row is batched with does not change its answer.

        :param input_ids: int64 (batch, seq), each in [0, vocab_size), seq at most max_position_embeddings.
        :param attention_mask: (batch, seq), bool or 0 and 1; 1 at real tokens, each row's first among them. All
            real without it.
        :param token_type_ids: int64 (batch, seq), each in [0, type_vocab_size); all 0 without it.
        :return: see BertOutput; (batch, seq, hidden_size) and (batch, hidden_size).
        :raises InputError: (a ValueError) for anything else, before any product is computed.
        """
        mask, types = self._checked(input_ids, attention_mask, token_type_ids)
        packing = Packing(mask)
        hidden = self.embeddings(packing.pack(input_ids), packing.pack(types), packing.positions)
        states, weights = [hidden], []
        plain = [layer for layer in self.layers if isinstance(layer, BertLayer) and layer.is_plain]
        if get_kernels() == "fast" and not output_attentions and len(plain) == len(self.layers):
            keep_freed_memory()
            filled = packing.fill(hidden)
            for whole in plain:
                filled = whole.as_a_whole(filled, packing)
                states.append(hidden := packing.cut(filled))
        else:
            for layer in self.layers:
                hidden, attended = layer(hidden, packing, output_attentions)
                states.append(hidden)
                weights.append(attended)
        first = hidden[packing.first_tokens]  # (batch, hidden_size)
        return BertOutput(
            packed=hidden,
            packing=packing,
            pooler_output=None if self.pooler is None else torch.tanh(self.pooler(first)),
            packed_hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(weights) if output_attentions else None,
        )

    def _checked(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The mask as bool and the token types, both (batch, seq), after every check of the arguments."""
        device = self.embeddings.word_embeddings.weight.device
        for name, tensor in (
            ("input_ids", input_ids),
            ("attention_mask", attention_mask),
            ("token_type_ids", token_type_ids),
        ):
            if isinstance(tensor, Tensor) and (tensor.device != device or tensor.layout != torch.strided):
                raise InputError(
                    f"{name}: is a {tensor.layout} tensor on {tensor.device}; a dense one on {device} is due"
                )
        _check_ids("input_ids", input_ids, self.config.vocab_size, "vocab_size")
        batch, seq = input_ids.shape
        if seq > self.config.max_position_embeddings:
            raise InputError(
                f"input_ids: {seq} tokens in a row; this model takes at most {self.config.max_position_embeddings}"
                " (max_position_embeddings), truncate the text"
            )
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        _check_shape("token_type_ids", token_type_ids, input_ids)
        _check_ids("token_type_ids", token_type_ids, self.config.type_vocab_size, "type_vocab_size")
        if attention_mask is None:
            return torch.ones_like(input_ids, dtype=torch.bool), token_type_ids
        _check_shape("attention_mask", attention_mask, input_ids)
        mask = attention_mask.bool()
        if attention_mask.dtype != torch.bool and bool((attention_mask != mask).any()):
            value = attention_mask[attention_mask != mask][0].item()
            raise InputError(f"attention_mask: holds {value}; allowed are 0, 1 and bool")
        unmasked = mask[:, 0]
        if not bool(unmasked.all()):
            row = int((~unmasked).nonzero()[0])
            what = "its first token" if bool(mask[row].any()) else "every token"
            raise InputError(f"attention_mask: row {row} has {what} masked; the first token of a row has to be real")
        return mask, token_type_ids

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, add_pooling_layer: bool = True, dropout: float | None = None
    ) -> Self:
        """An encoder with the weights of a known name, a hub id or a folder, in eval mode.

        What was renamed and dropped on the way stands in ``load_report``.

        :param dropout: replaces both dropout rates of the folder's config.json.
        :raises WeightsError: for files that are missing, broken or do not fit; all misfits in one sentence.
        """
        from minbert.files.checkpoint import load_encoder, read_config
        from minbert.files.registry import resolve

        folder = resolve(name_or_folder)
        config = read_config(folder)
        if dropout is not None:
            rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
            config = dataclasses.replace(config, **rates)  # type: ignore[arg-type]
        model = cls(config, add_pooling_layer)
        model.load_report = load_encoder(model, folder)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors as ``transformers.BertModel`` reads them."""
        from minbert.files.checkpoint import save_encoder

        save_encoder(self, folder)


def _check_ids(name: str, ids: Tensor, limit: int, limit_name: str) -> None:
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
        found = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(f"{name}: is {found}; an int64 tensor is due")
    if ids.dim() != 2 or 0 in ids.shape:
        raise InputError(f"{name}: has shape {tuple(ids.shape)}; (batch, seq) is due, neither of them 0")
    low, high = (int(value) for value in ids.aminmax())
    if low < 0 or high >= limit:
        raise InputError(f"{name}: holds {low if low < 0 else high}; allowed are 0 to {limit - 1} ({limit_name})")


def _check_shape(name: str, given: Tensor, input_ids: Tensor) -> None:
    if not isinstance(given, Tensor) or given.shape != input_ids.shape:
        found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"{name}: has shape {found}; the shape of input_ids, {tuple(input_ids.shape)}, is due")
