"""What commands that compute have in common, whichever run it is with."""

import argparse
import sys
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from multitask.errors import DataError

if TYPE_CHECKING:
    from multitask.run import Run
    from multitask.settings.config import RunConfig

__all__ = ["DATA_FOLDER", "load_run", "prints_aside", "require_files", "use_threads"]

DATA_FOLDER = Path("data")  # where `fetch data` writes unless told


def require_files(config: "RunConfig", hint: str = "") -> None:
    """Check that each task's training file is there; DataError ends with ``hint``."""
    for task in config.tasks:
        if task.train is not None and not Path(task.train).exists():
            raise DataError(f"tasks.{task.name}.train: {task.train} does not exist{hint}")


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
