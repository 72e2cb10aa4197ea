"""What a pretraining tells the person who waits for it, on standard error."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from multitask.pretraining.settings import PretrainConfig
from multitask.pretraining.steps import MaskedScore, Step

__all__ = ["Report"]


class Report:
    """Prints what is read, a bar per epoch and the scores; says nothing when ``active`` is False."""

    def __init__(self, active: bool) -> None:
        self.active = active

    def opening(self, record: Mapping[str, Any], steps: int, settings: PretrainConfig) -> None:
        """Say what is trained on, what from, and what was left out."""
        self.say(record["weights_loaded"])
        for changed in record["resumed_with_changes"]:
            for what, (before, now) in changed.items():
                self.say(f"resumed with other {what}, so not to the same bytes: {before} before, {now} now")
        if record["head"] == "new":
            self.say(
                "these weights have no masked-language-model head: it starts as the identity on the normed states, with"
                " the word embeddings as its decoder and the tokens' frequencies as its bias"
            )
        else:
            self.say("the masked-language-model head is that of the weights")
        self.say(
            f"{record['texts'] + record['held_out_texts']:,} texts, {record['held_out_texts']:,} of them held out;"
            f" left out {record['empty']:,} empty and {record['repeated']:,} that repeat another"
        )
        if record["cut_texts"]:
            self.say(
                f"{record['cut_texts']:,} texts are longer than {record['max_length']} tokens and cut into several rows"
            )
        if record["rows_without_known_tokens"]:
            self.say(f"left out {record['rows_without_known_tokens']:,} rows whose tokens are all unknown")
        words = "whole words" if settings.whole_words else "tokens"
        self.say(
            f"precision {record['precision_chosen']}; {settings.epochs} epochs of {steps:,} steps of up to"
            f" {settings.batch_size} rows, 15 % of the tokens chosen anew in each, by {words}"
        )

    @contextmanager
    def bar(self, epoch: int, start: int, total: int, epochs: int) -> Iterator[Callable[[Step], None]]:
        """Give a function that takes each step of an epoch, and shows its number and a running mean of the losses."""
        mean: list[float] = []
        title = f"epoch {epoch + 1}/{epochs}"
        with tqdm(total=total, initial=start, desc=title, unit="step", disable=not self.active, mininterval=1.0) as bar:

            def show(step: Step) -> None:
                mean[:] = [step.loss if not mean else 0.95 * mean[0] + 0.05 * step.loss]
                bar.set_postfix_str(f"loss {mean[0]:.3f}", refresh=False)
                bar.update()

            yield show

    def score(self, epoch: int, score: MaskedScore) -> None:
        """Say how well the masked tokens of the texts held out are filled in."""
        when = f"after epoch {epoch}" if epoch else "before training"
        self.say(
            f"{when}, held out: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}, accuracy"
            f" {score.accuracy:.3f} of {score.n:,} masked tokens"
        )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.active:
            tqdm.write(text, file=sys.stderr)
