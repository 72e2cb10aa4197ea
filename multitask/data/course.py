"""Download the course's data files, each checked by its git blob hash, and cut the small Quora split.

The files are those of the Stanford CS224N default project, as its public repository holds them at one commit.

Downloads are our own: huggingface_hub's are for its hub alone, or private and follow redirects to any address.
"""

import hashlib
import http.client
import os
import random
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

from minbert.files.registry import is_safe_url
from multitask.errors import DataError

__all__ = ["blob_hash", "cut_quora", "fetch_data"]

BASE_URL = (
    "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/"
    "7ac8260577fc12a86c7aaf38918056c30054ef39/data"
)
SINGLES: Mapping[str, str] = {
    "ids-sst-train.csv": "9cb7333cb1dae49c2bd2a4b56a24882a6e8704b5",
    "ids-sst-dev.csv": "3171aa629a340809d2db4a50df8f6e5ec9420ab0",
    "ids-sst-test-student.csv": "bbd2313758825f86e24416d6aad64cd93370cf7a",
    "sts-train.csv": "12b17760e7795fee35aeeabc290d5651de02622a",
    "sts-dev.csv": "9392860e584717976b8d817cc40c9e6ceeec27e0",
    "sts-test-student.csv": "25f0cf8fafdd1f82b9e2bb460c708af34341ce60",
}
QUORA: Mapping[str, str] = {
    "quora-train.csv": "a3b5546f6a0e65b60a328a5d294d1038f5bed1da",
    "quora-dev.csv": "de7cfa32428fd470b93f778fccc45a619e01336f",
    "quora-test-student.csv": "f257ef00558555afb50819578a58205732b16354",
}
# What cut_quora makes of the course's quora-dev.csv.
SMALL_QUORA: Mapping[str, str] = {
    "quora-train.csv": "77b8ff59a6be5b6daaf27a8329cb917dc61a5a3f",
    "quora-dev.csv": "0e3a61729512284493d4cfd74d6dde9fc4062f9c",
    "quora-test-student.csv": "1bbdd4a5558efb33f1b24ba59ac5de205fb174f4",
}
SOURCE = "quora-dev.csv"  # of the course, which the small split is cut from
SMALL_SEED, SMALL_TRAIN, SMALL_DEV = 20261122, 14_214, 3_000
ATTEMPTS, TIMEOUT, PAUSE = 4, 15.0, 0.5  # tries, seconds without a byte, seconds before the second try


def fetch_data(
    folder: str | Path,
    *,
    quora: Literal["full", "small"] = "full",
    base_url: str | None = None,
    progress: bool = True,
) -> Path:
    """Put the nine files of the three tasks into `folder`, which is made if need be.

    A file with the right hash is left alone, any other of these names is replaced; a download that broke off is
    resumed. Notes go to stderr.

    :param quora: "full" downloads the course's Quora files; "small" downloads its quora-dev.csv into the folder
        source/ and cuts 14,214 training, 3,000 dev and 3,000 test rows from it (see `cut_quora`).
    :param base_url: None means $MINBERT_DATA_URL, else the course's repository.
    :param progress: draw bars on stderr.
    :return: the folder.
    :raises DataError: in one sentence, for an address that is neither https nor this machine's, and for a file
        that can't be fetched or written or whose hash is wrong.
    """
    from filelock import FileLock

    folder = Path(folder).expanduser()
    if quora not in ("full", "small"):
        raise DataError(f"quora must be 'full' or 'small', got {quora!r}")
    base = (base_url or os.environ.get("MINBERT_DATA_URL") or BASE_URL).rstrip("/")
    if not is_safe_url(base):
        raise DataError(f"the address of the data must be https, or http to this machine, got {base!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".fetch.lock"):
            for name, blob in SINGLES.items():
                _fetch(folder / name, blob, base, progress)
            if quora == "full":
                for name, blob in QUORA.items():
                    _fetch(folder / name, blob, base, progress)
            else:
                _fetch_small(folder, base, progress)
    except OSError as error:
        raise DataError(f"{folder}: the data can't be written there: {error}") from error
    return folder


def cut_quora(text: str, *, train: int = SMALL_TRAIN, dev: int = SMALL_DEV) -> dict[str, str]:
    """Cut a labelled Quora file into {file name: content} of a training, a dev and a test file.

    The rule: the lines after the header in file order, shuffled by ``random.Random(20261122).shuffle``; the
    first `train` are the training rows, the next `dev` the dev rows, the rest the test rows, which lose their
    last column, the label. Each file has the header. No row of the course's file spans two lines.

    :raises DataError: if there are too few rows.
    """
    header, *lines = text.removesuffix("\n").split("\n")
    if len(lines) <= train + dev:
        raise DataError(f"{SOURCE} must have more than {train + dev} rows for the small split, got {len(lines)}")
    random.Random(SMALL_SEED).shuffle(lines)
    parts = {
        "quora-train.csv": [header, *lines[:train]],
        "quora-dev.csv": [header, *lines[train : train + dev]],
        "quora-test-student.csv": [line.rpartition("\t")[0] for line in [header, *lines[train + dev :]]],
    }
    return {name: "".join(line + "\n" for line in part) for name, part in parts.items()}


def blob_hash(content: bytes) -> str:
    """Return the name that git gives to a file of this content, as ``git hash-object`` prints it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _fetch_small(folder: Path, base: str, progress: bool) -> None:
    """Cut the small Quora split, unless its files are there."""
    if all(_is_good(folder / name, blob) for name, blob in SMALL_QUORA.items()):
        return
    source = folder / "source" / SOURCE
    source.parent.mkdir(exist_ok=True)
    _fetch(source, QUORA[SOURCE], base, progress)
    for name, text in cut_quora(source.read_bytes().decode("utf-8")).items():
        content = text.encode("utf-8")
        if blob_hash(content) != SMALL_QUORA[name]:
            raise DataError(
                f"{name} cut from {source} must have the git hash {SMALL_QUORA[name]}, got {blob_hash(content)}"
            )
        if not _is_good(folder / name, SMALL_QUORA[name]):
            _note_replaced(folder / name)
        part = folder / f".{name}.part"
        part.write_bytes(content)
        os.replace(part, folder / name)


def _fetch(path: Path, blob: str, base: str, progress: bool) -> None:
    """Download one file under another name, check it, and only then move it to its place."""
    if _is_good(path, blob):
        return
    _note_replaced(path)
    part = path.with_name(f".{path.name}.part")
    url = f"{base}/{urllib.parse.quote(path.name)}"
    resumed = part.exists()
    _download(url, part, progress)
    if resumed and not _is_good(part, blob):  # the partial file was not the beginning of this one
        part.unlink()
        _download(url, part, progress)
    if not _is_good(part, blob):
        found = blob_hash(part.read_bytes())
        part.unlink()
        raise DataError(f"{path.name} from {url} must be the course's file, with the git hash {blob}, got {found}")
    os.replace(part, path)


def _note_replaced(path: Path) -> None:
    if path.exists():
        print(f"{path}: not the course's file, by its git hash; it is replaced", file=sys.stderr)


def _is_good(path: Path, blob: str) -> bool:
    return path.is_file() and blob_hash(path.read_bytes()) == blob


def _download(url: str, part: Path, progress: bool) -> None:
    """Complete the file `part`, continuing after what it holds, in several tries.

    :raises DataError: if it can't be fetched.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            if _download_rest(url, part, progress):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # the file ends before what `part` holds, which is no beginning of it
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                break
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
    raise DataError(
        f"{url} can't be fetched ({' '.join(reason.split())}): connect this machine and try again, "
        f"or copy {_final_name(part)} into {part.parent}"
    )


def _final_name(part: Path) -> str:
    return part.name.removeprefix(".").removesuffix(".part")


def _download_rest(url: str, part: Path, progress: bool) -> bool:
    """Send one request for what `part` lacks, and say whether the file is whole now."""
    from tqdm import tqdm

    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT) as response:
        if start and not _goes_on(response, start):
            start = 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else None
        label = _final_name(part)
        with (
            part.open("ab" if start else "wb") as stream,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=label, disable=not progress) as bar,
        ):
            while block := response.read(1 << 16):
                stream.write(block)
                bar.update(len(block))
            return total is None or stream.tell() == total


def _goes_on(response: Any, start: int) -> bool:
    """Say whether the server sends the range that was asked for."""
    described = re.match(r"bytes (\d+)-", response.headers["Content-Range"] or "")
    return response.status == 206 and described is not None and int(described[1]) == start


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https or this machine only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request.

        :raises DataError: for any other address.
        """
        if not is_safe_url(newurl):
            fp.close()
            raise DataError(f"{req.full_url} must redirect to https or this machine, got {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
