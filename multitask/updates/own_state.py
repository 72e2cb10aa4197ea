"""What an update keeps where no checkpoint holds it: found out and refused, since a resumed run would lack it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multitask.errors import RunError
from multitask.updates.base import Update

__all__ = ["OwnState"]

# What torch and the caller keep in a module, and change.
NOT_OWN = {*vars(nn.Module()), "tasks", "rng", "epoch"}


class OwnState:
    """An update's plain attributes as they are when this is built."""

    def __init__(self, update: Update) -> None:
        self._update = update
        self._attributes = self._now()

    def _now(self) -> dict[str, Any]:
        found = {}
        for prefix, module in self._update.named_modules():
            plain = {key: value for key, value in vars(module).items() if key not in NOT_OWN}
            plain |= {key: getattr(module, key) for key in module._non_persistent_buffers_set}
            found.update({f"{prefix}.{key}" if prefix else key: _content(value) for key, value in plain.items()})
        return found

    def check(self, name: str) -> None:
        """Compare with what was there at first.

        :param name: what the settings call the update.
        :raises RunError: for an attribute that has changed or is new.
        """
        for key, content in self._now().items():
            if key not in self._attributes or self._attributes[key] != content:
                raise RunError(
                    f"train.update {name!r} must keep its state in parameters and buffers (register_buffer), which a"
                    f" checkpoint holds, got {key}, which changed while it trained"
                )


def _content(value: Any) -> Any:
    """Return what can be compared: of numbers, words, tensors and what holds them all, of anything else its type."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().resolve_conj().resolve_neg()
        content = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return value.dtype, value.shape, content
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return [(_content(key), _content(entry)) for key, entry in value.items()]
    if isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
        return [_content(entry) for entry in value]
    if isinstance(value, bool | int | float | complex | str | bytes | np.generic | None):
        return repr(value)
    return type(value)
