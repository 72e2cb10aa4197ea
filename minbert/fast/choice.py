"""Which of the two computes: the formulas as the book writes them out, or the fused passes beside them.

``set_kernels`` sets the default of the process, ``with kernels(name):`` another one within, for this context alone: a
thread, or an asyncio task. It is read once a call, where a call begins (BertModel.forward, a decoder's forward,
AdamW.step); a backward pass follows the forward pass it belongs to. Dropout draws differ between the two: equal seeds
give equal runs on one path, not across them. Second derivatives and torch.func need the reference path; the fast one
refuses them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from minbert.errors import InputError

__all__ = ["get_kernels", "kernels", "set_kernels", "uses_fast_path"]

_NAMES = ("reference", "fast")
_default = "fast"
_within: ContextVar[str | None] = ContextVar("minbert.kernels", default=None)


def set_kernels(name: str) -> None:
    """Choose the process's default.

    :param name: ``"fast"``, the default, or ``"reference"``.
    :raises InputError: for any other name.
    """
    global _default
    _default = _checked("set_kernels", name)


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Choose within a ``with`` block, for the thread or asyncio task that runs it; those beside it are not touched.

    :param name: ``"fast"`` or ``"reference"``.
    :raises InputError: for any other name.
    """
    before = _within.set(_checked("kernels", name))
    try:
        yield
    finally:
        _within.reset(before)


def get_kernels() -> str:
    """Return the choice in force here: ``"fast"`` or ``"reference"``."""
    return _within.get() or _default


def uses_fast_path() -> bool:
    """Return whether the call that begins here takes the fast path; an exported or compiled one never does.

    :raises InputError: within a transform of torch.func, which can't look into written-out backward passes.
    """
    if torch.compiler.is_compiling() or get_kernels() == "reference":
        return False
    # Private to torch: where a version lacks it, torch's own error stands, which does not name the way out.
    if getattr(torch._C, "_are_functorch_transforms_active", bool)():
        raise InputError(
            "transforms of torch.func need the reference path: call within `with minbert.kernels('reference'):`"
        )
    return True


def _checked(argument: str, name: str) -> str:
    if name not in _NAMES:
        raise InputError(f"{argument}: name must be one of {', '.join(_NAMES)}, got {name!r}")
    return name
