"""Device and number format of a run: as asked for, or probed and reported."""

from contextlib import AbstractContextManager

import torch

from multitask.errors import ConfigError
from multitask.settings.checks import check_choice

__all__ = ["autocast", "choose_device", "choose_precision"]


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` takes CUDA, then MPS, then the CPU.

    :raises ConfigError: for an unknown name, or a device that torch does not have here.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    check_choice("device", name, ("auto", *available))
    if not available[name]:
        found = ", ".join(device for device, there in available.items() if there)
        raise ConfigError(f"device must be available to torch here ({found}), got {name!r}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Return the number format of the matrix products, and a sentence that says which and why.

    bfloat16 on a CPU without AVX512-BF16 or AMX is emulated, and many times slower than float32: ``auto`` probes.

    :raises ConfigError: for an unknown name.
    """
    check_choice("precision", name, ("auto", "float32", "bfloat16"))
    if name == "float32":
        return torch.float32, "float32, as asked for"
    has, why = _bfloat16_support(device)
    if name == "bfloat16":
        return torch.bfloat16, "bfloat16, as asked for" + ("" if has else f" (slow here: {why})")
    return (torch.bfloat16 if has else torch.float32), f"{'bfloat16' if has else 'float32'}, since {why}"


def _bfloat16_support(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported()
        return has, f"the GPU {'has' if has else 'lacks'} bfloat16"
    if device.type != "cpu":
        return False, f"bfloat16 on {device.type} is untested"
    probes = {"AVX512-BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    for feature, probe in probes.items():
        # Private to torch: a version without the probe counts as lacking the feature, which is safe.
        if getattr(torch.cpu, probe, lambda: False)():
            return True, f"the CPU has {feature}"
    return False, "the CPU has neither AVX512-BF16 nor AMX"


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that a model runs in; it does nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
