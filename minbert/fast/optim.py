"""The fused counterpart of optim.adamw_step: one pass over memory for each parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["adamw_step", "fits"]


def fits(parameters: Sequence[Tensor]) -> bool:
    """Return whether torch's fused kernel, which is private to it, takes these: contiguous floats on the CPU."""
    return (
        bool(parameters)
        and hasattr(torch, "_fused_adamw_")
        and all(
            p.device.type == "cpu"
            and p.is_contiguous()
            and p.dtype in (torch.float32, torch.float64)
            and p.grad is not None
            and p.grad.is_contiguous()
            and p.grad.dtype == p.dtype
            for p in parameters
        )
    )


def adamw_step(parameters: Sequence[Tensor], states: Sequence[dict[str, Tensor]], settings: Mapping[str, Any]) -> None:
    """Take one step of AdamW (optim.adamw_step) with each parameter, in place.

    :param states: each parameter's ``step``, ``exp_avg``, ``exp_avg_sq`` and, for amsgrad, ``max_exp_avg_sq``.
    :param settings: of the parameters' group.
    """
    amsgrad = bool(settings.get("amsgrad"))
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    torch._fused_adamw_(
        list(parameters),
        [parameter.grad for parameter in parameters if parameter.grad is not None],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [state["max_exp_avg_sq"] for state in states] if amsgrad else [],
        steps,
        lr=settings["lr"],
        beta1=settings["betas"][0],
        beta2=settings["betas"][1],
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
        amsgrad=amsgrad,
        maximize=bool(settings.get("maximize")),
    )
