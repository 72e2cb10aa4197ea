"""Every family that the encoder computes, by its model_type."""

from minbert.errors import WeightsError
from minbert.families.bert import BERT
from minbert.families.distilbert import DISTILBERT
from minbert.families.family import Family
from minbert.families.mpnet import MPNET
from minbert.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

__all__ = ["MEMBERS", "family_of"]

MEMBERS = {family.model_type: family for family in (BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, MPNET)}


def family_of(model_type: object) -> Family:
    """Return the family that config.json's ``model_type`` names.

    :raises WeightsError: for another architecture (ALBERT, DeBERTa, ELECTRA, ModernBERT, ...), which shares layers
        or has parts that this encoder lacks.
    """
    if not isinstance(model_type, str) or model_type not in MEMBERS:
        raise WeightsError(f"model_type must be one of {', '.join(MEMBERS)}, got {model_type!r}")
    return MEMBERS[model_type]
