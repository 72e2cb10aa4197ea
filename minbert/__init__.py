"""minbert: BERT written out by hand, on real tokens alone.

>>> from minbert import BertModel, BertTokenizer
>>> model = BertModel.from_pretrained("all-minilm-l6-v2")       # doctest: +SKIP
>>> tokenizer = BertTokenizer.from_pretrained("all-minilm-l6-v2")  # doctest: +SKIP
>>> model(**tokenizer(["A dog runs.", "It rains."])).last_hidden_state.shape  # doctest: +SKIP
torch.Size([2, 6, 384])

The names below are imported on first use: the version or an error class does not wait for torch. The formula of
attention is not among them, since minbert.attention is its module: ``from minbert.attention import attention``.
"""

from typing import TYPE_CHECKING

from minbert.lazy import lazy_names

if TYPE_CHECKING:
    from minbert.attention import MultiHeadAttention
    from minbert.config import BertConfig
    from minbert.errors import InputError, MinbertError, WeightsError
    from minbert.fast.choice import get_kernels, kernels, set_kernels
    from minbert.heads import BertForMaskedLM, BertForPreTraining, PreTrainingOutput
    from minbert.layers import Dropout, LayerNorm, dropout, gelu, layer_norm
    from minbert.model import BertEmbeddings, BertLayer, BertModel
    from minbert.optim import (
        SCHEDULES,
        AdamW,
        adamw_step,
        constant_schedule,
        cosine_schedule,
        linear_schedule,
        parameter_groups,
    )
    from minbert.outputs import BertOutput
    from minbert.packing import Packing, PaddedRows
    from minbert.tokenizer import BertTokenizer, TokenBatch, TokenizedTexts
    from minbert.vectors import encode, mean_pool

__all__ = [
    "SCHEDULES",
    "AdamW",
    "BertConfig",
    "BertEmbeddings",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertLayer",
    "BertModel",
    "BertOutput",
    "BertTokenizer",
    "Dropout",
    "InputError",
    "LayerNorm",
    "MinbertError",
    "MultiHeadAttention",
    "Packing",
    "PaddedRows",
    "PreTrainingOutput",
    "TokenBatch",
    "TokenizedTexts",
    "WeightsError",
    "adamw_step",
    "constant_schedule",
    "cosine_schedule",
    "dropout",
    "encode",
    "gelu",
    "get_kernels",
    "kernels",
    "layer_norm",
    "linear_schedule",
    "mean_pool",
    "parameter_groups",
    "set_kernels",
]
__version__ = "0.1.0"

_HOME = {
    "SCHEDULES": "optim",
    "AdamW": "optim",
    "BertConfig": "config",
    "BertEmbeddings": "model",
    "BertForMaskedLM": "heads",
    "BertForPreTraining": "heads",
    "BertLayer": "model",
    "BertModel": "model",
    "BertOutput": "outputs",
    "BertTokenizer": "tokenizer",
    "Dropout": "layers",
    "InputError": "errors",
    "LayerNorm": "layers",
    "MinbertError": "errors",
    "MultiHeadAttention": "attention",
    "Packing": "packing",
    "PaddedRows": "packing",
    "PreTrainingOutput": "heads",
    "TokenBatch": "tokenizer",
    "TokenizedTexts": "tokenizer",
    "WeightsError": "errors",
    "adamw_step": "optim",
    "constant_schedule": "optim",
    "cosine_schedule": "optim",
    "dropout": "layers",
    "encode": "vectors",
    "gelu": "layers",
    "get_kernels": "fast.choice",
    "kernels": "fast.choice",
    "layer_norm": "layers",
    "linear_schedule": "optim",
    "mean_pool": "vectors",
    "parameter_groups": "optim",
    "set_kernels": "fast.choice",
}


__getattr__, __dir__ = lazy_names(globals(), _HOME)
