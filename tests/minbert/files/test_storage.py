"""Files of tensors: whatever is valid safetensors is read, whatever bytes it begins with; all else is explained."""

import json
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from minbert import WeightsError
from minbert.files.storage import read_tensors, write_tensors

# safetensors pads its headers to a multiple of 8. The first bytes of a file are the header's length, and those of
# some lengths also begin a pickle (80 02 to 80 05) or a zip ("PK").
LENGTHS = range(8, 32_768 + 1, 8)
LIKE_A_PICKLE_OR_ZIP = (640, 896, 1152, 1408, 19_280)
PICKLE_OR_ZIP = "must be safetensors, got a pickle or zip, which is never opened here; save it as safetensors instead"
TENSOR = torch.tensor([1.5, -2.25])


def with_header(length: int, values: bytes = TENSOR.numpy().tobytes()) -> bytes:
    """A file whose header has that many bytes; it names the tensor where there is room for the name."""
    entry = {"tensor": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    header = json.dumps(entry, separators=(",", ":")).encode()
    if len(header) > length:
        header, values = b"{}", b""
    return length.to_bytes(8, "little") + header.ljust(length) + values


def header_length(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[:8], "little")


def test_every_length_of_a_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    for length in LENGTHS:
        path.write_bytes(with_header(length))
        assert header_length(path) == length
        tensors = read_tensors(path)
        if length >= 64:
            assert torch.equal(tensors.pop("tensor"), TENSOR), length
        assert not tensors, length


@pytest.mark.parametrize("length", LIKE_A_PICKLE_OR_ZIP)
def test_what_is_written_with_such_a_header_is_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "some.safetensors"
    write_tensors(path, {"tensor": TENSOR}, {"note": ""})
    write_tensors(path, {"tensor": TENSOR}, {"note": "x" * (length - header_length(path))})
    assert header_length(path) == length
    assert torch.equal(read_tensors(path)["tensor"], TENSOR)


@pytest.mark.parametrize("length", LIKE_A_PICKLE_OR_ZIP)
def test_such_a_file_cut_short_is_called_cut_not_a_pickle(tmp_path: Path, length: int) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(with_header(length)[: length // 2])
    with pytest.raises(WeightsError, match=f"must be whole, got a header of {length} bytes in a file of {length // 2}"):
        read_tensors(path)
    path.write_bytes(with_header(length)[:-1])
    with pytest.raises(WeightsError, match="can't be read as safetensors .*; download it again"):
        read_tensors(path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_pickle_is_named(tmp_path: Path, protocol: int, size: int) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(pickle.dumps({"weight": [0.5] * size}, protocol))
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert str(caught.value) == f"{path}: {PICKLE_OR_ZIP}"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("content", [None, b"", b"weights" * 100])
def test_a_zip_is_named(tmp_path: Path, content: bytes | None, compression: int) -> None:
    """Also one whose first bytes, taken for a length, would fit into the file."""
    path = tmp_path / "some.safetensors"
    with zipfile.ZipFile(path, "w", compression) as archive:
        if content is not None:
            archive.writestr("archive/data.pkl", content)
    whole = path.read_bytes()
    for variant in (whole, b"PK" + bytes(6) + b"?" * 20_000):
        path.write_bytes(variant)
        with pytest.raises(WeightsError) as caught:
            read_tensors(path)
        assert str(caught.value) == f"{path}: {PICKLE_OR_ZIP}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must have a safetensors header, got 0 bytes without one; download it again"),
        (b"\x08\0\0\0\0\0\0\0{", "must have a safetensors header, got 9 bytes without one; download it again"),
        (bytes(100), "must have a safetensors header, got 100 bytes without one; download it again"),
        (with_header(64)[:40], "must be whole, got a header of 64 bytes in a file of 40; download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "must be the weights, got a git-lfs pointer; run `git lfs pull`",
        ),
        (b"\x10" + bytes(7) + b"hello" * 10, "can't be read as safetensors (Error while deserializing header"),
    ],
    ids=["empty", "length alone", "zeros", "cut", "git-lfs", "no JSON"],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "some.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    """They took one temporary file from each other, so that most writes failed."""
    path = tmp_path / "some.safetensors"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_tensors(path, {"tensor": torch.full((1000,), float(number))}), range(100)))
    values = read_tensors(path)["tensor"]
    assert len(values) == 1000
    assert len(values.unique()) == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.safetensors: there is no such file"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="can't be read as safetensors"):
        read_tensors(tmp_path)


def test_what_a_file_of_tensors_can_not_hold_is_said(tmp_path: Path) -> None:
    numbers = torch.arange(9.0)
    with pytest.raises(WeightsError, match=r"x: part\._extra_state must be a tensor to be written, got dict$"):
        write_tensors(tmp_path / "x", {"part._extra_state": {"a": 1}})  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match=r"x: can't be written \(Some tensors share memory"):
        write_tensors(tmp_path / "x", {"a": numbers[:6], "b": numbers[3:]})
    assert list(tmp_path.iterdir()) == []
    write_tensors(tmp_path / "x", {"a": numbers[:3], "b": numbers[3:], "c": numbers[:3]})
    assert read_tensors(tmp_path / "x")["c"].tolist() == [0, 1, 2]
