"""minbert: BERT written out by hand, on real tokens alone.

>>> from minbert import BertModel, BertTokenizer
>>> model = BertModel.from_pretrained("all-minilm-l6-v2")       # doctest: +SKIP
>>> tokenizer = BertTokenizer.from_pretrained("all-minilm-l6-v2")  # doctest: +SKIP
>>> model(**tokenizer(["A dog runs.", "It rains."])).last_hidden_state.shape  # doctest: +SKIP
torch.Size([2, 6, 384])
"""

from minbert.config import BertConfig
from minbert.errors import InputError, MinbertError, WeightsError
from minbert.heads import BertForPreTraining
from minbert.kernels import get_kernels, set_kernels
from minbert.model import BertModel, BertOutput
from minbert.optim import SCHEDULES, AdamW, constant_schedule, cosine_schedule, linear_schedule
from minbert.tokenizer import BertTokenizer, TokenBatch

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
    "get_kernels",
    "linear_schedule",
    "set_kernels",
]
__version__ = "0.1.0"
