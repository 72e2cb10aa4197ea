"""The BERT encoder: embeddings, layers, pooler. Reads top to bottom as the paper does.

Source: Devlin et al. 2019 (arXiv 1810.04805); layers as in Vaswani et al. 2017, with the norm after the residual.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minbert.attention import MultiHeadAttention, RelativeAttentionBias
from minbert.config import BertConfig
from minbert.errors import InputError
from minbert.fast.choice import uses_fast_path
from minbert.inputs import checked_inputs, counted_positions, refuse_quantized_autocast
from minbert.layers import ACTIVATIONS, Dropout, LayerNorm
from minbert.outputs import BertOutput, Encoded
from minbert.packing import Packing, PaddedRows, Rows

if TYPE_CHECKING:
    from minbert.files.checkpoint import LoadReport

__all__ = ["BertEmbeddings", "BertLayer", "BertModel", "BertOutput", "Encoded"]


class BertEmbeddings(nn.Module):
    """Sum of word, position and segment embeddings, normed, then dropout (section 3, figure 2)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        # Where positions start after the padding's id, those up to it are nobody's, and padding's is not trained.
        unused = config.pad_token_id if config.first_position else None
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size, unused)
        types = config.type_vocab_size
        self.token_type_embeddings = nn.Embedding(types, config.hidden_size) if types else None
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, positions: Tensor) -> Tensor:
        """Embed each token.

        :param input_ids: int64 (tokens,), as are ``token_type_ids``, which count only where there are types.
        :param positions: int64, each token's position: (tokens,), or (seq,) for a padded batch.
        :return: (tokens, hidden_size).
        """
        summed = self.word_embeddings(input_ids)
        if self.token_type_embeddings is not None:
            summed = summed + self.token_type_embeddings(token_type_ids)
        embedded: Tensor = self.dropout(self.LayerNorm(summed + self.position_embeddings(positions)))
        return embedded


class BertLayer(nn.Module):
    """Self-attention and a feed-forward part, each followed by dropout, the residual and a layer norm.

    Source: Vaswani et al. 2017, sections 3.1 and 3.3 (equation 2), with GELU for ReLU as in Devlin et al., A.2.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.attention = MultiHeadAttention(hidden, config.num_attention_heads, config.attention_probs_dropout_prob)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_LayerNorm = LayerNorm(hidden, config.layer_norm_eps)
        self.intermediate = nn.Linear(hidden, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, hidden)
        self.output_LayerNorm = LayerNorm(hidden, config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.drops_attention_output = config.family.drops_attention_output

    def forward(self, hidden: Tensor, rows: Rows, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the layer.

        :param hidden: (tokens, hidden_size).
        :param rows: says which token is whose.
        :param bias: (heads, seq, seq), added to the attention's scores.
        :return: (tokens, hidden_size), and the attention weights (batch, heads, seq, seq).
        """
        context, weights = self.attention(hidden, rows, bias=bias)
        mixed = self.attention_output(context)
        mixed = self.dropout(mixed) if self.drops_attention_output else mixed
        attended = self.attention_LayerNorm(hidden + mixed)
        expanded = self.activation(self.intermediate(attended))  # (tokens, intermediate_size)
        return self.output_LayerNorm(attended + self.dropout(self.output(expanded))), weights


class BertModel(nn.Module):
    """An encoder of BERT's family over int64 token ids, computing on real tokens alone.

    :param config: sizes and dropout rates; ``config.family`` says what differs from BERT.
    :param add_pooling_layer: False for checkpoints without a pooler; ``pooler_output`` is None then, as it always is
        in a family that has none.

    ``checkpoint_layers``, False unless set, makes training keep each layer's input alone and compute the layer once
    more in the backward pass, with the same dropout: less memory, equal numbers. Source: Chen et al. 2016 (arXiv
    1604.06174), section 3.
    """

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = BertEmbeddings(config)
        self.layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))
        buckets = config.relative_attention_num_buckets
        self.relative_attention_bias = RelativeAttentionBias(buckets, config.num_attention_heads) if buckets else None
        pooled = add_pooling_layer and config.family.has_pooler
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooled else None
        self.checkpoint_layers = False
        self.load_report: LoadReport | None = None
        self.apply(self._initialise)

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and where a batch has to be."""
        return next(self.parameters()).device

    def _initialise(self, module: nn.Module) -> None:
        """Draw weights of standard deviation ``initializer_range``, biases zero, as HuggingFace does."""
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
        """Encode a padded batch; outputs do not depend on the rest of the batch.

        :param input_ids: int64 or int32 (batch, seq), each in [0, vocab_size), seq at most config.max_tokens.
        :param attention_mask: (batch, seq), bool or 0 and 1; 1 at real tokens, each row's first among them. All
            real without it.
        :param token_type_ids: int64 (batch, seq), each in [0, type_vocab_size); all 0 without it.
        :return: see BertOutput; (batch, seq, hidden_size) and (batch, hidden_size).
        :raises InputError: (a ValueError) for anything else, before any product is computed. An exported or compiled
            forward checks no values, and computes the padded positions, too.
        """
        rows, types = self._laid_out(input_ids, attention_mask, token_type_ids)
        packed = rows.pack(input_ids), rows.pack(types)  # both (tokens,)
        if isinstance(rows, Packing) and uses_fast_path() and self._encodes_as_written():
            from minbert.fast.model import encode

            encoded = encode(self, *packed, rows, output_hidden_states, output_attentions)
        else:
            encoded = self.encode(*packed, rows, output_hidden_states, output_attentions)
        states = tuple(map(rows.real, encoded.states))
        attentions = tuple(weights * rows.mask[:, None, :, None] for weights in encoded.attentions)
        return BertOutput(
            packed=rows.real(encoded.hidden),
            packing=rows,
            pooler_output=encoded.pooled,
            packed_hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )

    def encode(
        self, input_ids: Tensor, token_type_ids: Tensor, rows: Rows, keep_states: bool, keep_attentions: bool
    ) -> Encoded:
        """Compute the encoder as the paper has it: embeddings, one layer after another, pooler.

        :param input_ids: int64 (tokens,), as are ``token_type_ids``.
        :param rows: says which token is whose.
        """
        hidden = self.embeddings(input_ids, token_type_ids, rows.positions)  # (tokens, hidden_size)
        states, attentions = [hidden] if keep_states else [], []
        bias = None if self.relative_attention_bias is None else self.relative_attention_bias(rows.seq_length)
        recomputes = self.checkpoint_layers and self.training and torch.is_grad_enabled()
        for layer in self.layers:
            inputs = (hidden, rows) if bias is None else (hidden, rows, bias)
            hidden, weights = checkpoint(layer, *inputs, use_reentrant=False) if recomputes else layer(*inputs)
            if keep_states:
                states.append(hidden)
            if keep_attentions:
                attentions.append(weights)
        pooled = None if self.pooler is None else torch.tanh(self.pooler(rows.first(hidden)))  # (batch, hidden_size)
        return Encoded(hidden, pooled, states, attentions)

    def _encodes_as_written(self) -> bool:
        """Return whether nobody has put another ``encode`` in the place of this one."""
        return type(self).encode is BertModel.encode and "encode" not in vars(self)

    def _laid_out(
        self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None
    ) -> tuple[Rows, Tensor]:
        """Check the batch; return its layout and its token types (batch, seq)."""
        padding = self.embeddings.position_embeddings.padding_idx
        positions = None if padding is None else counted_positions(input_ids, padding)
        if torch.compiler.is_compiling():  # no value can be looked at
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            return PaddedRows(mask.bool(), positions), types
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call] # public, though not in __all__
            raise InputError(
                "torch.jit.trace would record this batch's lengths: use torch.onnx.export(..., dynamo=True) or"
                " torch.export.export"
            )
        refuse_quantized_autocast(self, self.device)
        bool_mask, types = checked_inputs(self.config, self.device, input_ids, attention_mask, token_type_ids)
        return Packing(bool_mask, positions), types

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        add_pooling_layer: bool = True,
        dropout: float | None = None,
        drop: Iterable[str] = (),
        warn: bool = True,
    ) -> Self:
        """Load the weights of a known name, a hub id or a folder; the encoder is in eval mode.

        What was renamed and dropped on the way stands in ``load_report``.

        :param dropout: replaces both dropout rates of the folder's config.json.
        :param drop: tensors to leave out that no part of the model wants, by their names in the file.
        :param warn: log a warning if the pooler looks untrained.
        :raises WeightsError: for files that are missing, broken or do not fit; all misfits in one sentence.
        """
        from minbert.files.checkpoint import load_encoder, read_config
        from minbert.files.registry import resolve

        folder = resolve(name_or_folder)
        config = read_config(folder).with_dropout(dropout)
        model = cls(config, add_pooling_layer)
        model.load_report = load_encoder(dict(model.named_parameters()), folder, config.family, drop=drop, warn=warn)
        return model.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors as ``transformers.AutoModel`` reads them.

        :raises WeightsError: if the disk refuses, or if parts were replaced, so that nothing could load the files.
        """
        from minbert.files.checkpoint import save_parameters

        with torch.device("meta"):
            own = BertModel(self.config, self.pooler is not None).state_dict()
        save_parameters(self.state_dict(), own, self.config, Path(folder))
