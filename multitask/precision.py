"""Device and number format of a run: asked for, or probed and said."""

from contextlib import AbstractContextManager

import torch

from multitask.errors import ConfigError

__all__ = ["autocast", "choose_device", "choose_precision"]


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU; ConfigError for a device that torch does not have here."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(device for device in ("cuda", "mps", "cpu") if available[device]))
    if name not in available:
        raise ConfigError(f"device is {name!r}; known: auto, {', '.join(available)}")
    if not available[name]:
        found = ", ".join(device for device, there in available.items() if there)
        raise ConfigError(f"device {name!r} is not available to torch here; available: {found}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The type of the matrix products, and a sentence that says which and why.

    bfloat16 on a CPU without AVX512-BF16 or AMX is emulated, and many times slower than float32: ``auto`` probes.
    """
    if name == "float32":
        return torch.float32, "float32, as asked for"
    has, why = _bfloat16_support(device)
    if name == "bfloat16":
        return torch.bfloat16, "bfloat16, as asked for" + ("" if has else f" (slow here: {why})")
    if name != "auto":
        raise ConfigError(f"precision is {name!r}; known: auto, float32, bfloat16")
    return (torch.bfloat16 if has else torch.float32), f"{'bfloat16' if has else 'float32'}, since {why}"


def _bfloat16_support(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported()
        return has, f"the GPU {'has' if has else 'lacks'} bfloat16"
    if device.type != "cpu":
        return False, f"bfloat16 on {device.type} is not tried by this project"
    probes = {"AVX512-BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    for feature, probe in probes.items():
        # Private to torch: where a version lacks the probe, the answer is the safe one.
        if getattr(torch.cpu, probe, lambda: False)():
            return True, f"the CPU has {feature}"
    return False, "the CPU has neither AVX512-BF16 nor AMX"


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """The context that a model runs in; does nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
