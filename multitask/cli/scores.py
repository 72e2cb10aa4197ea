"""How scores are shown: a table, or JSON."""

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multitask.metrics import Score
    from multitask.run import Run

__all__ = ["counted", "print_scores", "scores_as_json"]


def counted(rows: int) -> str:
    """Return "1 row", "2 rows"."""
    return f"{rows} row" if rows == 1 else f"{rows} rows"


def print_scores(
    scores: Mapping[str, "Score"], run: "Run", *, crossed: Mapping[str, Any] | None = None, said: bool = False
) -> None:
    """Print a line per task and, for several tasks, the plain mean of their scores, if none is an error.

    :param crossed: record.json's scores of tasks without dev rows.
    :param said: which rows were left out or cut has been said.
    """
    from multitask.data.long_texts import cut_note
    from multitask.evaluation import mean_score
    from multitask.metrics import Score

    estimates: dict[str, Score] = {}
    for name, of in (crossed or {}).items():
        value, low, high = (math.nan if of[key] is None else of[key] for key in ("value", "low", "high"))
        estimates[name] = Score(value, low, high, of["n"], of["metric"])
    if not scores and not estimates:
        print("no dev rows, and no new decoder that starts from a probe: there is no score")
        return
    width = max(10, *(len(score.metric) + 2 for score in (*scores.values(), *estimates.values())))
    print(f"{'task':<12}{'metric':<{width}}{'score':>7}  {'95 % interval':<14}{'rows':>7}{'macro-F1':>10}")
    for name, score in (*scores.items(), *estimates.items()):
        f1 = "" if score.macro_f1 is None else f"{score.macro_f1:.3f}"
        interval = f"{score.low:.3f} .. {score.high:.3f}"
        print(f"{name:<12}{score.metric:<{width}}{score.value:>7.3f}  {interval:<14}{score.n:>7}{f1:>10}")
    mean = mean_score(list(scores.values()))
    if len(scores) > 1 and mean is not None:
        print(f"{'mean':<{12 + width}}{mean:>7.3f}")
    for name, score in estimates.items():
        print(
            f"{name}: no dev rows; the score is that of the probe its decoder starts from, cross-validated on the"
            f" {counted(score.n)} that were trained on"
        )
    for name, score in () if said else scores.items():
        if score.left_out:
            print(f"{name}: left out {counted(score.left_out)}", file=sys.stderr)
        if score.cut:
            long, most = run.model.tasks[name].long, run.model.max_length
            print(cut_note(name, long, score.cut, score.n, most), file=sys.stderr)


def scores_as_json(scores: Mapping[str, "Score"], *, split: str) -> dict[str, object]:
    """Return what ``evaluate --json`` prints; a score that is not finite is null, since JSON has no NaN."""
    from dataclasses import asdict

    from multitask.evaluation import mean_score

    tasks = {
        name: {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(score).items()
            if key != "others"  # which only a training asks for
        }
        for name, score in scores.items()
    }
    return {"split": split, "mean": mean_score(list(scores.values())), "tasks": tasks}
