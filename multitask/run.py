"""A run: trained into a folder, scored and used from it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self, overload

from minbert.errors import InputError
from minbert.fit import check_fit
from minbert.tokenizer import BertTokenizer
from multitask.data.batches import EncodedTexts
from multitask.data.examples import Dataset, Example, OnBad, iter_examples
from multitask.data.load import read_split, to_task_data
from multitask.data.memory import Frame, Given, has_columns, is_frame, is_mapping, memory_rows, rows_by_task
from multitask.errors import ConfigError, RunError
from multitask.evaluation import evaluate_tasks, outputs_of
from multitask.metrics import Score
from multitask.model.losses import predicted_values
from multitask.model.model import MultitaskModel, best_folder
from multitask.plugins import require_parts
from multitask.precision import choose_device, choose_precision
from multitask.settings.checks import listed, shown
from multitask.settings.config import RunConfig
from multitask.settings.task import Task

__all__ = ["Prediction", "Run", "read_config", "read_record", "read_rows", "recorded_tasks"]

# Rows that prediction holds at a time: enough to group like lengths, however long the input.
_WINDOW = 4096


@dataclass(frozen=True)
class Prediction:
    """The answer for one row: the label as the training file spells it, or a number, and each class's probability.

    Of a multilabel task the label is a tuple of any number of them, and the probabilities don't add up to one.

    :param truncated: the row was longer than the encoder's positions, or its windows; only a part of it was used.
    """

    id: str
    label: str | float | tuple[str, ...]
    probabilities: tuple[float, ...] | None
    truncated: bool = False


class Run:
    """A trained model with its configuration, from a folder that works without the cache and on another machine.

    ``given`` holds the rows in memory that it was trained with, in the process that did so.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        model: MultitaskModel,
        tokenizer: BertTokenizer,
        *,
        device: str = "auto",
        precision: str | None = None,
        given: Given | None = None,
    ) -> None:
        self.given = given or {}
        self.folder, self.config, self.tokenizer = folder, config, tokenizer
        self.device = choose_device(device)
        self.dtype, self.precision = choose_precision(precision or config.train.precision, self.device)
        self.model = model.to(self.device).eval()

    @classmethod
    def load(
        cls, folder: str | Path, *, device: str = "auto", precision: str | None = None, given: Given | None = None
    ) -> Self:
        """Load the best epoch so far of a run folder.

        :param device: as in ``train``.
        :param given: rows in memory that it was trained with; evaluate takes a user's own.
        :param precision: ``"auto"``, ``"float32"`` or ``"bfloat16"`` instead of what the run was trained with.
        :raises ConfigError: for a device or precision that is not allowed, or not there.
        :raises WeightsError: for weights that are broken.
        :raises RunError: for a folder that holds no run, or a broken one, or without a part of one's own that it needs.
        """
        folder = Path(folder)
        _require_folder(folder)
        best = best_folder(folder)
        config = read_config(folder)
        model = MultitaskModel.from_pretrained(best)
        tokenizer = BertTokenizer.from_pretrained(_first_encoder_folder(best))
        for task in model.tasks:
            check_fit(tokenizer, model.encoder_of(task).config, best)
        return cls(folder, config, model, tokenizer, device=device, precision=precision, given=given)

    def evaluate(
        self, split: str = "dev", *, data: str | Path | Mapping[str, Any] | None = None, bad_rows: OnBad = "missing"
    ) -> dict[str, Score]:
        """Score each task on a split's labelled rows, with 95 % bootstrap intervals.

        :param data: a folder with the files of the configuration, if they moved; or rows in memory by task,
            ``{"topic": rows}``, or by task and split as for ``train``, to be taken instead of files.
        :param bad_rows: as in ``train``.
        :return: each task's score, by name.
        :raises ConfigError: for an unknown split, or a task that has none.
        :raises DataError: for files and rows that can't be used.
        """
        datasets = read_rows(self.folder, self.config, split, data=data, bad_rows=bad_rows, given=self.given)
        rows = to_task_data(datasets, self.model.tasks, self.tokenizer, self.model.max_length)
        scores = evaluate_tasks(self.model, rows, device=self.device, dtype=self.dtype, intervals=True)
        return {
            name: replace(score, left_out=len(datasets[name].skipped), cut=int(rows[name].texts.truncated.sum()))
            for name, score in scores.items()
        }

    @overload
    def predict(self, task: str, rows: Frame) -> Any: ...
    @overload
    def predict(
        self, task: str, rows: Iterable[str | tuple[str, ...] | list[str] | Mapping[str, Any]]
    ) -> list[Prediction]: ...
    def predict(self, task: str, rows: Any) -> Any:
        """Answer texts, pairs of texts, or rows with the task's columns, in their order.

        :param rows: a list of str or tuple[str, ...]; or of dicts, a DataFrame or whatever else ``train`` takes. An
            id is the row's, or else its number from 1.
        :return: a list of predictions; for a DataFrame one of its index, with the columns prediction (of a multilabel
            task lists), ``p_<label>`` for each class, and truncated.
        :raises InputError: for a single text instead of a list, or a row that is neither str nor tuple[str, ...].
        :raises DataError: for rows without the task's columns, and for one without a text.
        :raises ConfigError: for a task that the run lacks, or a row with another number of texts than the task has.
        """
        described = self._task(task)
        answers = list(self.predict_stream(task, _examples(described, rows)))
        if not is_frame(rows):
            return answers
        labels = (answer.label for answer in answers)
        table: dict[str, list[Any]] = {
            "prediction": [list(label) if isinstance(label, tuple) else label for label in labels]
        }
        for place, label in enumerate(described.classes):
            table[f"p_{label}"] = [
                answer.probabilities[place] for answer in answers if answer.probabilities is not None
            ]
        table["truncated"] = [answer.truncated for answer in answers]
        return type(rows)(table, index=rows.index)

    def _task(self, name: str) -> Task:
        if name not in self.model.tasks:
            raise ConfigError(f"task must be one of {listed(self.model.tasks)}, got {name!r}")
        return self.model.tasks[name]

    def predict_stream(self, task: str, examples: Iterable[Example]) -> Iterator[Prediction]:
        """Answer any number of examples in their order; a window of them is held at a time, grouped by length."""
        described = self._task(task)
        source = iter(examples)
        while window := list(islice(source, _WINDOW)):
            yield from self._predict_window(described, window)

    def read_split(
        self, split: str = "test", *, task: str | None = None, data: str | Path | None = None, bad_rows: OnBad = "error"
    ) -> dict[str, Dataset]:
        """Read a split's rows of every task, or of one, for predict_stream; files of such rows need no labels.

        :param data: a folder with the files of the configuration, if they moved.
        :param bad_rows: as in ``train``, but "error" unless told: of rows that are left out there is no answer.
        :raises ConfigError: for a task that the run lacks, or one without rows of the split.
        :raises DataError: for files and rows that can't be used, naming file and line.
        """
        config = self.config
        if task is not None:
            self._task(task)
            if split == "test":  # which rows are held out of a file may depend on all tasks that read it
                config = replace(config, tasks=(config.task(task),))
        rows = read_rows(self.folder, config, split, data=data, bad_rows=bad_rows, given=self.given, labelled=False)
        return {name: dataset for name, dataset in rows.items() if task in (None, name)}

    def _predict_window(self, task: Task, window: Sequence[Example]) -> Iterator[Prediction]:
        for example in window:
            if len(example.texts) != len(task.text):
                raise ConfigError(
                    f"row {example.id}: the number of texts must be {len(task.text)} for task {task.name},"
                    f" got {len(example.texts)}"
                )
        rows = [example.texts for example in window]
        texts = EncodedTexts(task, rows, self.tokenizer, self.model.max_length)
        outputs = outputs_of(self.model, task.name, texts, device=self.device, dtype=self.dtype)
        values, probabilities = predicted_values(task, outputs)
        spread = [None] * len(window) if probabilities is None else [tuple(row) for row in probabilities.tolist()]
        for example, value, row, cut in zip(window, values.tolist(), spread, texts.truncated.tolist(), strict=True):
            yield Prediction(example.id, task.rules.spell(task, value), row, cut)


def read_rows(
    folder: Path,
    config: RunConfig,
    split: str,
    *,
    data: str | Path | Mapping[str, Any] | None = None,
    bad_rows: OnBad = "missing",
    given: Given | None = None,
    labelled: bool = True,
) -> dict[str, Dataset]:
    """Read a run's rows of one split by task: of the files that its settings name, or held out as for its training.

    :param folder: the run's, whose record says what was held out.
    :param config: its settings.
    :param data: as in Run.evaluate.
    :param given: rows in memory that it was trained with.
    :param labelled: False leaves labels out wherever a split has rows of its own, which then need none.
    :raises ConfigError: for a task without rows of the split.
    :raises DataError: for files and rows that can't be used, naming file and line.
    """
    given = {name: dict(splits) for name, splits in (given or {}).items()}
    if isinstance(data, str | Path):
        config = config.with_data(data)
    elif data is not None:
        for name, splits in rows_by_task(data, config.tasks, split=split).items():
            given[name] = {**given.get(name, {}), **splits}
    before = recorded_tasks(folder)
    if before and not any("held_with" in task for task in before.values()):
        # A run from when a tenth of any number of rows was held out.
        config = replace(config, train=replace(config.train, hold_out=True))
    return read_split(
        config,
        split,
        bad_rows=bad_rows,
        given=given,
        from_memory={name: task.get("from_memory", []) for name, task in before.items()},
        held_with={name: task.get("held_with", []) for name, task in before.items()} or None,
        labelled=labelled,
    )


def read_config(folder: Path) -> RunConfig:
    """Return the settings of a run folder.

    :raises RunError: for one without them, or without a part of one's own that they name.
    """
    _require_folder(folder)
    require_parts(folder, read_record(folder).get("plugins", {}))
    path = folder / "config.json"
    try:
        return RunConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: can't be read ({error})") from None
    except ConfigError as error:
        raise RunError(f"{path}: {error}") from None


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such run folder")
    run = folder.resolve().parent
    if folder.resolve() == run / "best" and (folder / "tasks.json").is_file() and (run / "config.json").is_file():
        raise RunError(f"{folder}: must be a run folder, got the epoch that it kept; name {run}")


def _first_encoder_folder(best: Path) -> Path:
    return best if (best / "config.json").exists() else next(path.parent for path in sorted(best.glob("*/config.json")))


def _examples(task: Task, rows: Any) -> Iterable[Example]:
    """Return rows of any form that predict takes as examples."""
    if isinstance(rows, str | bytes | type | Mapping) or not hasattr(rows, "__iter__"):
        example = f", such as [{shown(rows)}]" if isinstance(rows, str | dict) else ""
        raise InputError(f"rows must be a list of texts or dicts, or a DataFrame{example}, got {shown(rows)}")
    if not has_columns(rows):
        rows = list(rows)
        if not rows or not is_mapping(rows[0]):
            return [_example(number, row) for number, row in enumerate(rows, 1)]
    return iter_examples(memory_rows(rows, task, "rows", labelled=False), task)


def _example(number: int, row: Any) -> Example:
    texts = (row,) if isinstance(row, str) else row
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"row {number} must be str or tuple[str, ...], got {shown(row)}")
    return Example(id=str(number), texts=tuple(texts), label=None, line=number)


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a run's record.json says; {} where there is none to be read: a run may be used without one."""
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what a run's record says by task, such as the splits that it was trained with from memory."""
    try:
        return {name: dict(task) for name, task in read_record(folder)["tasks"].items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # of a run before rows in memory, or a folder of which only the model was kept
