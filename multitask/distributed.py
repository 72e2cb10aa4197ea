"""Data-parallel training: every process has the whole model and a share of each batch.

``torchrun --nproc-per-node=N -m multitask train ...`` starts N processes that find one another by their environment.
Sums are torch.distributed's; without other processes every function here does nothing. Nothing is pickled.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multitask.errors import RunError

__all__ = [
    "broadcast_buffers",
    "broadcast_from_main",
    "gathered",
    "is_main",
    "process_group",
    "rank",
    "size",
    "sum_over_ranks",
    "totals_over_ranks",
    "wait_for_all",
]


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started to one group: gloo on CPUs, nccl between GPUs.

    Does nothing outside torchrun, or within another such block.

    :raises RunError: if they can't meet.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    from torch.distributed.rendezvous import rendezvous  # not in every build of torch

    try:
        store, number, count = next(rendezvous("env://"))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # One store for all of torchrun's restarts: what the last attempt left there must not be found by this one.
            store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise RunError(f"the {os.environ['WORLD_SIZE']} processes of WORLD_SIZE can't meet ({first})") from None
    try:
        yield
        wait_for_all()  # none leaves while another may still be talking to it
    finally:
        # torch's threads give back the tensors of the last sums, for which they take Python's lock: one that still does
        # so when the interpreter ends is killed by it, and the process with it.
        time.sleep(0.2)
        dist.destroy_process_group()


def size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number among them, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_main() -> bool:
    """Return whether this is the one process that writes files and talks."""
    return rank() == 0


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place; all have to call it with equal shapes."""
    if size() == 1:
        return
    with _lost_ranks():
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()


def totals_over_ranks(values: Sequence[float]) -> list[float]:
    """Sum a few numbers over all processes."""
    totals = torch.tensor(values, dtype=torch.float64)
    sum_over_ranks([totals])
    return totals.tolist()


def gathered(tensor: Tensor) -> list[Tensor]:
    """Collect the tensors of all processes, of one shape and on the CPU, in the order of ranks."""
    parts = [torch.empty_like(tensor) for _ in range(size())]
    if size() == 1:
        return [tensor]
    with _lost_ranks():
        dist.all_gather(parts, tensor)
    return parts


def wait_for_all() -> None:
    """Return when all processes have got here."""
    totals_over_ranks([0.0])


def broadcast_from_main(value: Any) -> Any:
    """Broadcast a JSON value from the main process."""
    if size() == 1:
        return value
    content = json.dumps(value).encode() if is_main() else b""
    length = torch.tensor([len(content)])
    with _lost_ranks():
        dist.broadcast(length, 0)
        data = torch.zeros(int(length), dtype=torch.uint8)
        if is_main():
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(data, 0)
    return json.loads(data.numpy().tobytes())


def broadcast_buffers(module: nn.Module) -> None:
    """Give the buffers of all processes the main one's values: what follows from each one's own rows would differ.

    A buffer may be None in some, or of other shapes.
    """
    places = [(part, name) for part in module.modules() for name in part._buffers]
    if size() == 1 or not places:
        return
    own = [part._buffers[name] for part, name in places]
    described = [None if each is None else [list(each.shape), str(each.dtype).removeprefix("torch.")] for each in own]
    device = next((parameter.device for parameter in module.parameters()), None)
    for (part, name), buffer, main in zip(places, own, broadcast_from_main(described), strict=True):
        if main is None:
            part._buffers[name] = None
            continue
        shape, dtype = main
        if buffer is None or list(buffer.shape) != shape:
            buffer = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
        part._buffers[name] = buffer = buffer.detach().contiguous()
        with _lost_ranks():
            dist.broadcast(buffer, 0)


@contextmanager
def _lost_ranks() -> Iterator[None]:
    """Raise RunError in place of torch's error when another process has gone."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise RunError(f"another process of this run has stopped, its own message says why ({first})") from None
