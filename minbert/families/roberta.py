"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020).

BERT's layers and names; positions start after the padding's id. They were trained with one token type, though a
configuration may have more.
"""

from minbert.families.bert import BERT, LAYERS

__all__ = ["CAMEMBERT", "LM_HEAD", "ROBERTA", "XLM_ROBERTA"]

LM_HEAD = (
    ("lm_head.dense.", "transform."),
    ("lm_head.layer_norm.", "transform_LayerNorm."),
    ("lm_head.bias", "prediction_bias"),
)

ROBERTA = BERT.but(
    model_type="roberta",
    architecture="RobertaModel",
    prefix="roberta.",
    renames=(*LAYERS, *LM_HEAD),
    defaults={"vocab_size": 50265, "pad_token_id": 1},
    positions_from_ids=True,
    head_act="gelu",
)
XLM_ROBERTA = ROBERTA.but(
    model_type="xlm-roberta", architecture="XLMRobertaModel", defaults={"vocab_size": 30522, "pad_token_id": 1}
)
CAMEMBERT = XLM_ROBERTA.but(model_type="camembert", architecture="CamembertModel")
