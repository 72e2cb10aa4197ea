"""The encoder and its pretraining heads against live `transformers`, in eval mode."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minbert import BertConfig, BertModel, BertTokenizer, InputError
from minbert.layers import LayerNorm

TOLERANCE = 1e-5
SHAPES: list[dict[str, Any]] = [
    {},
    {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1, "type_vocab_size": 3},
    {"hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 7, "layer_norm_eps": 1e-5},
    {"hidden_size": 48, "num_attention_heads": 12, "num_hidden_layers": 4, "max_position_embeddings": 40},
    {"hidden_act": "relu", "pad_token_id": 3},
    {"kind": "distilbert", "hidden_size": 24, "num_attention_heads": 3, "hidden_act": "gelu_new"},
    {"kind": "roberta", "type_vocab_size": 1, "layer_norm_eps": 1e-5, "hidden_act": "gelu_pytorch_tanh"},
    {"kind": "xlm-roberta", "type_vocab_size": 1, "pad_token_id": 3, "intermediate_size": 7},
    {"kind": "camembert", "num_attention_heads": 1, "hidden_act": "silu"},
    {"kind": "mpnet", "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3},
]
MASKS = ["none", "right", "holes"]
Inputs = dict[str, Tensor]


def kept_of(inputs: Inputs) -> Tensor:
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def largest_difference(mine: Any, theirs: Any, inputs: Inputs) -> float:
    """Of all hidden states, attentions and the pooler at unmasked positions; masked ones have to be zero."""
    kept = kept_of(inputs)
    with torch.no_grad():
        found = mine(**inputs, output_hidden_states=True, output_attentions=True)
        plain = mine(**inputs)  # without attentions, which may be computed another way
        expected = theirs(**inputs, output_hidden_states=True, output_attentions=True)
    layers = theirs.config.num_hidden_layers
    assert len(found.hidden_states) == len(expected.hidden_states) == layers + 1
    assert len(found.attentions) == len(expected.attentions) == layers
    assert plain.hidden_states is None
    assert plain.attentions is None
    pairs = []
    if mine.config.model_type == "distilbert":
        assert found.pooler_output is plain.pooler_output is None
    else:
        pairs += [(output.pooler_output, expected.pooler_output) for output in (found, plain)]
    states = [*zip(found.hidden_states, expected.hidden_states, strict=True)]
    states += [(output.last_hidden_state, expected.last_hidden_state) for output in (found, plain)]
    for mine_state, their_state in states:
        assert mine_state.shape == their_state.shape
        assert not mine_state[~kept].any()
        pairs.append((mine_state[kept], their_state[kept]))
    for mine_weights, their_weights in zip(found.attentions, expected.attentions, strict=True):
        assert mine_weights.shape == their_weights.shape  # (batch, heads, seq, seq)
        by_query, theirs_by_query = mine_weights.transpose(1, 2), their_weights.transpose(1, 2)
        assert not by_query[~kept].any()
        pairs.append((by_query[kept], theirs_by_query[kept]))
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_tiny_models(kernels: str, make_pair: Any, make_inputs: Any, shape: dict[str, Any], mask: str) -> None:
    for seed in range(3):
        mine, theirs = make_pair(seed, **shape)
        inputs = make_inputs(seed, theirs.config, mask)
        assert largest_difference(mine, theirs, inputs) <= TOLERANCE


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_in_float64(kernels: str, make_pair: Any, make_inputs: Any, shape: dict[str, Any], mask: str) -> None:
    mine, theirs = (model.double() for model in make_pair(4, **shape))
    inputs = make_inputs(4, theirs.config, mask)
    assert largest_difference(mine, theirs, inputs) <= 1e-12


@pytest.mark.parametrize(("batch", "seq"), [(1, 1), (1, 20), (3, 1), (40, 2), (2, 20)])
def test_other_batch_shapes(kernels: str, make_pair: Any, make_inputs: Any, batch: int, seq: int) -> None:
    mine, theirs = make_pair(5)
    for mask in MASKS:
        inputs = make_inputs(batch + seq, theirs.config, mask, batch=batch, seq=seq)
        assert largest_difference(mine, theirs, inputs) <= TOLERANCE


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet"])
def test_base_size(kernels: str, make_pair: Any, make_inputs: Any, kind: str) -> None:
    sizes = {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 6 if kind == "distilbert" else 12,
        "intermediate_size": 3072,
    }
    mine, theirs = make_pair(0, kind=kind, **sizes, vocab_size=500, initializer_range=0.02)
    inputs = make_inputs(0, theirs.config, "holes", batch=3, seq=12)
    assert largest_difference(mine, theirs, inputs) <= TOLERANCE


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["roberta", "mpnet"])
def test_rows_as_long_as_the_positions_reach(
    kernels: str, make_pair: Any, make_inputs: Any, kind: str, mask: str
) -> None:
    """Past the largest distance of the relative bias, and up to the last position."""
    mine, theirs = make_pair(6, kind=kind, max_position_embeddings=152)
    assert mine.config.max_tokens == 150
    inputs = make_inputs(6, theirs.config, mask, batch=4, seq=150)
    inputs["input_ids"][0] = 7  # no padding: the last position is used
    assert largest_difference(mine, theirs, inputs) <= TOLERANCE
    with pytest.raises(InputError, match=r"at most 150 tokens .max_position_embeddings - 2., got 151"):
        mine(torch.full((1, 151), 7))


@pytest.mark.parametrize("mask", [*MASKS, "texts"])
def test_all_minilm(kernels: str, transformers: Any, minilm_weights: Path, make_inputs: Any, mask: str) -> None:
    mine = BertModel.from_pretrained(minilm_weights)
    theirs = transformers.BertModel.from_pretrained(minilm_weights, attn_implementation="eager").eval()
    if mask == "texts":
        tokenizer = BertTokenizer.from_pretrained(minilm_weights)
        inputs = dict(tokenizer(["A dog runs.", "It rains " * 20], ["A dog sleeps on a mat.", "It's dry."]))
    else:
        inputs = make_inputs(1, theirs.config, mask, batch=4, seq=20)
    assert largest_difference(mine, theirs, inputs) <= TOLERANCE


def test_a_mask_may_be_int_or_bool_and_token_types_default_to_zero(
    kernels: str, make_pair: Any, make_inputs: Any
) -> None:
    mine, theirs = make_pair(1)
    inputs = make_inputs(1, theirs.config, "holes")
    mask = inputs["attention_mask"]
    with torch.no_grad():
        expected = mine(**inputs).last_hidden_state
        for kind in (torch.bool, torch.int32, torch.float32):
            assert torch.equal(mine(**{**inputs, "attention_mask": mask.to(kind)}).last_hidden_state, expected)
        ids, zeros = inputs["input_ids"], torch.zeros_like(inputs["input_ids"])
        assert torch.equal(mine(ids, mask).pooler_output, mine(ids, mask, zeros).pooler_output)
        ones = torch.ones_like(ids)
        assert torch.equal(mine(ids).last_hidden_state, mine(ids, ones).last_hidden_state)
    assert largest_difference(mine, theirs, {"input_ids": ids, "attention_mask": mask}) <= TOLERANCE


def test_batch_mates_and_padding_do_not_change_an_answer(kernels: str, make_pair: Any, make_inputs: Any) -> None:
    mine, theirs = make_pair(2)
    mine = mine.double()
    inputs = make_inputs(2, theirs.config, "right", batch=20)
    with torch.no_grad():
        together = mine(**inputs, output_attentions=True)
        for row, length in enumerate(inputs["attention_mask"].sum(1).tolist()):
            alone = mine(**{name: tensor[row : row + 1, :length] for name, tensor in inputs.items()})
            difference = together.last_hidden_state[row, :length] - alone.last_hidden_state[0]
            assert difference.abs().max() < 1e-12
            assert (together.pooler_output[row] - alone.pooler_output[0]).abs().max() < 1e-12


def test_the_ids_at_masked_positions_do_not_matter(kernels: str, make_pair: Any, make_inputs: Any) -> None:
    mine, theirs = make_pair(3)
    inputs = make_inputs(3, theirs.config, "holes")
    other = torch.where(inputs["attention_mask"] == 0, 7, inputs["input_ids"])
    with torch.no_grad():
        found, expected = mine(**{**inputs, "input_ids": other}), mine(**inputs)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)


def test_another_eps_would_be_seen(kernels: str, make_pair: Any, make_inputs: Any) -> None:
    """The guard for layer_norm_eps: states of so little variance that 1e-5 instead of 1e-12 moves them."""
    mine, theirs = make_pair(4)
    for model in (mine, theirs):
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "_embeddings" in name:
                    parameter.mul_(1e-3)
    inputs = make_inputs(4, theirs.config, "right")
    assert largest_difference(mine, theirs, inputs) <= TOLERANCE
    norms = [module for module in mine.modules() if isinstance(module, LayerNorm)]
    assert len(norms) == 1 + 2 * theirs.config.num_hidden_layers
    for norm in norms:
        assert norm.eps == 1e-12
        norm.eps = 1e-5  # the mutant
    assert largest_difference(mine, theirs, inputs) > 1e-2


@pytest.mark.parametrize("mask", MASKS)
def test_pretraining_heads(kernels: str, make_pair: Any, make_inputs: Any, mask: str) -> None:
    for seed in range(2):
        mine, theirs = make_pair(seed, heads=True)
        inputs = make_inputs(seed, theirs.config, mask)
        kept = kept_of(inputs)
        with torch.no_grad():
            found, expected = mine(**inputs), theirs(**inputs)
        assert found.prediction_logits.shape == expected.prediction_logits.shape
        difference = (found.prediction_logits - expected.prediction_logits)[kept].abs().max()
        assert difference <= TOLERANCE
        difference = (found.seq_relationship_logits - expected.seq_relationship_logits).abs().max()
        assert difference <= TOLERANCE


def test_the_prediction_head_is_tied_to_the_embeddings(make_pair: Any, make_inputs: Any) -> None:
    mine, theirs = make_pair(0, heads=True)
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
    inputs = make_inputs(0, theirs.config, "none")
    with torch.no_grad():
        before = mine(**inputs).prediction_logits
        mine.bert.embeddings.word_embeddings.weight[49] += 1
        moved = mine(**inputs).prediction_logits != before
    assert moved[..., 49].any()


# Refusals


def tiny_model() -> BertModel:
    config = BertConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=6,
    )
    return BertModel(config).eval()


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
@pytest.mark.parametrize("row", [[0, 0, 0], [0, 1, 1]], ids=["fully masked", "first token masked"])
def test_a_row_without_its_first_token_is_refused(kernels: str, row: list[int], kind: torch.dtype) -> None:
    mask = torch.tensor([[1, 1, 0], row], dtype=kind)
    with pytest.raises(ValueError, match="attention_mask: .* got row 1 "):
        tiny_model()(torch.ones(2, 3, dtype=torch.int64), mask)


IDS = torch.ones(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": IDS * 10}, "input_ids.* 10"),
        ({"input_ids": -IDS}, "input_ids.* -1"),
        ({"input_ids": IDS[0]}, r"input_ids.*\(3,\)"),
        ({"input_ids": IDS.float()}, "input_ids.*float32"),
        ({"input_ids": IDS.repeat(1, 3)}, "input_ids.*at most 6 .*got 9"),
        ({"input_ids": IDS[:0]}, r"input_ids.*\(0, 3\)"),
        ({"input_ids": IDS, "token_type_ids": 2 * IDS}, "token_type_ids.* 2"),
        ({"input_ids": IDS, "token_type_ids": IDS[:, :2]}, r"token_type_ids.*\(2, 2\)"),
        ({"input_ids": IDS, "attention_mask": IDS[:1]}, r"attention_mask.*\(1, 3\)"),
        ({"input_ids": IDS, "attention_mask": 2 * IDS}, "attention_mask.* 2"),
    ],
)
def test_bad_arguments_are_named(inputs: Inputs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model()(**inputs)
