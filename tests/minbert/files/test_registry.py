"""Names of weights, and the cache that they are fetched into once."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minbert.errors import WeightsError
from minbert.files import registry
from minbert.files.registry import is_safe_url, resolve

ROOT = Path(registry.__file__).parents[2]


def test_a_folder_is_returned_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must hold config\.json, found none"):
        resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["bert", "a/b/c", "../x", "/nowhere/at all", "own er/x", "a/..", "a--b/c"])
def test_a_name_that_is_not_known_is_refused_with_those_that_are(name: str, cache: Path) -> None:
    with pytest.raises(WeightsError, match="all-minilm-l6-v2, all-mpnet-base-v2, bert-base-uncased, ") as caught:
        resolve(name)
    assert repr(name) in str(caught.value)
    assert not cache.exists()


def test_only_https_and_this_machine_are_asked(
    fetched: Callable[[], list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(map(is_safe_url, ["https://hub.example", "http://localhost:1", "http://127.0.0.1", "http://[::1]:8"]))
    bad = [
        "http://hub.example",
        "ftp://localhost",
        "https://",
        "http://127.0.0.1.example",
        "file:///x",
        "http://[x",
    ]
    assert not any(map(is_safe_url, bad))
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(WeightsError, match=r"HF_ENDPOINT must be an https address, .*, got 'http://hub\.example'"):
        resolve("owner/tiny")
    assert fetched() == []


def test_a_known_name_and_its_hub_id_are_one(known: Callable[[bytes], None], hub: Any, cache: Path) -> None:
    known(hub.files["model.safetensors"])
    folder = resolve("all-minilm-l6-v2", progress=False)
    asked = len(hub.log)
    assert resolve("sentence-transformers/all-MiniLM-L6-v2") == folder
    assert len(hub.log) == asked


def test_a_damaged_cache_is_an_error(hub: Any, cache: Path) -> None:
    folder = resolve("owner/tiny", progress=False)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(
        WeightsError, match=r"model\.safetensors: must have 10240 bytes, as fetched, got 3 bytes; remove"
    ):
        resolve("owner/tiny")
    (folder / "model.safetensors").write_bytes(hub.files["model.safetensors"])
    assert resolve("owner/tiny") == folder
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"vocab\.txt: must have 6 bytes, as fetched, got no file; remove"):
        resolve("owner/tiny")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"must hold config\.json"):
        resolve("owner/tiny")


def test_files_copied_into_the_cache_are_checked(known: Callable[[bytes], None], cache: Path) -> None:
    folder = cache / "all-minilm-l6-v2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(WeightsError, match="SHA-256"):
        resolve("all-minilm-l6-v2")
    known(b"weights")
    assert resolve("all-minilm-l6-v2") == folder


def test_two_processes_fetch_once(hub: Any, cache: Path) -> None:
    hub.delay = 0.2
    code = "from minbert.files.registry import resolve; print(resolve('owner/tiny'))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in running]
    assert outputs == [str(cache / "owner--tiny")] * 2
    assert len(hub.asked("model.safetensors")) == 1


def test_a_cache_that_can_not_be_written_is_an_error(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cache of weights can't be used"):
        resolve("owner/tiny", cache_dir=tmp_path / "file" / "cache")
