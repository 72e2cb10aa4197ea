"""AdamW, and the learning-rate schedules that BERT is fine-tuned with."""

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from minbert.errors import InputError
from minbert.fast.choice import uses_fast_path

__all__ = [
    "SCHEDULES",
    "AdamW",
    "adamw_step",
    "constant_schedule",
    "cosine_schedule",
    "linear_schedule",
    "parameter_groups",
]


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
            if not _is_number(value) or not 0 <= value < math.inf:
                raise InputError(f"AdamW: {name} must be a finite number of at least 0, got {value!r}")
        betas = param_group.get("betas", self.defaults["betas"])
        if (
            not isinstance(betas, tuple | list)
            or len(betas) != 2
            or not all(_is_number(beta) and 0 <= beta < 1 for beta in betas)
        ):
            raise InputError(f"AdamW: betas must be two numbers in [0, 1), got {betas!r}")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient, once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        fast_path = uses_fast_path()
        if fast_path:
            from minbert.fast import optim as fast
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state_of(parameter, group) for parameter in parameters]
            if fast_path and fast.fits(parameters):
                fast.adamw_step(parameters, states, group)
            else:
                for parameter, state in zip(parameters, states, strict=True):
                    adamw_step(parameter, state, group)
        return loss

    def _state_of(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the parameter's moments and step count, which start at zero."""
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise InputError("AdamW: gradients must be dense, got a sparse one")
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if group.get("amsgrad") else ()))
            state.update({name: torch.zeros_like(parameter) for name in names})
        return state


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def adamw_step(parameter: Tensor, state: dict[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Take one step with a parameter and its gradient, in place.

    With g the gradient and t the step: m = beta1 m + (1 - beta1) g and v = beta2 v + (1 - beta2) g^2, then
    parameter -= lr * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * parameter).

    Source: Loshchilov and Hutter 2019, algorithm 2, lines 6 to 12. Its schedule multiplier and its decay are one
    factor each here, as in torch: the decay is scaled by the learning rate.

    :param state: ``step``, ``exp_avg`` (m), ``exp_avg_sq`` (v) and, for amsgrad, ``max_exp_avg_sq``.
    :param settings: lr, betas, eps, weight_decay, amsgrad and maximize of the parameter's group.
    """
    gradient, (beta1, beta2), lr = parameter.grad, settings["betas"], settings["lr"]
    assert gradient is not None
    gradient = -gradient if settings.get("maximize") else gradient
    state["step"] += 1
    step = state["step"].item()
    parameter.mul_(1 - lr * settings["weight_decay"])
    state["exp_avg"].lerp_(gradient, 1 - beta1)
    state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    second = state["exp_avg_sq"]
    if settings.get("amsgrad"):
        second = torch.maximum(state["max_exp_avg_sq"], second, out=state["max_exp_avg_sq"])
    corrected_root = (second / (1 - beta2**step)).sqrt_().add_(settings["eps"])
    parameter.addcdiv_(state["exp_avg"], corrected_root, value=-lr / (1 - beta1**step))


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters for an optimizer: encoders, heads, decoders, or a module that holds some.

    Biases, MPNet's relative attention bias among them, and the weights of norms do not decay, as in BERT's released
    code (google-research/bert, optimization.py), which goes by names.
    With ``layer_decay`` below 1 an encoder's rates fall from its top to its embeddings: lr times layer_decay to the
    power of 1 for its last layer, 2 for the one below, and so on; everything outside layers and embeddings has ``lr``.

    Source: Howard and Ruder 2018 (ULMFiT, arXiv 1801.06146), section 3.2, discriminative fine-tuning; Clark et al.
    2020 (ELECTRA, arXiv 2003.10555), appendix B, layerwise decay, whose released code gives each layer one power more.

    :param lr: learning rate, at least 0.
    :param weight_decay: of the matrices and embeddings, at least 0.
    :param layer_decay: in (0, 1].
    :return: groups with ``params``, ``lr`` and ``weight_decay``, from the lowest rate to the highest.
    :raises InputError: for a ``layer_decay`` outside its range.
    """
    if not 0 < layer_decay <= 1:
        raise InputError(f"parameter_groups: layer_decay must be above 0 and at most 1, got {layer_decay!r}")
    from minbert.attention import RelativeAttentionBias

    powers = _layer_powers(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}  # by rate and decay
    taken = set[nn.Parameter]()  # a tied parameter is one parameter
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in taken:
                taken.add(parameter)
                still = isinstance(module, nn.LayerNorm | RelativeAttentionBias)
                decays = parameter.ndim > 1 and "bias" not in name and not still
                key = lr * layer_decay ** powers.get(parameter, 0), weight_decay if decays else 0.0
                groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(groups.items(), key=lambda group: (group[0][0], -group[0][1]))
    ]


def _layer_powers(model: nn.Module) -> dict[nn.Parameter, int]:
    """How many times layer_decay multiplies the rate of each parameter of an encoder's layers and embeddings."""
    from minbert.model import BertModel

    powers = {}
    for encoder in (module for module in model.modules() if isinstance(module, BertModel)):
        for power, part in enumerate([*reversed(encoder.layers), encoder.embeddings], 1):
            powers.update(dict.fromkeys(part.parameters(), power))
    return powers


def constant_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Return the factor on the learning rate of update ``step`` (from 0): rises linearly over warmup_steps, then 1.

    As HuggingFace counts it: update 0 of a warm-up has factor 0. The same holds for the other schedules. They fit
    torch's own: ``torch.optim.lr_scheduler.LambdaLR(optimizer, partial(linear_schedule, total_steps=100))``.
    """
    return step / warmup_steps if step < warmup_steps else 1.0


def linear_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Warm up, then fall linearly to 0 at ``total_steps`` (Devlin et al. 2019, appendix A.2)."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def cosine_schedule(step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """Warm up, then follow half a cosine to 0 at ``total_steps`` (Loshchilov and Hutter 2017, equation 5)."""
    if step < warmup_steps:
        return step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return 0.5 * (1 + math.cos(math.pi * progress))


SCHEDULES = {"constant": constant_schedule, "cosine": cosine_schedule, "linear": linear_schedule}
