"""What a file is, by its first bytes and never by its name: text, gzip of it, parquet, Excel, or none of these."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from multitask.errors import DataError

__all__ = ["MARKS", "Opened", "opened", "opened_stream"]

GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"
PARQUET = b"PAR1"
# Byte-order marks; UTF-32's begins like UTF-16's.
MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8",
}
# What is often mistaken for a table, as the end of "x is ...".
KNOWN = {
    b"%PDF-": "a PDF",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel file (.xls) or another old Office file; save it as .xlsx or CSV",
    **{bytes([0x80, protocol]): "a pickle, which is never opened" for protocol in (2, 3, 4, 5)},
    b"SQLite format 3\x00": "an SQLite database",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"ORC": "an ORC file; save it as parquet",
    b"BZh": "compressed by bzip2; of compressed files only gzip's are read",
    b"\xfd7zXZ\x00": "compressed by xz; of compressed files only gzip's are read",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; of compressed files only gzip's are read",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x93NUMPY": "a numpy array",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x7fELF": "a program",
    b"{\\rtf": "a rich text document (.rtf)",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; run `git lfs pull`",
}
PAGES = (b"<!doctype html", b"<html")
INSIDE_ZIPS = {
    "xl/workbook.bin": "a binary Excel file (.xlsb); save it as .xlsx or CSV",
    "word/document.xml": "a Word document",
    "ppt/presentation.xml": "a PowerPoint document",
    "content.xml": "an OpenDocument file; save it as .xlsx or CSV",
}
READABLE = "CSV, TSV, JSON, parquet, an Excel sheet or plain text"
LOOK = 512


@dataclass(frozen=True)
class Opened:
    """An open file.

    :param stream: its bytes, decompressed.
    :param what: "text", "parquet" or "excel".
    :param compression: "gzip" or "".
    """

    stream: IO[bytes]
    what: str
    compression: str


def _something_else(first: bytes) -> str:
    """Return what is told by a file's first bytes and can't be read, as the end of "x is ..."; else ""."""
    if first[257:262] == b"ustar":
        return "a tar archive"
    if first.lstrip()[:14].lower().startswith(PAGES):
        return "an HTML page"
    # ORC and BZh are also beginnings of words.
    found = (what for start, what in KNOWN.items() if first.startswith(start))
    what = next(found, "")
    return "" if first.startswith((b"ORC", b"BZh")) and first.isascii() and b"\x00" not in first else what


@contextmanager
def opened(path: str | Path) -> Iterator[Opened]:
    """Open a file, decompressed.

    :raises DataError: for a file that can't be opened or decompressed, and for one that is no table, saying what it is.
    """
    try:
        with open(path, "rb") as raw:
            compression = "gzip" if raw.read(2) == GZIP else ""
            raw.seek(0)
            if compression:
                with gzip.open(raw) as stream:
                    yield _told(path, stream, compression)
            else:
                yield _told(path, raw, compression)
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} must be a whole gzip file ({error})") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from error


def opened_stream(name: str, stream: Any) -> tuple[Any, bytes, str]:
    """Return a stream, decompressed, its first bytes if it can tell them without losing them, and the compression.

    :raises DataError: for what can't be read from a stream.
    """
    first, compression = _peeked(stream), ""
    if first.startswith(GZIP):
        stream, compression = io.BufferedReader(gzip.GzipFile(fileobj=stream)), "gzip"
        first = _peeked(stream)
    if first.startswith((PARQUET, ZIP)):
        raise DataError(f"{name} must be named as a file to be read, not come through a pipe: it is no text")
    what = _something_else(first)
    if what:
        raise DataError(f"{name} must be {READABLE}, but is {what}")
    return stream, first, compression


def _peeked(stream: Any) -> bytes:
    if hasattr(stream, "peek"):
        first = stream.peek(LOOK)[:LOOK]
    elif hasattr(stream, "seekable") and stream.seekable():
        place = stream.tell()
        first = stream.read(LOOK)
        stream.seek(place)
    else:
        return b""
    return first if isinstance(first, bytes) else b""


def _told(path: str | Path, stream: Any, compression: str) -> Opened:
    first = stream.read(LOOK)
    stream.seek(0)
    prefix = "a gzip of " if compression else ""
    if first.startswith(PARQUET):
        return Opened(_seekable(stream, compression), "parquet", compression)
    if first.startswith(ZIP):
        stream = _seekable(stream, compression)
        what = _inside_zip(stream)
        stream.seek(0)
        if what == "excel":
            return Opened(stream, what, compression)
    else:
        what = "a gzip" if first.startswith(GZIP) else _something_else(first)
    if what:
        raise DataError(f"{path} must be {READABLE}, but is {prefix}{what}")
    return Opened(stream, "text", compression)


def _seekable(stream: IO[bytes], compression: str) -> IO[bytes]:
    """Return what can be read from any place at no great cost: of a compressed file all its bytes."""
    return io.BytesIO(stream.read()) if compression else stream


def _inside_zip(stream: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "a broken zip archive"
    if "xl/workbook.xml" in names:
        return "excel"
    return next((what for name, what in INSIDE_ZIPS.items() if name in names), "a zip archive")
