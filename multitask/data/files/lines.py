"""Bytes to numbered lines, in constant memory. The encoding is UTF-8, what a byte-order mark says, or what is set."""

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Any

from multitask.data.files.first_bytes import MARKS
from multitask.data.files.rows import Fault, Line
from multitask.errors import DataError
from multitask.settings.format import Format

__all__ = ["encoding_of", "numbered_lines", "refuse_utf_8", "undecoded"]

BLOCK = 1 << 16
# What "surrogateescape" makes of bytes that are not UTF-8.
UNDECODED = re.compile("[\udc80-\udcff]")


def encoding_of(name: str, first: bytes, format: Format) -> str:
    """Return the encoding of a file that begins with these bytes.

    :raises DataError: for a byte-order mark that says something else than the setting.
    """
    marked = next((encoding for mark, encoding in MARKS.items() if first.startswith(mark)), "")
    chosen = codecs.lookup(format.encoding or marked or "utf-8").name
    if marked and not chosen.startswith(marked):
        raise DataError(
            f"{name}: {format.key}.encoding must be {marked}, as the file's byte-order mark says, got {format.encoding}"
        )
    # Neither keeps the mark as a character; _tidied takes it away.
    return "utf-8" if chosen == "utf-8-sig" else chosen


def refuse_utf_8(name: str, stream: IO[bytes], encoding: str, format: Format) -> None:
    """Raise DataError for a file that is UTF-8, where a setting says an encoding of one byte a character.

    Such an encoding takes any bytes, so text would be garbled and nobody told: a run that was trained on files of one
    encoding may well predict files of another.
    """
    if len(bytes(range(256)).decode(encoding, "replace")) != 256:
        return
    decoder, ascii_alone = codecs.getincrementaldecoder("utf-8")(), True
    try:
        for block in chain(iter(lambda: stream.read(BLOCK), b""), [b""]):
            ascii_alone = decoder.decode(block, final=not block).isascii() and ascii_alone
    except UnicodeDecodeError:
        return
    if not ascii_alone:
        raise DataError(f"{name}: {format.key}.encoding must be utf-8, which the file is, got {format.encoding}")


def numbered_lines(name: str, stream: Iterable[str | bytes], encoding: str, format: Format) -> Iterator[Line]:
    """Yield numbered lines without their ends.

    Bytes that are not UTF-8 become lone surrogates, so that they are a fault of their row alone; see undecoded.

    :param stream: of bytes, or of text, whose encoding does not matter.
    :raises DataError: for bytes that another encoding does not know.
    """
    lines: Iterable[Any] = stream
    if encoding != "utf-8" and hasattr(stream, "read"):
        lines = _decoded(name, stream, encoding, format)
    for number, raw in enumerate(lines, 1):
        line = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
        if number == 1:
            line = line.removeprefix("\ufeff")
            if "\r" in line.rstrip("\r\n"):
                raise DataError(f"{name} must end its lines with line feeds, got carriage returns alone")
        yield number, line.removesuffix("\n").removesuffix("\r")


def _decoded(name: str, stream: Any, encoding: str, format: Format) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    rest, count, offset = "", 0, 0
    for block in chain(iter(lambda: stream.read(BLOCK), b""), [b""]):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = rest + error.object[: error.start].decode(encoding, "ignore")
            # The decoder may have kept the end of the last block.
            place = offset - (len(error.object) - len(block)) + error.start
            raise DataError(
                f"{name}:{count + before.count(chr(10)) + 1}: must be {encoding}, as {_reason(format)}, got the byte"
                f" 0x{error.object[error.start]:02x} at {place} from the file's start"
            ) from None
        offset += len(block)
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            yield line + "\n"
        count += len(whole)
    if rest:
        yield rest


def _reason(format: Format) -> str:
    return f"{format.key}.encoding says" if format.encoding else "the byte-order mark says"


def undecoded(line: str, format: Format) -> Fault | None:
    """Return the fault of a line that holds bytes which are not UTF-8."""
    if line.isascii():
        return None
    found = UNDECODED.search(line)
    if found is None:
        return None
    place, byte = len(line[: found.start()].encode("utf-8", "surrogateescape")) + 1, ord(found[0]) - 0xDC00
    reason = f"must be UTF-8 (byte {place} of the line is 0x{byte:02x}), or {format.key}.encoding say what else"
    return Fault("", line, reason)
