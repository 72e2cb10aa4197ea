"""What a training tells the person who waits for it, on standard error."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

from multitask.distributed import is_main
from multitask.metrics import Score
from multitask.settings.config import TrainConfig
from multitask.training.loop import RoundRecord

__all__ = ["Reporter"]


class Reporter:
    """Prints an estimate, a bar per epoch and the dev scores; says nothing when ``active`` is False."""

    def __init__(self, active: bool) -> None:
        self.active = active

    def opening(
        self, record: Mapping[str, Any], rounds_per_epoch: int, settings: TrainConfig, estimate: Callable[[], float]
    ) -> None:
        """Say what is about to be trained, what was left out of it, and how long it is likely to take."""
        if not self.active:
            for name, task in record["tasks"].items():
                if task["skipped"] and is_main():  # also when quiet: the run is not of all rows
                    count = len(task["skipped"])
                    print(
                        f"{name}: left out {count} row{'s' if count > 1 else ''}, the first: {task['skipped'][0]}",
                        file=sys.stderr,
                    )
            return
        for report in dict.fromkeys(record["weights"].values()):
            self.say(report)
        for changed in record["resumed_with_changes"]:
            for what, (before, now) in changed.items():
                self.say(f"resumed with other {what}, so not to the same bytes: {before} before, {now} now")
        for name, task in record["tasks"].items():
            shown = [repr(label) for label in task["classes"]]
            if len(shown) > 10:
                shown[9:] = [f"{len(shown) - 9} more"]
            classes = f", classes {', '.join(shown)}" if shown else ""
            self.say(f"{name}: {task['train_rows']} training rows, {task['dev_rows']} dev rows{classes}")
            for row in task["skipped"]:
                self.say(f"{name}: left out {row}")
        for note in record["notes"]:
            self.say(note)
        rounds = settings.epochs * rounds_per_epoch
        minutes = estimate() * rounds / 60
        self.say(
            f"precision {record['precision_chosen']}; {settings.epochs} epochs of {rounds_per_epoch} rounds,"
            f" about {minutes:.1f} minutes of training"
        )

    def bar(
        self, rounds: Iterable[RoundRecord], start: int, total: int, epoch: int, epochs: int
    ) -> Iterator[RoundRecord]:
        """Yield an epoch's rounds from ``start``, showing rows/s, running means of the losses and the time left."""
        means: dict[str, float] = {}
        rows, seconds = 0, 0.0
        title = f"epoch {epoch}/{epochs}"
        with tqdm(
            total=total, initial=start, desc=title, unit="round", disable=not self.active, mininterval=1.0
        ) as bar:
            for done in rounds:
                for name, step in done.tasks.items():
                    if step.loss is None:
                        self.say(f"round {done.number}, {name}: skipped, the loss or its gradient was not finite")
                        continue
                    means[name] = step.loss if name not in means else 0.95 * means[name] + 0.05 * step.loss
                rows += sum(step.rows for step in done.tasks.values())
                seconds += done.seconds
                losses = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
                bar.set_postfix_str(f"{rows / seconds:.0f} rows/s, loss {losses}", refresh=False)
                bar.update()
                yield done

    def scores(self, epoch: int, scores: Mapping[str, Score], mean: float | None, *, select: str, kept: bool) -> None:
        """Say the dev scores of an epoch, if there are any, and whether it is the best so far by ``select``."""
        if not scores:
            return
        shown = ", ".join(f"{name} {score.value:.3f}" for name, score in scores.items())
        shown += "".join(
            f", {name} {metric} {value:.3f}" for name, score in scores.items() for metric, value in score.others.items()
        )
        shown += "" if mean is None else f"; mean {mean:.3f}"
        self.say(f"epoch {epoch} dev: {shown}" + (f" (best so far by {select}, kept)" if kept else ""))

    def ended(self, rounds: int, reason: str) -> None:
        """Say why the training ends before its last epoch."""
        self.say(f"stopped after {rounds} rounds: {reason}")

    def say(self, text: str) -> None:
        """Say a sentence, beside the bar."""
        if self.active:
            tqdm.write(text, file=sys.stderr)
