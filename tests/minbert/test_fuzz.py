"""Whatever is put in: an answer that holds together, or one of the package's own errors."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from minbert.errors import MinbertError
from minbert.model import BertModel
from minbert.packing import Packing
from minbert.tokenizer import BertTokenizer

Fuzz = Callable[..., None]
Attempt = Callable[[Callable[[], Any]], tuple[Any, str]]

TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),
    st.lists(
        st.sampled_from(
            ["the", "a film", "[SEP]", "\0", "\u202e", "🙂", "e\u0301", "ﷺ", "\ud800", "\t\r\n", "x" * 300]
        ),
        max_size=6,
    ).map(" ".join),
    st.sampled_from([None, 3, b"bytes", float("nan")]),
)


def test_tokenizer(fuzz: Fuzz, attempt: Attempt, tiny_weights: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(tiny_weights)

    def check(rows: list[tuple[Any, Any]], as_pairs: bool, limit: Any, truncation: Any, padding: Any) -> None:
        texts, pairs = [row[0] for row in rows], [row[1] for row in rows] if as_pairs else None
        batch, _ = attempt(lambda: tokenizer(texts, pairs, max_length=limit, truncation=truncation, padding=padding))
        if batch is None:
            return
        lengths = batch.attention_mask.sum(1)
        assert batch.input_ids.shape == batch.token_type_ids.shape == batch.attention_mask.shape
        assert len(batch.input_ids) == len(rows)
        if rows:
            assert int(batch.input_ids.max()) < tokenizer.vocab_size
            assert int(lengths.min()) >= 2
            assert batch.attention_mask[:, 0].all()
        if truncation and truncation != "do_not_truncate":
            assert all(length <= (limit or tokenizer.model_max_length) for length in lengths.tolist())

    fuzz(
        check,
        st.lists(st.tuples(TEXTS, TEXTS), max_size=5),
        st.booleans(),
        st.sampled_from([None, -1, 0, 2, 3, 4, 12, 10**30, "12", True]),
        st.sampled_from([True, False, "longest_first", "only_first", "only_second", "do_not_truncate", "all", None]),
        st.sampled_from([True, False, "longest", "max_length", "do_not_pad", "left", None]),
    )


def test_packing_goes_there_and_back(fuzz: Fuzz) -> None:
    def check(rows: int, width: int, seed: int, density: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(rows, width, generator=generator) < density
        mask[:, 0] = True
        packing = Packing(mask)
        values = torch.rand(rows, width, 24, generator=generator)
        packed = packing.pack(values)
        assert len(packed) == packing.tokens == int(mask.sum()) < packing.slots
        assert packing.unpack(packed).equal(values * mask[:, :, None])
        assert packed[packing.first_tokens].equal(values[:, 0])
        assert sum(group.rows for group in packing.groups) == rows
        assert [length for group in packing.groups for length in group.real.sum(1).tolist()] == sorted(
            mask.sum(1).tolist(), reverse=True
        )
        index = packing.head_index(3, 2)
        spread = packing.fill(packed).view(-1, 4).index_select(0, index.into)
        assert spread.index_select(0, index.back).view(-1, 24)[: packing.tokens].equal(packed)

    fuzz(check, st.integers(1, 40), st.integers(1, 300), st.integers(0, 2**32), st.floats(0, 1))


INTEGERS = st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32, torch.int16])
SHAPES = st.lists(st.integers(0, 6), min_size=0, max_size=3)


@st.composite
def tensors(draw: st.DrawFn, low: int, high: int) -> Any:
    """A tensor as a caller may come up with it, or something that is none."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.sampled_from([None, [[1, 2]], 5, torch.empty(0), torch.ones(1, 600, dtype=torch.int64)]))
    shape, dtype = draw(SHAPES), draw(INTEGERS)
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))).to(dtype)


@st.composite
def model_inputs(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly of one shape, so that what is wrong is one thing at a time."""
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    inputs: dict[str, Any] = {
        "input_ids": torch.randint(0, 100, (rows, width), generator=generator),
        "attention_mask": (torch.rand(rows, width, generator=generator) < 0.8).long(),
        "token_type_ids": torch.randint(0, 2, (rows, width), generator=generator),
    }
    if draw(st.booleans()):
        inputs["attention_mask"][:, 0] = 1
    for name in draw(st.lists(st.sampled_from(sorted(inputs)), max_size=1)):
        inputs[name] = draw(tensors(-1, 3) if name != "input_ids" else tensors(-3, 120))
    return inputs


def test_model(fuzz: Fuzz, attempt: Attempt, tiny_weights: Path) -> None:
    model = BertModel.from_pretrained(tiny_weights)

    def check(inputs: dict[str, Any]) -> None:
        with torch.inference_mode():
            output, message = attempt(lambda: model(**inputs))
        if output is None:
            assert message.startswith(tuple(inputs))
            return
        assert output.last_hidden_state.isfinite().all()
        assert output.pooler_output.isfinite().all()

    fuzz(check, model_inputs())


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def spoiled_json(draw: st.DrawFn, content: Any) -> Any:
    """The content with one value somewhere in it replaced, removed or added."""
    if isinstance(content, dict) and content and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(content)))
        kind = draw(st.sampled_from(["inner", "inner", "remove", "add"]))
        if kind == "remove":
            return {name: value for name, value in content.items() if name != key}
        if kind == "add":
            return {**content, draw(st.text(max_size=8)): draw(JSON)}
        return {**content, key: draw(spoiled_json(content[key]))}
    if isinstance(content, list) and content and draw(st.booleans()):
        place = draw(st.integers(0, len(content) - 1))
        return [*content[:place], draw(spoiled_json(content[place])), *content[place + 1 :]]
    return draw(JSON)


@st.composite
def spoiled_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """A file of tensors cut, overwritten, or with another header."""
    kind = draw(st.sampled_from(["cut", "overwrite", "header", "noise", "longer"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if kind == "noise":
        return draw(st.binary(max_size=64))
    if kind == "longer":
        return content + draw(st.binary(min_size=1, max_size=9))
    length = struct.unpack("<Q", content[:8])[0]
    if kind == "header":
        header = json.dumps(draw(spoiled_json(json.loads(content[8 : 8 + length])))).encode()
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    place = draw(st.integers(0, len(content) - 1) | st.integers(0, length + 8))
    new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 64, b"\xff" * 8, b"\x00\x00\xc0\x7f"]))
    return content[:place] + new + content[place + len(new) :]


def test_weights(fuzz: Fuzz, attempt: Attempt, tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    content = (tiny_weights / "model.safetensors").read_bytes()
    config = json.loads((tiny_weights / "config.json").read_text())

    def check(spoiled: bytes | None, settings: Any) -> None:
        (folder / "config.json").write_text(json.dumps(config if spoiled is not None else settings))
        (folder / "model.safetensors").write_bytes(content if spoiled is None else spoiled)
        model, message = attempt(lambda: BertModel.from_pretrained(folder))
        if model is None:
            assert str(folder) in message
            return
        assert all(parameter.isfinite().all() for parameter in model.parameters())

    fuzz(check, st.none() | spoiled_safetensors(content), spoiled_json(config))


@pytest.mark.parametrize("value", [-1, 0, 2**31, 1.5, "8", None, True, [8]])
@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings"])
def test_sizes_that_can_not_be(tiny_weights: Path, tmp_path: Path, key: str, value: Any) -> None:
    config = json.loads((tiny_weights / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, key: value}))
    (tmp_path / "model.safetensors").write_bytes((tiny_weights / "model.safetensors").read_bytes())
    with pytest.raises(MinbertError):
        BertModel.from_pretrained(tmp_path)
