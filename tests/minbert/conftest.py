"""Fixtures of the encoder's tests: both kernels, equal random models here and in `transformers`, inputs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import minbert
from minbert.families.members import MEMBERS, family_of

TINY_SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "initializer_range": 0.2,
}
MakeModel = Callable[..., minbert.BertModel]
MakePair = Callable[..., tuple[Any, Any]]
MakeInputs = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="compares with transformers, which is not installed")


@pytest.fixture(scope="session")
def make_pair(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """A function of a seed and config values: (model here, transformers' model), of equal random weights.

    ``kind`` is a model_type; the values are named as BertConfig names them. Norms, biases and the padding's embedding
    are random too, so that nothing hides behind a one or a zero.
    Both are in eval mode; the one here is read from the files that the other saved.
    """

    def make(seed: int, *, kind: str = "bert", heads: bool = False, **values: Any) -> tuple[Any, Any]:
        values = {**TINY_SIZES, **values}
        name = family_of(kind).architecture.removesuffix("Model")
        by_key = {family_of(kind).keys.get(field, field): value for field, value in values.items()}
        config = getattr(transformers, f"{name}Config")(**by_key, attn_implementation="eager")
        theirs = getattr(transformers, f"{name}ForPreTraining" if heads else f"{name}Model")(config).eval()
        randomise(theirs, seed, values["initializer_range"])
        folder = tmp_path_factory.mktemp("pair")
        theirs.save_pretrained(folder)
        return (minbert.BertForPreTraining if heads else minbert.BertModel).from_pretrained(folder), theirs

    return make


def randomise(model: torch.nn.Module, seed: int, scale: float) -> None:
    """Draws each parameter from a normal distribution, a norm's weight around 1, the others around 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            middle = 1.0 if name.lower().endswith("norm.weight") else 0.0
            parameter.copy_(middle + scale * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(params=MEMBERS)
def kind(request: pytest.FixtureRequest) -> str:
    """Runs the test once for each model_type."""
    name: str = request.param
    return name


@pytest.fixture
def exact_rate(kernels: str) -> Callable[[float], float]:
    """A function of a dropout rate: the rate that is drawn, on the fast path the nearest multiple of 1/256."""
    return (lambda rate: round(256 * rate) / 256) if kernels == "fast" else (lambda rate: rate)


@pytest.fixture
def fast() -> Iterator[None]:
    """Runs the test with the fused functions alone, and puts back what it changes."""
    before = minbert.get_kernels()
    minbert.set_kernels("fast")
    yield
    minbert.set_kernels(before)


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """A function of a seed and config values: a random model in eval mode, without dropout unless told otherwise."""

    def make(seed: int = 0, **values: Any) -> minbert.BertModel:
        rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        fixed = family_of(values.get("model_type", "bert")).fixed
        model = minbert.BertModel(minbert.BertConfig(**{**TINY_SIZES, **rates, **fixed, **values})).eval()
        randomise(model, seed, model.config.initializer_range)
        return model

    return make


@pytest.fixture(scope="session")
def make_inputs() -> MakeInputs:
    return draw_inputs


def draw_inputs(seed: int, config: Any, mask: str, *, batch: int = 11, seq: int = 13) -> dict[str, torch.Tensor]:
    """Random ids, padding's among them, and token types where there are any.

    With a mask, one row is full and one has a single token.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = {"input_ids": torch.randint(config.vocab_size, (batch, seq), generator=generator)}
    if types := getattr(config, "type_vocab_size", 0):
        inputs["token_type_ids"] = torch.randint(types, (batch, seq), generator=generator)
    if mask == "none":
        return inputs
    if mask == "right":
        lengths = torch.randint(1, seq + 1, (batch, 1), generator=generator)
        kept = torch.arange(seq) < lengths
    else:
        kept = torch.rand(batch, seq, generator=generator) < 0.6
    kept[:, 0] = True
    kept[batch // 2] = True
    kept[batch // 3, 1:] = False
    return {**inputs, "attention_mask": kept.long()}
