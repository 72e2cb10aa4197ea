"""Draw how far the tasks' gradients of the encoder agreed over one or more trainings with --log-conflict, as an SVG.

    multitask train --tasks examples/tasks.toml --log-conflict --out runs/conflict
    python examples/plot_conflict.py runs/conflict --out conflict.svg

Takes a second. Prints for each run and pair of tasks the mean cosine and in how many rounds it was below zero. In the
picture each run has a panel, each pair a line: the mean over the last --window rounds.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT, LEFT, RIGHT, TOP = 880, 250, 60, 170, 44  # of a panel, in pixels; margins
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by all eyes
Cosines = dict[str, tuple[np.ndarray, np.ndarray]]  # by pair: rounds and cosines, (rounds,) each


def cosines_of(run: Path) -> Cosines:
    """Read the cosines of a run's log; of each pair those that are defined."""
    found: dict[str, list[tuple[int, float]]] = {}
    log = run / "metrics.jsonl"
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():  # of a run in training the last one may be half written
        step = json.loads(line)
        for other, value in step.get("cosines", {}).items():
            if value is not None and f"{other} / {step['task']}" not in found:  # a pair is logged both ways
                found.setdefault(f"{step['task']} / {other}", []).append((step["round"], value))
    if not found:
        raise SystemExit(f"{log}: has no cosines; train with --log-conflict")
    columns = {pair: np.array(points).T for pair, points in found.items()}
    return {pair: (rounds, values) for pair, (rounds, values) in columns.items()}


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of each value and those before it, ``window`` in all at most."""
    sums = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def panel(title: str, pairs: Cosines, window: int, top: int, limit: float, last: int) -> list[str]:
    """Draw one run.

    :param top: where the panel begins.
    :param limit: the largest cosine that fits, of either sign.
    :param last: the last round that fits.
    """
    right, bottom = WIDTH - RIGHT, top + HEIGHT - 40

    def x(rounds: Any) -> Any:
        return LEFT + (right - LEFT) * (rounds - 1) / max(1, last - 1)

    def y(values: Any) -> Any:
        return (top + TOP + bottom) / 2 - (bottom - top - TOP) / 2 * values / limit

    parts = [f'<text x="{LEFT}" y="{top + 28}" font-weight="600">{escape(title)}</text>']
    for value in (-limit, -limit / 2, 0.0, limit / 2, limit):
        colour = "#424a53" if value == 0 else "#d0d7de"
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{right}" stroke="{colour}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    for number in sorted({1, (last + 1) // 2, last}):
        parts.append(f'<text x="{x(number):.1f}" y="{bottom + 20}" text-anchor="middle">{number}</text>')
    parts.append(f'<text x="{right + 12}" y="{bottom + 20}">round</text>')
    for index, (pair, (rounds, values)) in enumerate(pairs.items()):
        colour, means = COLOURS[index % len(COLOURS)], running_mean(values, window)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x(rounds), y(means), strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        where, below = top + TOP + 20 + 36 * index, (values < 0).mean()
        parts.append(f'<text x="{right + 12}" y="{where}" fill="{colour}" font-weight="600">{escape(pair)}</text>')
        parts.append(f'<text x="{right + 12}" y="{where + 15}" font-size="12">{below:.0%} of rounds below 0</text>')
    return parts


def picture(runs: Mapping[str, Cosines], window: int) -> str:
    """Draw all runs to one scale, one panel below the other."""
    curves = [pair for pairs in runs.values() for pair in pairs.values()]
    largest = max(float(np.abs(running_mean(values, window)).max()) for _, values in curves)
    limit = max(0.1, np.ceil(10 * largest) / 10)
    last = max(int(rounds[-1]) for rounds, _ in curves)
    height = HEIGHT * len(runs)
    text = f"Cosines between the tasks' gradients of the encoder, means over {window} rounds"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title"',
        '  font-family="system-ui, \'Segoe UI\', Helvetica, Arial, sans-serif" font-size="14" fill="#1f2328">',
        f'<title id="title">{text}</title>',
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#ffffff" stroke="#d0d7de"/>',
    ]
    for index, (name, pairs) in enumerate(runs.items()):
        parts += panel(f"{name}: {text[0].lower()}{text[1:]}", pairs, window, HEIGHT * index, limit, last)
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Read the runs, print their means, write the picture."""
    parser = argparse.ArgumentParser(description="Draw the cosines between tasks' gradients over trainings.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders that train --log-conflict wrote")
    parser.add_argument("--out", type=Path, default=Path("conflict.svg"), help="picture to write (conflict.svg)")
    parser.add_argument("--window", type=int, help="rounds in a mean (a twentieth of the longest run)")
    args = parser.parse_args()
    if args.window is not None and args.window < 1:
        parser.error(f"--window must be at least 1, got {args.window}")
    names = [run.resolve().name for run in args.runs]
    # Runs of one name, such as a/run and b/run, are told apart by their folders.
    titles = [name if names.count(name) == 1 else str(run) for name, run in zip(names, args.runs, strict=True)]
    runs = {title: cosines_of(run) for title, run in zip(titles, args.runs, strict=True)}
    last = max(int(rounds[-1]) for pairs in runs.values() for rounds, _ in pairs.values())
    args.out.write_text(picture(runs, args.window or max(1, last // 20)), encoding="utf-8")
    for name, pairs in runs.items():
        for pair, (_, values) in pairs.items():
            print(f"{name}  {pair}  mean {values.mean():+.3f}  below zero in {(values < 0).mean():.0%} of the rounds")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error}")
