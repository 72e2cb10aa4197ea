"""MPNet (Song et al. 2020, arXiv 2004.09297): RoBERTa's positions, no token types, one bias for all layers' attention.

The bias is learned for 32 buckets of the distance between two tokens. As transformers computes it, the number of
buckets and the padding's id are written into the code, whatever config.json says.
"""

from minbert.families.roberta import LM_HEAD, ROBERTA

__all__ = ["MPNET"]

MPNET = ROBERTA.but(
    model_type="mpnet",
    architecture="MPNetModel",
    prefix="mpnet.",
    renames=(
        ("encoder.relative_attention_bias.", "relative_attention_bias."),
        ("encoder.layer.#.attention.attn.q.", "layers.#.attention.query."),
        ("encoder.layer.#.attention.attn.k.", "layers.#.attention.key."),
        ("encoder.layer.#.attention.attn.v.", "layers.#.attention.value."),
        ("encoder.layer.#.attention.attn.o.", "layers.#.attention_output."),
        ("encoder.layer.#.attention.LayerNorm.", "layers.#.attention_LayerNorm."),
        ("encoder.layer.#.intermediate.dense.", "layers.#.intermediate."),
        ("encoder.layer.#.output.dense.", "layers.#.output."),
        ("encoder.layer.#.output.LayerNorm.", "layers.#.output_LayerNorm."),
        ("pooler.dense.", "pooler."),
        *LM_HEAD,
    ),
    defaults={"vocab_size": 30527},
    fixed={"type_vocab_size": 0, "relative_attention_num_buckets": 32, "pad_token_id": 1},
)
