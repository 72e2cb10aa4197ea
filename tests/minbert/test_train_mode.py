"""What eval mode can't show: gradients, whole fine-tuning runs, bfloat16 under autocast."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minbert import AdamW, BertModel, BertTokenizer, linear_schedule

MASKS = ["none", "right", "holes"]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SHAPES: list[dict[str, Any]] = [
    {},
    {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1},
    {"hidden_size": 48, "num_attention_heads": 12, "num_hidden_layers": 4},
    {"kind": "distilbert", "hidden_act": "gelu_new"},
    {"kind": "roberta", "type_vocab_size": 1, "hidden_act": "silu"},
    {"kind": "xlm-roberta", "pad_token_id": 3, "hidden_act": "gelu_pytorch_tanh"},
    {"kind": "camembert", "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1},
    {"kind": "mpnet", "hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3},
]


# Gradients


def training_loss(model: Any, inputs: dict[str, Tensor], seed: int) -> Tensor:
    """A random projection of the hidden states at unmasked positions, and one of the pooler output."""
    output = model(**inputs)
    states = output.last_hidden_state
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(states.shape, generator=generator, dtype=states.dtype)
    tokens = ((states * target).sum(-1) * mask).sum() / mask.sum()
    pooled = getattr(output, "pooler_output", None)  # DistilBERT has none
    if pooled is not None:
        tokens = tokens + (pooled * torch.randn(pooled.shape, generator=generator, dtype=states.dtype)).sum(-1).mean()
    return tokens / states.shape[-1] ** 0.5


def assert_equal_gradients(mine: BertModel, theirs: nn.Module) -> None:
    """Per tensor: the norm of the difference is at most 1e-4 of the norm, with a floor of 1e-7."""
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    to_hub_name = mine.config.family.to_hub_name
    found = {to_hub_name(name): parameter.grad for name, parameter in mine.named_parameters()}
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert gradient is not None, name
        mine_gradient = found[name]
        assert mine_gradient is not None, name
        allowed = max(1e-4 * gradient.norm().item(), 1e-7)
        assert (mine_gradient - gradient).norm().item() <= allowed, name


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_in_train_mode(
    kernels: str, make_pair: Any, make_inputs: Any, shape: dict[str, Any], mask: str
) -> None:
    for seed in range(2):
        mine, theirs = make_pair(seed, **shape, **NO_DROPOUT)
        inputs = make_inputs(seed, theirs.config, mask)
        losses = [training_loss(model.train(), inputs, seed) for model in (mine, theirs)]
        assert abs(losses[0].item() - losses[1].item()) <= 1e-5
        for loss in losses:
            loss.backward()
        assert_equal_gradients(mine, theirs)


def test_gradients_of_all_minilm(kernels: str, transformers: Any, minilm_weights: Path) -> None:
    mine = BertModel.from_pretrained(minilm_weights, dropout=0.0).train()
    theirs = transformers.BertModel.from_pretrained(minilm_weights, attn_implementation="eager", **NO_DROPOUT).train()
    inputs = dict(BertTokenizer.from_pretrained(minilm_weights)(["A dog runs.", "It rains here all year long."]))
    for model in (mine, theirs):
        training_loss(model, inputs, 0).backward()
    assert_equal_gradients(mine, theirs)


def test_gradients_of_a_wrong_backward_would_be_seen(make_pair: Any, make_inputs: Any) -> None:
    mine, theirs = make_pair(0, **NO_DROPOUT)
    inputs = make_inputs(0, theirs.config, "right")
    for model in (mine, theirs):
        training_loss(model.train(), inputs, 0).backward()
    mine.layers[0].attention.query.weight.grad[0, 0] *= 1.1  # the mutant
    with pytest.raises(AssertionError, match="query.weight"):
        assert_equal_gradients(mine, theirs)


def test_every_parameter_gets_a_gradient_and_eval_mode_is_steady(kernels: str, tiny_weights: Path) -> None:
    model = BertModel.from_pretrained(tiny_weights)
    assert not model.training
    inputs = dict(BertTokenizer.from_pretrained(tiny_weights)(["a good film", "not bad"]))
    with torch.no_grad():
        assert torch.equal(model(**inputs).pooler_output, model(**inputs).pooler_output)
        model.train()
        assert not torch.equal(model(**inputs).pooler_output, model(**inputs).pooler_output)
        torch.manual_seed(0)
        first = model(**inputs).pooler_output
        torch.manual_seed(0)
        assert torch.equal(first, model(**inputs).pooler_output)
    training_loss(model, inputs, 0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name


# Fine-tuning


def fine_tune(
    model: nn.Module,
    make_optimizer: Callable[..., torch.optim.Optimizer],
    set_rate: Callable[[torch.optim.Optimizer, int], None],
    make_inputs: Any,
    config: Any,
) -> list[float]:
    """Losses of 50 steps in float64: three classes from the pooler's output and the hidden states' mean."""
    model = model.double().train()
    torch.manual_seed(0)
    head = nn.Linear(2 * config.hidden_size, 3).double()
    decayed = [p for p in [*model.parameters(), *head.parameters()] if p.dim() > 1]
    others = [p for p in [*model.parameters(), *head.parameters()] if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = make_optimizer(groups, lr=2e-3, eps=1e-6)
    losses = []
    for step in range(50):
        inputs = make_inputs(step, config, MASKS[step % 3], batch=8)
        labels = inputs["input_ids"][:, 1] % 3
        output = model(**inputs)
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))[..., None]
        mean = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
        loss = nn.functional.cross_entropy(head(torch.cat([output.pooler_output, mean], 1)), labels)
        optimizer.zero_grad()
        loss.backward()
        set_rate(optimizer, step)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_fifty_steps_give_the_losses_of_transformers_and_torch(
    kernels: str, transformers: Any, make_pair: Any, make_inputs: Any
) -> None:
    mine, theirs = make_pair(7, **NO_DROPOUT)

    def my_rate(optimizer: torch.optim.Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * linear_schedule(step, 50, 5)

    schedulers: list[Any] = []

    def their_rate(optimizer: torch.optim.Optimizer, step: int) -> None:
        if step == 0:
            schedulers.append(transformers.get_linear_schedule_with_warmup(optimizer, 5, 50))
        else:
            schedulers[0].step()

    found = fine_tune(mine, AdamW, my_rate, make_inputs, theirs.config)
    expected = fine_tune(theirs, torch.optim.AdamW, their_rate, make_inputs, theirs.config)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1e-6
    assert max(found) - min(found) > 0.2  # the runs went somewhere


# bfloat16


def test_autocast_runs_in_bfloat16_with_float32_parameters(kernels: str, tiny_weights: Path) -> None:
    model = BertModel.from_pretrained(tiny_weights, dropout=0.0).train()
    inputs = dict(BertTokenizer.from_pretrained(tiny_weights)(["a good film", "not a bad story"]))
    gradients = []
    states = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = model(**inputs)
        states.append(output.last_hidden_state.float())
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = training_loss(model, inputs, 0)
        loss.backward()
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert not torch.equal(states[0], states[1])
    assert (states[0] - states[1]).abs().max() < 0.15
    assert gradients[1].dtype == torch.float32
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99
