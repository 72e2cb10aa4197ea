"""The command line: ``multitask`` or ``python -m multitask``.

The exit statuses are here, the parser in cli/parser.py. What the commands do is in cli/commands.py, which is imported
once the arguments are known to be right, so that ``--help`` and a mistyped option answer without loading torch.
"""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from multitask.cli.parser import PROGRAM, USAGE_ERROR, build_parser
from multitask.errors import ConfigError, StoppedError

__all__ = ["main"]

TROUBLE = 1
INTERRUPTED = 130  # 128 + SIGINT, as shells count
READER_GONE = 141  # 128 + SIGPIPE


def _is_too_long(argument: str) -> bool:
    """Return whether a part of a path is longer than file systems take: any use of it would be an OSError."""
    return any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in argument.split("/"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    The package's own errors become one line on standard error; anything else is a bug and keeps its traceback.

    :param argv: the words after the program's name; None: those of this process.
    :return: the exit status. 0: done. 2: wrong usage or configuration. 1: trouble with data, weights or a run. 130:
        interrupted. 141: the reader of our output left.
    """
    _open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        # Output is files for other programs: the same bytes whatever the locale. Odd bytes of a path stay themselves.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as leave:  # --help leaves with 0, a usage error with 2
        return int(leave.code or 0)
    if args.version:
        from minbert import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE_ERROR

    too_long = next((text for text in argv or sys.argv[1:] if _is_too_long(text)), None)
    if too_long is not None:
        print(f"{PROGRAM}: error: {too_long[:40]}... has a file name of over 255 bytes", file=sys.stderr)
        return USAGE_ERROR
    try:
        from minbert.errors import MinbertError
        from multitask.cli import commands

        try:
            commands.run(args)
            sys.stdout.flush()
        except MinbertError as error:
            # torchrun tells its processes their numbers so; without it there is one.
            which = f" in process {os.environ.get('RANK', '?')}" if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
            print(f"{PROGRAM}: error{which}: {error}", file=sys.stderr)
            if isinstance(error, StoppedError):
                return 128 + error.signum  # as shells count: 143 after SIGTERM, 130 after SIGINT
            return USAGE_ERROR if isinstance(error, ConfigError) else TROUBLE
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); what Python still holds must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except OSError as error:  # of the world: a folder that may not be entered, a full disk behind standard output
        what = error.filename or "an input or output"
        print(f"{PROGRAM}: error: {what} can't be read or written: {error.strerror or error}", file=sys.stderr)
        return TROUBLE
    return 0


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed, as under cron: the next file would take its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the process's life


if __name__ == "__main__":
    sys.exit(main())
