"""Read and write files of tensors and JSON: errors say what is wrong in plain words, files are written whole."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from minbert.errors import WeightsError

__all__ = [
    "read_tensors",
    "make_folder",
    "read_json",
    "sha256_of",
    "staged",
    "write_json",
    "write_tensors",
    "write_text",
]

_ADVICE = "download it again"
_PICKLE_OR_ZIP = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they do not exist.

    :raises WeightsError: if the disk refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{folder}: the folder can't be made ({error.strerror})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of one safetensors file.

    :raises WeightsError: with the file, what is wrong and what to do.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        fault = _fault_of_head(path) or f"can't be read as safetensors ({error}); {_ADVICE}"
        raise WeightsError(f"{path}: {fault}") from None


def _fault_of_head(path: Path) -> str:
    """Explain by its first bytes why safetensors can't read a file, or return nothing.

    They may only explain, never refuse: a safetensors file begins with the length of its header, whose bytes are
    those of a pickle or zip for some lengths (80 03 for 896).
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
        size = path.stat().st_size
    except OSError:  # safetensors' own message says so already
        return ""
    if head.startswith(b"version https://git-lfs"):
        return "must be the weights, got a git-lfs pointer; run `git lfs pull` where it came from"
    # A brace after the length starts a safetensors header: such a file is broken, but neither pickle nor zip.
    if head.startswith(_PICKLE_OR_ZIP) and head[8:9] != b"{":
        return "must be safetensors, got a pickle or zip, which is never opened here; save it as safetensors instead"
    header = int.from_bytes(head[:8], "little")
    if size < 10 or header < 2:
        return f"must have a safetensors header, got {size} bytes without one; {_ADVICE}"
    if header + 8 > size:
        return f"must be whole, got a header of {header} bytes in a file of {size}; {_ADVICE}"
    return ""


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a file beside ``path`` to write, then sync it and move it onto ``path``; remove it if anything fails.

    :return: a context manager with the path of that file, which exists and is empty.
    :raises WeightsError: if the disk refuses.
    """
    from safetensors import SafetensorError

    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        temporary.unlink(missing_ok=True)  # left by a process that was killed
        temporary.touch()
        mode = temporary.stat().st_mode  # by the umask, which can't be read without setting it for all threads
        yield temporary
        temporary.chmod(mode)  # safetensors puts a file of mode 0600 in its place
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: can't be written ({getattr(error, 'strerror', None) or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all, also onto the file that the tensors were read from.

    :raises WeightsError: if the disk refuses, or for what a safetensors file can't hold.
    """
    from safetensors.torch import save_file

    whole, seen = {}, set[int]()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):  # the extra state of a module of someone's own
            raise WeightsError(f"{path}: {name} must be a tensor to be written, got {type(tensor).__name__}")
        own = tensor.detach().contiguous()
        whole[name] = own.clone() if own.data_ptr() in seen else own  # safetensors refuses tied tensors
        seen.add(own.data_ptr())
    with staged(path) as temporary:
        try:
            save_file(whole, temporary, metadata)
        except RuntimeError as error:  # tensors that share a part of their memory
            raise WeightsError(f"{path}: can't be written ({str(error).strip().splitlines()[0]})") from None


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in `file`, an empty one if there is no such file.

    :raises WeightsError: if the file is not a JSON object.
    """
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
        if "\\ud" in text.lower():  # half of a character, which no library takes as text
            json.dumps(content, ensure_ascii=False).encode()
    except ValueError as error:
        raise WeightsError(f"{file}: must be valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: must be a JSON object, got {type(content).__name__}")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON whole or not at all.

    :raises ValueError: for NaN and infinite numbers, which other readers of JSON refuse.
    :raises WeightsError: if the disk refuses.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text whole or not at all.

    :raises WeightsError: if the disk refuses.
    """
    with staged(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
