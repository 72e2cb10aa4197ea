"""Make weights/tiny-bert and tiny-mpnet: small random models by `transformers`, and what they compute for a few inputs.

    python weights/record_reference.py

Needs `transformers`, which the tests that read the result do without. Run it again only to record with a newer version;
the weights stay the same as long as torch's generator does.
"""

import json
import string
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).parent / "tiny-bert"
MPNET = Path(__file__).parent / "tiny-mpnet"
SEED = 20261122
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = string.ascii_lowercase + string.digits
WORDS = ["the", "a", "not", "good", "bad", "is", "was", "##ing", "##ed", "##able", "film", "story"]
PUNCTUATION = list("!?.,'-:;$%&")
TEXTS = [
    "The film was good!",
    "a story, not badly told",
    "Unbelievable",
    "",
    "Café naïveté is 100% good? [MASK]",
]
PAIRS = ["It is a good film.", "the story", "is not the film able?", "a", "ÇA VA 北京"]
MAX_LENGTH = 24


def make_vocabulary() -> list[str]:
    """Make 100 tokens that spell any lower-case English word."""
    pieces = [f"##{letter}" for letter in LETTERS]
    return [*SPECIAL_TOKENS, *LETTERS, *pieces, *PUNCTUATION, *WORDS]


def make_model(vocab_size: int) -> transformers.BertForPreTraining:
    """Make a model in which nothing hides behind a one or a zero: norms, biases and padding are random, too."""
    config = transformers.BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    model = transformers.BertForPreTraining(config).eval()
    randomise(model)
    return model


def randomise(model: torch.nn.Module) -> None:
    """Draw all parameters anew, a norm's weight around 1."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            middle = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(middle + 0.2 * torch.randn(parameter.shape, generator=generator))


def make_inputs(vocab_size: int) -> dict[str, dict[str, Tensor]]:
    """Make named inputs: without a mask, with padding at the right, with holes anywhere but at the first token."""
    generator = torch.Generator().manual_seed(SEED + 1)
    batch, seq = 4, 14
    input_ids = torch.randint(vocab_size, (batch, seq), generator=generator)
    token_type_ids = torch.randint(2, (batch, seq), generator=generator)
    lengths = torch.tensor([seq, 9, 1, 5])
    padded = (torch.arange(seq) < lengths[:, None]).long()
    holes = torch.randint(2, (batch, seq), generator=generator)
    holes[:, 0] = 1
    return {
        "plain": {"input_ids": input_ids},
        "padded": {"input_ids": input_ids, "attention_mask": padded, "token_type_ids": token_type_ids},
        "holes": {"input_ids": input_ids, "attention_mask": holes, "token_type_ids": token_type_ids},
    }


def record(model: transformers.BertForPreTraining, inputs: dict[str, Tensor], *, heads: bool) -> dict[str, Tensor]:
    """Run the model, and give its inputs and outputs by name.

    :param inputs: input_ids and perhaps attention_mask and token_type_ids, each int64 (batch, seq).
    :param heads: record the outputs of both pretraining heads, too.
    """
    with torch.no_grad():
        encoder = model.bert(**inputs, output_hidden_states=True, output_attentions=True)
        outputs = model(**inputs)
    tensors = {
        "pooler_output": encoder.pooler_output,
        **inputs,
    }
    if heads:
        tensors["prediction_logits"] = outputs.prediction_logits
        tensors["seq_relationship_logits"] = outputs.seq_relationship_logits
    tensors |= {f"hidden_states.{layer}": states for layer, states in enumerate(encoder.hidden_states)}
    tensors |= {f"attentions.{layer}": weights for layer, weights in enumerate(encoder.attentions)}
    return tensors


def record_mpnet() -> None:
    """Write the folder of a tiny MPNet: settings, weights, and hidden states with holes and padding's id among the ids.

    The buckets of all distances from -200 to 200 are recorded, too, since no row here is so long.
    """
    config = transformers.MPNetConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=12,
        attn_implementation="eager",
    )
    model = transformers.MPNetModel(config).eval()
    randomise(model)
    model.save_pretrained(MPNET)
    generator = torch.Generator().manual_seed(SEED + 2)
    input_ids = torch.randint(12, (3, 10), generator=generator)
    input_ids[0, 4], input_ids[1, 7:] = 1, 1
    mask = torch.randint(2, (3, 10), generator=generator)
    mask[:, 0] = 1
    with torch.no_grad():
        plain = model(input_ids)
        holes = model(input_ids, attention_mask=mask, output_hidden_states=True)
    buckets = model.encoder.relative_position_bucket(torch.arange(-200, 201))
    recorded = {
        "input_ids": input_ids.to(torch.int32),
        "attention_mask": mask.bool(),
        "plain": plain.last_hidden_state,
        "plain.pooler_output": plain.pooler_output,
        **{f"holes.{layer}": states for layer, states in enumerate(holes.hidden_states)},
        "buckets": buckets.to(torch.int8),
    }
    about = {"transformers": transformers.__version__, "torch": torch.__version__, "seed": SEED}
    recorded = {name: tensor.clone().contiguous() for name, tensor in recorded.items()}
    save_file(recorded, MPNET / "reference.safetensors", metadata={"about": json.dumps(about)})


def main() -> None:
    """Write both folders: vocabulary, settings, weights and the recording."""
    record_mpnet()
    FOLDER.mkdir(exist_ok=True)
    vocabulary = make_vocabulary()
    (FOLDER / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    model = make_model(len(vocabulary))
    model.save_pretrained(FOLDER)
    (FOLDER / "generation_config.json").unlink(missing_ok=True)
    recorded: dict[str, Tensor] = {}
    for case, inputs in make_inputs(len(vocabulary)).items():
        outputs = record(model, inputs, heads=case == "holes")
        recorded |= {f"{case}.{name}": tensor for name, tensor in outputs.items()}
    tokenizer = transformers.BertTokenizerFast.from_pretrained(str(FOLDER))
    tokens = tokenizer(TEXTS, PAIRS, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt")
    recorded |= {f"texts.{name}": tensor for name, tensor in tokens.items()}
    about = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "seed": SEED,
        "texts": TEXTS,
        "pairs": PAIRS,
        "max_length": MAX_LENGTH,
    }
    # One key: several are written in an order that changes from run to run, and so would the file.
    metadata = {"about": json.dumps(about, indent=1)}
    recorded = {name: tensor.clone().contiguous() for name, tensor in recorded.items()}
    save_file(recorded, FOLDER / "reference.safetensors", metadata=metadata)
    for folder in (FOLDER, MPNET):
        print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
