"""BERT itself (Devlin et al. 2019, arXiv 1810.04805): what the others are measured against."""

from minbert.families.family import Family

__all__ = ["BERT", "LAYERS"]

# RoBERTa has the same names, but for its head's.
LAYERS = (
    ("encoder.layer.#.attention.self.", "layers.#.attention."),
    ("encoder.layer.#.attention.output.dense.", "layers.#.attention_output."),
    ("encoder.layer.#.attention.output.LayerNorm.", "layers.#.attention_LayerNorm."),
    ("encoder.layer.#.intermediate.dense.", "layers.#.intermediate."),
    ("encoder.layer.#.output.dense.", "layers.#.output."),
    ("encoder.layer.#.output.LayerNorm.", "layers.#.output_LayerNorm."),
    ("pooler.dense.", "pooler."),
)

BERT = Family(
    model_type="bert",
    architecture="BertModel",
    prefix="bert.",
    renames=(
        *LAYERS,
        ("cls.predictions.transform.dense.", "transform."),
        ("cls.predictions.transform.LayerNorm.", "transform_LayerNorm."),
        ("cls.predictions.bias", "prediction_bias"),
        ("cls.seq_relationship.", "seq_relationship."),
    ),
    fixed={"relative_attention_num_buckets": 0},
)
