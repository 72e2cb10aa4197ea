"""Models that somebody has changed: the fast path gives what the formulas give, or one sentence says what is wrong."""

import contextvars
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import minbert
from minbert import BertModel, BertTokenizer, WeightsError, encode
from minbert.fast.casts import hold_casts
from minbert.fast.embedding import SpareGradients
from minbert.layers import ACTIVATIONS

TEXTS = ["a film", "it rains again and again", "one"]


@pytest.fixture
def model(tiny_weights: Path) -> BertModel:
    return BertModel.from_pretrained(tiny_weights)


@pytest.fixture
def tokenizer(tiny_weights: Path) -> BertTokenizer:
    return BertTokenizer.from_pretrained(tiny_weights)


def share_query(model: BertModel) -> None:
    model.layers[1].attention.query = model.layers[0].attention.query


def narrow_query_and_key(model: BertModel) -> None:
    attention = model.layers[0].attention
    attention.query, attention.key = nn.Linear(32, 16), nn.Linear(32, 16)


def own_attend(model: BertModel) -> None:
    attention = model.layers[0].attention
    whole = attention.attend

    def attend(*args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        context, weights = whole(*args, **named)
        return 2 * context, weights

    attention.attend = attend


def replace_word_embeddings(model: BertModel) -> None:
    model.embeddings.word_embeddings = nn.Sequential(model.embeddings.word_embeddings)


CHANGES = [share_query, narrow_query_and_key, own_attend, replace_word_embeddings]


@pytest.mark.parametrize("change", CHANGES)
def test_lists_are_encoded_as_the_formulas_do(
    model: BertModel, tokenizer: BertTokenizer, change: Callable[[BertModel], None]
) -> None:
    before = encode(model, tokenizer, TEXTS)
    change(model)
    found = encode(model, tokenizer, TEXTS)
    with minbert.kernels("reference"):
        expected = encode(model, tokenizer, TEXTS)
    assert (found - expected).abs().max() < 1e-5
    assert change is replace_word_embeddings or (found - before).abs().max() > 1e-3


def test_another_activation_is_computed(
    model: BertModel, tokenizer: BertTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTIVATIONS, "silu", F.silu)
    for layer in model.layers:
        layer.activation = F.silu
    found = encode(model, tokenizer, TEXTS)
    with minbert.kernels("reference"):
        assert (found - encode(model, tokenizer, TEXTS)).abs().max() < 1e-5


def test_an_encode_of_a_subclass_is_called(tiny_weights: Path, tokenizer: BertTokenizer) -> None:
    class Doubled(BertModel):
        def encode(self, *args: Any) -> Any:
            encoded = super().encode(*args)
            encoded.hidden = 2 * encoded.hidden
            return encoded

    plain = encode(BertModel.from_pretrained(tiny_weights), tokenizer, TEXTS)
    assert torch.allclose(encode(Doubled.from_pretrained(tiny_weights), tokenizer, TEXTS), 2 * plain, atol=1e-4)


def test_a_compiled_pretraining_model_has_no_logits_at_padding(tiny_weights: Path, tokenizer: BertTokenizer) -> None:
    model, batch = minbert.BertForPreTraining.from_pretrained(tiny_weights), tokenizer(TEXTS)
    padding = ~batch.attention_mask.bool()
    with torch.no_grad():
        found = torch.compile(model, backend="eager")(**batch).prediction_logits
        assert torch.allclose(found, model(**batch).prediction_logits, atol=1e-4)
    assert not found[padding].any()
    assert padding.any()


def test_an_exported_model_is_saved_and_loaded(model: BertModel, tokenizer: BertTokenizer, tmp_path: Path) -> None:
    batch = dict(tokenizer(TEXTS))
    torch.export.save(torch.export.export(model, (), batch), tmp_path / "model.pt2")
    with torch.no_grad():
        found = torch.export.load(tmp_path / "model.pt2").module()(**batch).last_hidden_state
        assert torch.allclose(found, model(**batch).last_hidden_state, atol=1e-5)


def test_a_backward_pass_within_autocast_follows_its_forward_pass(model: BertModel, tokenizer: BertTokenizer) -> None:
    batch, found = tokenizer(TEXTS), []
    for within in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            with torch.autocast("cpu", enabled=False):
                loss = model(**batch).packed.square().sum()
            loss.backward()
        found.append(model.layers[0].output.weight.grad)
    assert found[0] is not None
    assert torch.equal(found[0], found[1])


def test_vectors_can_be_trained_on_and_come_from_eval_mode(model: BertModel, tokenizer: BertTokenizer) -> None:
    expected = encode(model, tokenizer, TEXTS)
    model.train()
    vectors = encode(model, tokenizer, TEXTS)
    assert torch.equal(vectors, expected)
    assert model.training
    assert model.layers[0].dropout.training
    head = nn.Linear(32, 1)
    head(vectors).sum().backward()
    assert head.weight.grad is not None


def wrap_output(model: BertModel) -> None:
    model.layers[0].output = nn.Sequential(model.layers[0].output)


def drop_a_layer(model: BertModel) -> None:
    model.layers = model.layers[:1]


@pytest.mark.parametrize(("change", "named"), [(wrap_output, "layers.0.output.weight"), (drop_a_layer, "layers.1.")])
def test_what_nothing_could_load_is_not_saved(
    model: BertModel, tmp_path: Path, change: Callable[[BertModel], None], named: str
) -> None:
    change(model)
    with pytest.raises(WeightsError, match=f"must have the tensors of its config to be saved, got .*{named}"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_tied_parts_are_saved_as_two(model: BertModel, tokenizer: BertTokenizer, tmp_path: Path) -> None:
    share_query(model)
    model.save_pretrained(tmp_path)
    again = BertModel.from_pretrained(tmp_path)
    assert torch.equal(encode(again, tokenizer, TEXTS), encode(model, tokenizer, TEXTS))


def test_a_task_that_outlives_a_block_holds_no_casts(model: BertModel, tokenizer: BertTokenizer) -> None:
    with torch.no_grad():
        with hold_casts():
            model(**tokenizer(TEXTS))
            inner = contextvars.copy_context()
        for parameter in model.parameters():
            parameter.mul_(1.5)
        found = inner.run(lambda: model(**tokenizer(TEXTS)).packed)
        assert torch.equal(found, model(**tokenizer(TEXTS)).packed)


def test_a_gradient_of_32_bit_ids_is_lent_again(model: BertModel, tokenizer: BertTokenizer) -> None:
    spares, weight, ids = SpareGradients(), model.embeddings.word_embeddings.weight, tokenizer(TEXTS).input_ids
    places = set()
    for _ in range(3):
        with spares.lent():
            model(ids.int()).packed.sum().backward()
        assert weight.grad is not None
        places.add(weight.grad.data_ptr())
        spares.drop(weight)
    assert len(places) == 1


def test_vectors_of_other_modules_do_not_decay() -> None:
    module = nn.ModuleDict({"gru": nn.GRU(4, 4), "group": nn.GroupNorm(2, 4), "linear": nn.Linear(4, 4)})
    groups = minbert.parameter_groups(module, 1e-3, 0.1)
    decayed = {part for group in groups if group["weight_decay"] for part in group["params"]}
    names = {name for name, part in module.named_parameters() if part in decayed}
    assert names == {"gru.weight_ih_l0", "gru.weight_hh_l0", "linear.weight"}


def test_a_graph_of_gradients_is_refused_where_it_is_asked_for(model: BertModel, tokenizer: BertTokenizer) -> None:
    """And not given without what the written-out backward passes would have to add to it."""
    loss = model(**tokenizer(TEXTS)).packed.square().sum()
    with pytest.raises(minbert.InputError, match="second derivatives need the reference path"):
        torch.autograd.grad(loss, list(model.parameters()), create_graph=True, allow_unused=True)
