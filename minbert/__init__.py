"""minbert: BERT written out by hand, on real tokens alone.

>>> from minbert import BertModel, BertTokenizer
>>> model = BertModel.from_pretrained("all-minilm-l6-v2")       # doctest: +SKIP
>>> tokenizer = BertTokenizer.from_pretrained("all-minilm-l6-v2")  # doctest: +SKIP
>>> model(**tokenizer(["A dog runs.", "It rains."])).last_hidden_state.shape  # doctest: +SKIP
torch.Size([2, 6, 384])

The names below are imported on first use: the version or an error class does not wait for torch.
"""

from typing import TYPE_CHECKING

from minbert.lazy import lazy_names

if TYPE_CHECKING:
    from minbert.config import BertConfig
    from minbert.errors import InputError, MinbertError, WeightsError
    from minbert.fast.choice import get_kernels, kernels, set_kernels
    from minbert.heads import BertForPreTraining
    from minbert.model import BertModel, BertOutput
    from minbert.optim import (
        SCHEDULES,
        AdamW,
        constant_schedule,
        cosine_schedule,
        linear_schedule,
        parameter_groups,
    )
    from minbert.tokenizer import BertTokenizer, TokenBatch
    from minbert.vectors import encode

__all__ = [
    "SCHEDULES",
    "AdamW",
    "BertConfig",
    "BertForPreTraining",
    "BertModel",
    "BertOutput",
    "BertTokenizer",
    "InputError",
    "MinbertError",
    "TokenBatch",
    "WeightsError",
    "constant_schedule",
    "cosine_schedule",
    "encode",
    "get_kernels",
    "kernels",
    "linear_schedule",
    "parameter_groups",
    "set_kernels",
]
__version__ = "0.1.0"

_HOME = {
    "SCHEDULES": "optim",
    "AdamW": "optim",
    "BertConfig": "config",
    "BertForPreTraining": "heads",
    "BertModel": "model",
    "BertOutput": "model",
    "BertTokenizer": "tokenizer",
    "InputError": "errors",
    "MinbertError": "errors",
    "TokenBatch": "tokenizer",
    "WeightsError": "errors",
    "constant_schedule": "optim",
    "cosine_schedule": "optim",
    "encode": "vectors",
    "get_kernels": "fast.choice",
    "kernels": "fast.choice",
    "linear_schedule": "optim",
    "parameter_groups": "optim",
    "set_kernels": "fast.choice",
}


__getattr__, __dir__ = lazy_names(globals(), _HOME)
