"""Weights and runs whose encoder and tokenizer do not belong together are refused when they are loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minbert import BertTokenizer, WeightsError
from multitask.model.build import build_model
from multitask.run import Run
from multitask.settings.config import RunConfig


def add_token(folder: Path, token_id: int) -> None:
    """Give the tokenizer of a folder tokens up to this id."""
    (folder / "added_tokens.json").unlink(missing_ok=True)
    first = BertTokenizer.from_pretrained(folder).vocab_size
    tokens = {f"<{number}>": number for number in range(first, token_id + 1)}
    (folder / "added_tokens.json").write_text(json.dumps(tokens))


def test_weights_that_do_not_fit_are_refused(
    make_config: Callable[..., RunConfig], tiny_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(tiny_weights, folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    add_token(folder, size - 1)
    build_model(make_config(weights=folder))
    add_token(folder, size)
    with pytest.raises(WeightsError, match=f"vocab_size of {size}, got 1 up to {size}: '<{size}>'"):
        build_model(make_config(weights=folder))


def test_a_run_keeps_its_added_tokens_and_is_refused_without_their_embeddings(
    make_config: Callable[..., RunConfig], tiny_weights: Path, tmp_path: Path
) -> None:
    """What its best/ holds, AutoTokenizer reads to the same ids."""
    weights, best = tmp_path / "weights", tmp_path / "run" / "best"
    shutil.copytree(tiny_weights, weights)
    size = json.loads((weights / "config.json").read_text())["vocab_size"]
    add_token(weights, size - 1)
    config = make_config(weights=weights)
    model, tokenizer = build_model(config)
    model.save_pretrained(best, tokenizer)
    (best.parent / "config.json").write_text(json.dumps(config.to_dict()))
    again = Run.load(best.parent, device="cpu").tokenizer
    text, other = f"not<{size - 1}>good <{size - 1}>", "bad"
    ids: Any = tokenizer([text], [other]).input_ids
    assert (ids == size - 1).sum() == 2
    assert again([text], [other]).input_ids.equal(ids)
    add_token(best, size)
    with pytest.raises(WeightsError, match=f"{best}: .* got 1 up to {size}"):
        Run.load(best.parent, device="cpu")
    (best / "added_tokens.json").unlink()
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    theirs = transformers.AutoTokenizer.from_pretrained(str(best), local_files_only=True)
    assert theirs([text], [other], return_tensors="pt")["input_ids"].equal(ids)
