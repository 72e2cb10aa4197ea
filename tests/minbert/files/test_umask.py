"""Files follow the umask, so that a colleague can read what was saved or fetched where that is wanted."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minbert import BertForPreTraining, BertModel, BertTokenizer
from minbert.files.registry import resolve
from minbert.files.storage import write_json

CheckModes = Callable[[Path], None]


def test_what_is_saved(check_modes: CheckModes, tiny_weights: Path, tmp_path: Path) -> None:
    for kind in (BertModel, BertForPreTraining):
        kind.from_pretrained(tiny_weights).save_pretrained(tmp_path / kind.__name__)
    BertTokenizer.from_pretrained(tiny_weights).save_pretrained(tmp_path / "tokenizer")
    write_json(tmp_path / "some.json", {})
    check_modes(tmp_path)


def test_a_file_that_is_replaced(check_modes: CheckModes, tiny_weights: Path, tmp_path: Path) -> None:
    """As an older version left its weights, readable by their owner alone."""
    (tmp_path / "model.safetensors").touch(0o600)
    BertModel.from_pretrained(tiny_weights).save_pretrained(tmp_path)
    check_modes(tmp_path)


def test_what_a_killed_process_left_is_replaced(check_modes: CheckModes, tmp_path: Path) -> None:
    (tmp_path / f".some.json.{os.getpid()}-{threading.get_ident()}.part").touch(0o600)
    write_json(tmp_path / "some.json", {})
    check_modes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]


def test_weights_from_the_hub(check_modes: CheckModes, hub: Any, cache: Path) -> None:
    resolve("owner/tiny", progress=False)
    check_modes(cache)


def test_weights_from_a_wheel(
    check_modes: CheckModes,
    cache: Path,
    known: Callable[[bytes], None],
    write_wheel: Callable[[bytes], None],
) -> None:
    write_wheel(b"weights")
    known(b"weights")
    resolve("all-minilm-l6-v2", progress=False)
    check_modes(cache)
