"""What commands that compute have in common, whichever run it is with."""

import argparse
import sys
from contextlib import AbstractContextManager, redirect_stdout
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multitask.run import Run

__all__ = ["load_run", "prints_aside", "use_threads"]


def prints_aside() -> AbstractContextManager[object]:
    """Send what a part of a user's own prints to standard error: standard output is rows or JSON for other programs."""
    return redirect_stdout(sys.stderr)


def use_threads(threads: int | None) -> None:
    """Set the number of torch's threads, if one is told."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def load_run(args: argparse.Namespace) -> "Run":
    """Load the run of ``args``, and say what precision it computes in."""
    from multitask.distributed import is_main
    from multitask.run import Run

    use_threads(args.threads)
    run = Run.load(args.run, device=args.device, precision=args.precision)
    if not args.quiet and is_main():
        print(f"precision {run.precision}", file=sys.stderr)
    return run
