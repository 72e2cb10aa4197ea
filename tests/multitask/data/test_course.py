"""Fetching the course's files from a loopback server, with made-up rows in their place."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask.data import course
from multitask.data.course import blob_hash, cut_quora, fetch_data
from multitask.errors import DataError

NAMES = [*course.SINGLES, *course.QUORA]
HEADER = "\tid\tsentence1\tsentence2\tis_duplicate"


def made_up_quora(rows: int) -> str:
    lines = [f'{i}\t{i:025x}\t"Is ""{i}"" odd?"\tWhat is {i}?\t{float(i % 2)}' for i in range(rows)]
    return "\n".join([HEADER, *lines, ""])


@pytest.fixture
def server(loopback: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The loopback server with made-up files, whose hashes stand in for those of the course's."""
    loopback.files |= {name: f"\tid\ttext\n0\t{name}\tmade up\n".encode() * 50 for name in NAMES}
    loopback.files["quora-dev.csv"] = made_up_quora(20).encode()
    hashes = {name: blob_hash(content) for name, content in loopback.files.items()}
    small = cut_quora(made_up_quora(20), train=12, dev=4)
    monkeypatch.setattr(course, "SINGLES", {name: hashes[name] for name in course.SINGLES})
    monkeypatch.setattr(course, "QUORA", {name: hashes[name] for name in course.QUORA})
    monkeypatch.setattr(course, "SMALL_QUORA", {name: blob_hash(text.encode()) for name, text in small.items()})
    monkeypatch.setattr(course, "PAUSE", 0.01)
    monkeypatch.setenv("MINBERT_DATA_URL", f"{loopback.url}/data")
    return loopback


def data_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.lock")


def test_git_prints_the_same_hash() -> None:
    assert blob_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_hash(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_all_nine_files_come_and_come_once(server: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = fetch_data(tmp_path / "data", progress=False)
    assert data_files(folder) == sorted(NAMES)
    assert all((folder / name).read_bytes() == server.files[name] for name in NAMES)
    asked = len(server.log)
    assert asked == len(NAMES)
    fetch_data(folder)
    assert len(server.log) == asked
    assert capfd.readouterr() == ("", "")


def test_files_follow_the_umask(
    check_modes: Callable[[Path], None], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut_quora, "__kwdefaults__", {"train": 12, "dev": 4})
    for quora in ("full", "small"):
        fetch_data(tmp_path / quora, quora=quora, progress=False)
    check_modes(tmp_path)


def test_the_argument_goes_before_the_variable(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINBERT_DATA_URL", "https://nowhere.invalid")
    fetch_data(tmp_path, base_url=f"{server.url}/data/")
    out, err = capfd.readouterr()
    assert out == ""
    assert "sts-dev.csv: 100%" in err


def test_a_file_with_another_hash_is_replaced(server: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sts-dev.csv").write_bytes(server.files["sts-dev.csv"][:-1])
    (tmp_path / "sts-train.csv").write_bytes(server.files["sts-train.csv"])
    fetch_data(tmp_path, progress=False)
    assert (tmp_path / "sts-dev.csv").read_bytes() == server.files["sts-dev.csv"]
    assert server.asked("sts-train.csv") == []
    assert "sts-dev.csv: not the course's file" in capfd.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_broke(ranges: bool, server: Any, tmp_path: Path) -> None:
    server.ranges = ranges
    server.breaks["sts-train.csv"] = [100, 70]
    fetch_data(tmp_path, progress=False)
    assert server.asked("sts-train.csv") == [None, "bytes=100-", "bytes=170-" if ranges else "bytes=70-"]
    assert (tmp_path / "sts-train.csv").read_bytes() == server.files["sts-train.csv"]


def test_the_next_call_resumes_what_stayed_broken(server: Any, tmp_path: Path) -> None:
    server.breaks["sts-train.csv"] = [100, 0, 0, 0]
    with pytest.raises(DataError, match=r"sts-train\.csv can't be fetched .the connection broke off.*copy") as caught:
        fetch_data(tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    assert "sts-train.csv" not in data_files(tmp_path)
    server.log.clear()
    fetch_data(tmp_path, progress=False)
    assert server.asked("sts-train.csv") == ["bytes=100-"]
    assert data_files(tmp_path) == sorted(NAMES)


@pytest.mark.parametrize("left", [b"x" * 10, b"x" * 100_000])
def test_what_is_not_a_beginning_is_not_gone_on_with(left: bytes, server: Any, tmp_path: Path) -> None:
    (tmp_path / ".sts-dev.csv.part").write_bytes(left)
    fetch_data(tmp_path, progress=False)
    assert (tmp_path / "sts-dev.csv").read_bytes() == server.files["sts-dev.csv"]


def test_a_wrong_hash_names_file_and_both_hashes(server: Any, tmp_path: Path) -> None:
    wanted = blob_hash(server.files["sts-dev.csv"])
    server.files["sts-dev.csv"] = b"<html>log in to the network</html>"
    found = blob_hash(server.files["sts-dev.csv"])
    with pytest.raises(DataError, match=f"sts-dev.csv from {server.url}/data/sts-dev.csv.*{wanted}, got {found}"):
        fetch_data(tmp_path, progress=False)
    assert not list(tmp_path.glob("*sts-dev*"))
    assert not (tmp_path / ".sts-dev.csv.part").exists()


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, course.ATTEMPTS)])
def test_an_answer_without_the_file_is_an_error(status: int, tries: int, server: Any, tmp_path: Path) -> None:
    server.replies["/data/ids-sst-dev.csv"] = (status, b"", {})
    with pytest.raises(DataError, match=f"ids-sst-dev.csv can't be fetched .the server answers {status}"):
        fetch_data(tmp_path, progress=False)
    assert len(server.asked("ids-sst-dev.csv")) == tries


def test_redirects_are_followed_to_safe_addresses_only(server: Any, tmp_path: Path) -> None:
    elsewhere = f"http://localhost:{server.server_port}/elsewhere/sts-dev.csv"
    server.replies["/data/sts-dev.csv"] = (302, b"", {"Location": elsewhere})
    fetch_data(tmp_path / "good", progress=False)
    assert (tmp_path / "good" / "sts-dev.csv").read_bytes() == server.files["sts-dev.csv"]
    server.replies["/data/sts-dev.csv"] = (302, b"", {"Location": "http://elsewhere.example/sts-dev.csv"})
    with pytest.raises(
        DataError, match="must redirect to https or this machine, got http://elsewhere.example/sts-dev.csv"
    ):
        fetch_data(tmp_path / "bad", progress=False)


def test_bad_arguments_and_places_are_one_sentence(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="quora must be 'full' or 'small', got 'tiny'"):
        fetch_data(tmp_path, quora="tiny")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"must be https, .* got 'http://data\.example'"):
        fetch_data(tmp_path, base_url="http://data.example")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="can't be written there"):
        fetch_data(tmp_path / "file" / "data")
    with pytest.raises(DataError, match="can't be fetched"):
        fetch_data(tmp_path / "data", base_url="http://127.0.0.1:9", progress=False)


# --- the small Quora split


def test_the_cut_is_the_rule() -> None:
    text = made_up_quora(20)
    parts = cut_quora(text, train=12, dev=4)
    rows = {name: part.splitlines() for name, part in parts.items()}
    assert [len(part) - 1 for part in rows.values()] == [12, 4, 4]
    assert [part[0] for part in rows.values()] == [HEADER, HEADER, HEADER.removesuffix("\tis_duplicate")]
    order = list(range(20))
    random.Random(20261122).shuffle(order)
    lines = text.splitlines()[1:]
    assert rows["quora-train.csv"][1:] == [lines[i] for i in order[:12]]
    assert rows["quora-dev.csv"][1:] == [lines[i] for i in order[12:16]]
    assert rows["quora-test-student.csv"][1:] == [lines[i].rpartition("\t")[0] for i in order[16:]]
    assert order == [11, 3, 9, 4, 13, 5, 15, 8, 17, 19, 2, 14, 6, 10, 0, 1, 12, 7, 16, 18]
    assert all(part.endswith("\n") for part in parts.values())
    with pytest.raises(DataError, match="must have more than 16 rows for the small split, got 16"):
        cut_quora(made_up_quora(16), train=12, dev=4)


def test_small_cuts_the_course_s_dev_file(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_quora, "__kwdefaults__", {"train": 12, "dev": 4})
    folder = fetch_data(tmp_path, quora="small", progress=False)
    expected = cut_quora(made_up_quora(20))
    assert {name: (folder / name).read_bytes().decode() for name in expected} == expected
    assert (folder / "source" / "quora-dev.csv").read_bytes() == server.files["quora-dev.csv"]
    assert data_files(folder) == sorted([*NAMES, "source"])
    assert server.asked("quora-train.csv") == []
    asked = len(server.log)
    (folder / "quora-dev.csv").unlink()
    fetch_data(folder, quora="small", progress=False)
    assert (folder / "quora-dev.csv").is_file()
    assert len(server.log) == asked


def test_a_cut_with_another_hash_is_an_error(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cut_quora, "__kwdefaults__", {"train": 11, "dev": 5})
    with pytest.raises(DataError, match=r"quora-train\.csv cut from .*must have the git hash .*, got "):
        fetch_data(tmp_path, quora="small", progress=False)
    assert not (tmp_path / "quora-train.csv").exists()


REAL = os.environ.get("MINBERT_DATA")


@pytest.mark.skipif(not REAL, reason="MINBERT_DATA does not name the folder of the real data")
def test_the_given_files_are_those_of_the_tables() -> None:
    """The real files have the hashes of the tables; in the course's order they are cut as given."""
    folder = Path(REAL or "")
    table = course.SINGLES | course.SMALL_QUORA  # type: ignore[operator]
    contents = {name: (folder / name).read_bytes() for name in table}
    hashes = {name: blob_hash(content) for name, content in contents.items()}
    if hashes["quora-train.csv"] == course.QUORA["quora-train.csv"]:
        pytest.skip("MINBERT_DATA holds the course's full Quora files")
    assert hashes == table
    given = [contents[name].decode().removesuffix("\n").split("\n") for name in course.SMALL_QUORA]
    shuffled = [*given[0][1:], *given[1][1:], *(line + "\t?" for line in given[2][1:])]
    order = list(range(len(shuffled)))
    random.Random(20261122).shuffle(order)
    original = [line for _, line in sorted(zip(order, shuffled, strict=True))]
    parts = cut_quora("\n".join([given[0][0], *original, ""]))
    assert {name: part.encode() for name, part in parts.items()} == {name: contents[name] for name in parts}
