"""AdamW, and the learning-rate schedules that BERT is fine-tuned with."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from minbert.errors import InputError
from minbert.fast import kernels

__all__ = ["SCHEDULES", "AdamW", "constant_schedule", "cosine_schedule", "linear_schedule"]


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay and bias correction; argument names, defaults and state_dict are torch's.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2, with the decay scaled by the learning rate
    as in torch; Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1. A parameter whose gradient is None is left
    bit-identical, as are its moments and its step count.

    :param lr: learning rate, at least 0.
    :param betas: decay rates of the two moments, each in [0, 1).
    :param eps: added to the root of the second moment, after its bias correction.
    :param weight_decay: each step first scales a parameter by 1 - lr * weight_decay.
    :param amsgrad: divide by the largest second moment so far (Reddi et al. 2018, arXiv 1904.09237, algorithm 2).
    :param maximize: step up the gradient instead of down.
    :raises InputError: for a setting outside its range. torch's switches between implementations (foreach, fused,
        capturable, differentiable) have no place here: minbert.set_kernels chooses.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "amsgrad": amsgrad, "maximize": maximize})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; InputError for a setting outside what is allowed."""
        for name in ("lr", "eps", "weight_decay"):
            value = param_group.get(name, self.defaults[name])
            if not (isinstance(value, int | float) and value >= 0 and math.isfinite(value)):
                raise InputError(f"AdamW: {name} is {value!r}; a finite number of at least 0 is due")
        betas = param_group.get("betas", self.defaults["betas"])
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise InputError(f"AdamW: betas is {betas}; two numbers in [0, 1) are due")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                if parameter.grad.is_sparse:
                    raise InputError("AdamW: a gradient is sparse; dense gradients are due")
                if not self.state[parameter]:
                    self.state[parameter] = {
                        "step": torch.tensor(0.0),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
                    if group.get("amsgrad"):
                        self.state[parameter]["max_exp_avg_sq"] = torch.zeros_like(parameter)
            if kernels.get_kernels() == "fast" and _fused_fits(parameters):
                self._fused_step(parameters, group)
            else:
                for parameter in parameters:
                    self._step_one(parameter, self.state[parameter], group)
        return loss

    def _step_one(self, parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Algorithm 2 written out, for one parameter."""
        gradient, (beta1, beta2) = parameter.grad, group["betas"]
        assert gradient is not None
        gradient = -gradient if group.get("maximize") else gradient
        state["step"] += 1
        step = state["step"].item()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        second = state["exp_avg_sq"]
        if group.get("amsgrad"):
            second = torch.maximum(state["max_exp_avg_sq"], second, out=state["max_exp_avg_sq"])
        corrected_root = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["exp_avg"], corrected_root, value=-group["lr"] / (1 - beta1**step))

    def _fused_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """The same in one pass over memory per parameter."""
        states = [self.state[parameter] for parameter in parameters]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group.get("amsgrad") else [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=bool(group.get("amsgrad")),
            maximize=bool(group.get("maximize")),
        )


def _fused_fits(parameters: list[Tensor]) -> bool:
    """torch's fused kernel is private: used where it is, for contiguous float parameters on the CPU."""
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


def constant_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Factor on the learning rate of update ``step`` (from 0): rises linearly over warmup_steps, then 1.

    As HuggingFace counts it: update 0 of a warm-up has factor 0. The same holds for the other schedules.
    """
    return step / warmup_steps if step < warmup_steps else 1.0


def linear_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Warm-up, then falls linearly to 0 at ``total_steps`` (Devlin et al. 2019, appendix A.2)."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def cosine_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Warm-up, then half a cosine to 0 at ``total_steps`` (Loshchilov and Hutter 2017, equation 5, no restart)."""
    if step < warmup_steps:
        return step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES = {"constant": constant_schedule, "cosine": cosine_schedule, "linear": linear_schedule}
