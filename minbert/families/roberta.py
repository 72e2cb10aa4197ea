"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020).

BERT's layers and names; positions start after the padding's id. They were trained with one token type, though a
configuration may have more.
"""

from minbert.families.bert import BERT

__all__ = ["CAMEMBERT", "ROBERTA", "XLM_ROBERTA"]

ROBERTA = BERT.but(
    model_type="roberta",
    architecture="RobertaModel",
    prefix="roberta.",
    defaults={"vocab_size": 50265, "pad_token_id": 1},
    positions_from_ids=True,
)
XLM_ROBERTA = ROBERTA.but(
    model_type="xlm-roberta", architecture="XLMRobertaModel", defaults={"vocab_size": 30522, "pad_token_id": 1}
)
CAMEMBERT = XLM_ROBERTA.but(model_type="camembert", architecture="CamembertModel")
