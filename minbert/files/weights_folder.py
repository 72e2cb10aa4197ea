"""Read the tensors of a folder of weights, from one safetensors file or from shards."""

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from minbert.errors import WeightsError, listed
from minbert.files.storage import read_tensors

__all__ = ["INDEX", "WEIGHTS", "numbers_in", "read_weights", "tensor_names"]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder.

    By hand, since huggingface_hub's load_torch_model fills a module by the names in the files, which are not ours.

    :raises WeightsError: for files that are missing or broken.
    """
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        other = next((p.name for p in sorted(folder.glob("*")) if p.suffix in (".bin", ".pt", ".pth", ".ckpt")), None)
        if other:
            raise WeightsError(
                f"{folder / other}: must be safetensors, got a pickle, which is never opened here; load it in"
                " transformers and save_pretrained(folder, safe_serialization=True) it"
            )
        raise WeightsError(f"{folder}: must hold {WEIGHTS} or {INDEX}, found neither")
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(shards.values()))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise WeightsError(f"{folder / INDEX}: must be an index of safetensors shards ({error!r})") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{folder / INDEX}: a shard must be a file in the same folder, got {name!r}")
        tensors.update(read_tensors(folder / name))
    absent = sorted(set(shards) - set(tensors))
    if absent:
        raise WeightsError(f"{folder / INDEX}: the shards must hold every tensor it names, {listed(absent)} missing")
    return tensors


def tensor_names(folder: Path) -> list[str]:
    """Return the names of a folder's tensors, without reading these; none of a file that can't be read."""
    try:
        if (folder / WEIGHTS).exists():
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                return list(file.keys())
        return list(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return []


def numbers_in(folder: Path) -> int:
    """Count the numbers that a folder's one file holds, by its header; 0 for one that can't be read."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return 0
