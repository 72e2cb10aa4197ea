"""Steps, the loss on rows held out, and what a new head starts as."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from minbert import BertForMaskedLM, BertModel, BertTokenizer
from minbert.optim import AdamW, parameter_groups
from multitask import PretrainConfig, RunError
from multitask.pretraining.masks import Masker
from multitask.pretraining.rows import Rows, build_rows
from multitask.pretraining.start import load_model, load_tokenizer, start_head
from multitask.pretraining.steps import Trainer, masked_logits, score, with_fixed_masks

SETTINGS = PretrainConfig(epochs=2, batch_size=16, lr=1e-2, warmup=0.0, dropout=0.0)


@pytest.fixture
def rows(sentences: list[str], tokenizer: BertTokenizer, masker: Masker) -> Rows:
    """The sentences' rows."""
    return build_rows(sentences, tokenizer, masker, 64)


@pytest.fixture
def trainer(rows: Rows, masker: Masker, tiny_weights: Path) -> Trainer:
    """A training of the tiny encoder, without dropout, in float64."""
    model, _ = load_model(tiny_weights, 0.0)
    return Trainer(model.double(), rows, masker, SETTINGS, torch.float32)


def test_logits_are_those_of_the_chosen_tokens(kernels: str, rows: Rows, masker: Masker, tiny_weights: Path) -> None:
    model = BertForMaskedLM.from_pretrained(tiny_weights)
    batch = masker(rows.batch(np.arange(20)), np.random.default_rng(0))
    with torch.no_grad():
        whole = model(**batch.tokens).flatten(0, 1)
        assert (masked_logits(model, batch) - whole[batch.places]).abs().max() <= 1e-5


def test_only_chosen_tokens_reach_the_vocabulary(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, counts = trainer.model.predict_tokens, []

    def counting(hidden: Tensor) -> Tensor:
        counts.append(len(hidden))
        return predict(hidden)

    monkeypatch.setattr(trainer.model, "predict_tokens", counting)
    done = trainer.step(0, 1)
    assert counts == [done.masked]
    assert done.masked < 0.25 * trainer.rows.lengths[trainer.order.rows(0, 1)].sum()


def test_a_step_is_adamw_on_the_mean_cross_entropy(
    kernels: str, trainer: Trainer, rows: Rows, masker: Masker, tiny_weights: Path
) -> None:
    other, _ = load_model(tiny_weights, 0.0)
    other.double().train()
    optimizer = AdamW(parameter_groups(other, SETTINGS.lr, SETTINGS.weight_decay), eps=SETTINGS.eps)
    for step in range(3):
        indices = trainer.order.rows(0, step)
        batch = masker(rows.batch(indices), np.random.default_rng((SETTINGS.seed, 3, 0, step)))
        loss = cross_entropy(other(**batch.tokens).flatten(0, 1)[batch.places], batch.targets)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS.lr * (1 - step / (2 * trainer.order.steps))
        optimizer.step()
        optimizer.zero_grad()
        done = trainer.step(0, step)
        assert done.loss == pytest.approx(loss.item(), rel=1e-5)
        assert (done.number, done.rows, done.masked) == (step + 1, len(indices), len(batch.targets))
    for (name, mine), (_, theirs) in zip(trainer.model.named_parameters(), other.named_parameters(), strict=True):
        assert (mine - theirs).abs().max() <= 1e-4, name


def test_masks_of_a_step_change_from_epoch_to_epoch(trainer: Trainer) -> None:
    assert trainer.step(0, 0).loss != trainer.step(1, 0).loss


def test_held_out_masks_are_fixed_and_the_score_is_theirs(rows: Rows, masker: Masker, tiny_weights: Path) -> None:
    model = BertForMaskedLM.from_pretrained(tiny_weights)
    one, same, other = (with_fixed_masks(rows, masker, seed) for seed in (1, 1, 2))
    found = score(model.train(), one, torch.float32)
    assert found == score(model, same, torch.float32) != score(model, other, torch.float32)
    losses, right = [], []
    with torch.no_grad():
        for batch in one:
            logits = model(**batch.tokens).flatten(0, 1)[batch.places]
            losses += cross_entropy(logits, batch.targets, reduction="none").tolist()
            right += (logits.argmax(1) == batch.targets).tolist()
    assert found.n == len(losses)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert replace(found, loss=1000.0).perplexity == math.inf


def test_a_loss_that_is_not_finite_stops_before_the_step(trainer: Trainer) -> None:
    with torch.no_grad():
        trainer.model.prediction_bias[3] = math.nan
    before = trainer.model.transform.weight.clone()
    with pytest.raises(RunError, match=r"^step 1: the loss is nan; lower the learning rate \(0.01\)$"):
        trainer.step(0, 0)
    assert trainer.model.transform.weight.equal(before)


def test_a_new_head_compares_normed_states_with_the_words(
    tiny_weights: Path, rows: Rows, masker: Masker, tmp_path: Path
) -> None:
    BertModel.from_pretrained(tiny_weights, warn=False).save_pretrained(tmp_path)
    load_tokenizer(tiny_weights).save_pretrained(tmp_path)
    model, own_head = load_model(tmp_path, None)
    assert not own_head
    ids = rows.tokens.input_ids
    start_head(model, ids)
    hidden = 0.3 * torch.randn(50, model.config.hidden_size)
    words = model.bert.embeddings.word_embeddings.weight
    normed = torch.nn.functional.layer_norm(hidden, hidden.shape[1:])
    frequency = torch.tensor([(ids == number).sum() + 1.0 for number in range(len(words))])
    expected = normed @ words.T + (frequency / frequency.sum()).log()
    with torch.no_grad():
        assert (model.predict_tokens(hidden) - expected).abs().max() < 0.1
    own, has_own = load_model(tiny_weights, 0.3)
    assert has_own
    assert own.config.hidden_dropout_prob == 0.3
