"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): half of BERT's layers, no token types, no pooler.

As transformers computes it, there is no dropout between the attention's output and the residual, and the norms' eps
is written into the code.
"""

from minbert.families.bert import BERT

__all__ = ["DISTILBERT"]

DISTILBERT = BERT.but(
    model_type="distilbert",
    architecture="DistilBertModel",
    prefix="distilbert.",
    renames=(
        ("transformer.layer.#.attention.q_lin.", "layers.#.attention.query."),
        ("transformer.layer.#.attention.k_lin.", "layers.#.attention.key."),
        ("transformer.layer.#.attention.v_lin.", "layers.#.attention.value."),
        ("transformer.layer.#.attention.out_lin.", "layers.#.attention_output."),
        ("transformer.layer.#.sa_layer_norm.", "layers.#.attention_LayerNorm."),
        ("transformer.layer.#.ffn.lin1.", "layers.#.intermediate."),
        ("transformer.layer.#.ffn.lin2.", "layers.#.output."),
        ("transformer.layer.#.output_layer_norm.", "layers.#.output_LayerNorm."),
        ("vocab_transform.", "transform."),
        ("vocab_layer_norm.", "transform_LayerNorm."),
        ("vocab_projector.bias", "prediction_bias"),
    ),
    keys={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    defaults={"num_hidden_layers": 6},
    fixed={"type_vocab_size": 0, "relative_attention_num_buckets": 0, "layer_norm_eps": 1e-12},
    has_pooler=False,
    drops_attention_output=False,
)
