"""Files of tensors and JSON: read with a plain word on what is wrong, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from minbert.errors import WeightsError

__all__ = ["read_tensors", "sha256_of", "staged", "write_json", "write_tensors"]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_header(path: Path) -> None:
    """Say what a file that can't be safetensors is, before the library's own, terser words."""
    advice = "put a whole copy in its place"
    with path.open("rb") as file:
        head = file.read(64)
    size = path.stat().st_size
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: is a git-lfs pointer, not the weights; run `git lfs pull` where it came from")
    if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        raise WeightsError(f"{path}: is a pickle or zip, which is never opened here; save it as safetensors instead")
    header = int.from_bytes(head[:8], "little")
    if size < 10 or header < 2:
        raise WeightsError(f"{path}: holds {size} bytes and no safetensors header; {advice}")
    if header + 8 > size:
        raise WeightsError(f"{path}: is cut short (header of {header} bytes in a file of {size}); {advice}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file. Raises WeightsError with the file, what is wrong and what to do."""
    from safetensors import SafetensorError, safe_open

    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise WeightsError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: can't be read as safetensors ({error}); put a whole copy in its place") from None


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, synced and moved onto it when all went well, removed otherwise.

    Raises WeightsError where the disk refuses.
    """
    from safetensors import SafetensorError

    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: can't be written ({getattr(error, 'strerror', None) or error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all, also onto the file that the tensors were read from."""
    from safetensors.torch import save_file

    with staged(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON whole or not at all. NaN is refused, since no other reader takes it."""
    with staged(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
