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

__all__ = ["DATA_FOLDER", "FETCH_HINT", "load_run", "note_unfinished", "prints_aside", "require_files", "use_threads"]

DATA_FOLDER = Path("data")  # where `fetch data` writes unless told
FETCH_HINT = "; `multitask fetch data` downloads the course's files"


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


def note_unfinished(args: argparse.Namespace, run: Path) -> None:
    """Say of a run that is still trained, or was stopped, that its scores are not the last ones."""
    from multitask.distributed import is_main
    from multitask.training.checkpoints import latest_checkpoint
    from multitask.training.identity import finished_identity

    stopped = latest_checkpoint(run / "checkpoints") is not None and finished_identity(run) is None
    if stopped and not args.quiet and is_main():
        print(f"{run}: its training is not finished; its best epoch so far is taken", file=sys.stderr)


def load_run(args: argparse.Namespace) -> "Run":
    """Load the run of ``args``, and say what precision it computes in and whether it is finished."""
    from multitask.distributed import is_main
    from multitask.run import Run

    use_threads(args.threads)
    run = Run.load(args.run, device=args.device, precision=args.precision)
    note_unfinished(args, args.run)
    if not args.quiet and is_main():
        print(f"precision {run.precision}", file=sys.stderr)
    return run
