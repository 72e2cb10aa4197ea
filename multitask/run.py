"""A run: trained into a folder, scored and used from it."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Self

from minbert.errors import InputError
from minbert.tokenizer import BertTokenizer
from multitask.data.batches import EncodedTexts
from multitask.data.examples import Example, OnBad
from multitask.data.load import read_split, to_task_data
from multitask.errors import ConfigError, RunError
from multitask.evaluation import evaluate_tasks, outputs_of
from multitask.metrics import Score
from multitask.model.losses import predicted_values
from multitask.model.model import MultitaskModel, best_folder
from multitask.precision import choose_device, choose_precision
from multitask.settings.checks import shown
from multitask.settings.config import RunConfig
from multitask.settings.task import Task

__all__ = ["Prediction", "Run"]

# Rows that prediction holds at a time: enough to group like lengths, however long the input.
_WINDOW = 4096


@dataclass(frozen=True)
class Prediction:
    """The answer for one row: the label as the training file spells it, or a number, and each class's probability.

    truncated: the row was longer than the encoder's positions, so the answer is one to its beginning.
    """

    id: str
    label: str | float
    probabilities: tuple[float, ...] | None
    truncated: bool = False


class Run:
    """A trained model with its configuration, from a folder that works without the cache and on another machine."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        model: MultitaskModel,
        tokenizer: BertTokenizer,
        *,
        device: str = "auto",
        precision: str | None = None,
    ) -> None:
        self.folder, self.config, self.tokenizer = folder, config, tokenizer
        self.device = choose_device(device)
        self.dtype, self.precision = choose_precision(precision or config.train.precision, self.device)
        self.model = model.to(self.device).eval()

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", precision: str | None = None) -> Self:
        """The best epoch so far of a run folder. Raises RunError for a folder that holds none.

        :param precision: ``"auto"``, ``"float32"`` or ``"bfloat16"`` instead of what the run was trained with.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise RunError(f"{folder}: there is no such run folder")
        best = best_folder(folder)
        path = folder / "config.json"
        try:
            config = RunConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: can't be read ({error})") from None
        except ConfigError as error:
            raise RunError(f"{path}: {error}") from None
        model = MultitaskModel.from_pretrained(best)
        tokenizer = BertTokenizer.from_pretrained(_first_encoder_folder(best))
        return cls(folder, config, model, tokenizer, device=device, precision=precision)

    def evaluate(
        self, split: str = "dev", *, data: str | Path | None = None, bad_rows: OnBad = "missing"
    ) -> dict[str, Score]:
        """Score of each task on a split's labelled rows, with its 95 % bootstrap interval.

        :param data: a folder with the files of the configuration, if they moved.
        :param bad_rows: as in ``train``.
        """
        config = self.config if data is None else self.config.with_data(data)
        datasets = read_split(config, split, bad_rows=bad_rows)
        rows = to_task_data(datasets, self.model, self.tokenizer)
        scores = evaluate_tasks(self.model, rows, device=self.device, dtype=self.dtype, intervals=True)
        return {
            name: replace(score, left_out=len(datasets[name].skipped), cut=int(rows[name].texts.truncated.sum()))
            for name, score in scores.items()
        }

    def predict(self, task: str, rows: Sequence[str | tuple[str, ...]]) -> list[Prediction]:
        """Answers for texts, or pairs of texts, in their order; ids count from 1.

        :raises InputError: for a single text in the place of a list, or a row that is no text or tuple of texts.
        """
        if isinstance(rows, str):
            raise InputError(f"rows is the text {shown(rows)}; a list of texts is due, such as [{shown(rows)}]")
        examples = []
        for number, row in enumerate(rows, 1):
            texts = (row,) if isinstance(row, str) else row
            if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
                raise InputError(f"row {number} is {shown(row)}; a text or a tuple of texts is due")
            texts = tuple(texts)
            examples.append(Example(id=str(number), texts=texts, label=None, line=number))
        return list(self.predict_stream(task, examples))

    def predict_stream(self, task: str, examples: Iterable[Example]) -> Iterator[Prediction]:
        """The same for any number of examples: a window of them is held, grouped by length, given in order."""
        if task not in self.model.tasks:
            raise ConfigError(f"task is {task!r}; this run has: {', '.join(self.model.tasks)}")
        described = self.model.tasks[task]
        source = iter(examples)
        while window := list(islice(source, _WINDOW)):
            yield from self._predict_window(described, window)

    def _predict_window(self, task: Task, window: Sequence[Example]) -> Iterator[Prediction]:
        for example in window:
            if len(example.texts) != len(task.text):
                raise ConfigError(
                    f"row {example.id} has {len(example.texts)} texts; task {task.name} takes {len(task.text)}"
                )
        rows = [example.texts for example in window]
        texts = EncodedTexts(task, rows, self.tokenizer, self.model.max_length)
        outputs = outputs_of(self.model, task.name, texts, device=self.device, dtype=self.dtype)
        values, probabilities = predicted_values(task, outputs)
        spread = [None] * len(window) if probabilities is None else [tuple(row) for row in probabilities.tolist()]
        for example, value, row, cut in zip(window, values.tolist(), spread, texts.truncated.tolist(), strict=True):
            label = value if task.kind == "regression" else task.classes[value]
            yield Prediction(example.id, label, row, cut)


def _first_encoder_folder(best: Path) -> Path:
    return best if (best / "config.json").exists() else next(path.parent for path in sorted(best.glob("*/config.json")))
