"""Look at a file before anything is trained on it: what it seems to be, what is odd in it, and the task it makes."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from minbert.errors import WeightsError
from minbert.files.checkpoint import read_config
from minbert.files.registry import resolve
from minbert.tokenizer import BertTokenizer
from multitask.data.batches import EncodedTexts
from multitask.data.examples import Example
from multitask.data.load import prepare
from multitask.data.repeats import find_repeats
from multitask.data.splits import shared_rows
from multitask.errors import ConfigError, DataError
from multitask.inspection.guesses import Guess, guess
from multitask.inspection.peeking import peek
from multitask.settings.checks import check_known, shown
from multitask.settings.config import RunConfig
from multitask.settings.format import FORMAT_KEYS, Format
from multitask.settings.kinds import KINDS
from multitask.settings.presets import DEFAULT_PRESET, PRESETS
from multitask.settings.task import Task

__all__ = ["Lengths", "Report", "inspect_file"]

# Rows whose tokens are counted, spread over the file.
COUNTED = 20_000
# Classes that the TOML lists: more are taken from the file.
LISTED = 20


@dataclass(frozen=True)
class Lengths:
    """Tokens of the training rows.

    :param rows: how many were counted.
    :param most: the tokens that the encoder takes; ``cut`` rows have more.
    :param histogram: rows by the most tokens that they have: 8, 16, 32 and so on.
    """

    rows: int
    median: int
    longest: int
    most: int
    cut: int
    histogram: dict[int, int]


@dataclass(frozen=True)
class Report:
    """What is known of a file.

    :param dialect: how it is written.
    :param columns: their names.
    :param guess: what they seem to be.
    :param rows: that can be used, of the file and of the dev file; ``held_out`` of them where there is no dev file.
    :param labels: rows by class, the most frequent first; of numbers the lowest, the median and the highest.
    :param has_classes: which of the two.
    :param bad: the rows that can't be used, each in a sentence.
    :param duplicates: rows with texts and label of an earlier one.
    :param conflicts: rows with the texts of another one and a different label.
    :param overlap: dev rows whose texts are also in train.
    :param notes: what training would say.
    :param toml: the task, to be pasted; "" where it can't be told.
    """

    path: str
    dialect: str
    columns: list[str]
    guess: Guess
    rows: int
    dev_rows: int = 0
    labels: dict[str, float] = field(default_factory=dict)
    has_classes: bool = True
    bad: list[str] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0
    conflicting_lines: list[tuple[int, int]] = field(default_factory=list)
    overlap: int = 0
    lengths: Lengths | None = None
    notes: list[str] = field(default_factory=list)
    toml: str = ""


def inspect_file(
    path: str | Path,
    *,
    dev: str | Path | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    kind: str | None = None,
    format: Format | None = None,
    weights: str | None = None,
) -> Report:
    """Look at a file of labelled rows.

    :param dev: a file of dev rows, written in the same way.
    :param text: its one or two text columns; these and the next two are guessed unless given.
    :param format: how it is written, where looking is not enough.
    :param weights: whose tokens are counted; None counts none.
    :raises DataError: for a file that can't be read, or is no table.
    :raises ConfigError: for columns and kinds that there are not.
    """
    format = format or Format()
    seen = peek(path, format)
    if not seen.rows:
        raise DataError(f"{path} must have rows below its header, got none")
    check_known("--text", text or (), seen.columns)
    check_known("--label", [] if label is None else [label], seen.columns)
    check_known("--kind", [kind] if kind else [], tuple(KINDS))
    found = guess(seen.cells, text=text, label=label, kind=kind)
    report = Report(str(path), str(seen.dialect), seen.columns, found, seen.rows)
    notes = [f"the header has {shown(name)} several times: such columns can't be named" for name in seen.repeated]
    lacking = [what for what, there in (("text", found.text), ("label", found.label)) if not there]
    if lacking:
        bad = [str(row) for row in seen.bad]
        options = " and ".join(f"--{what} COLUMN" for what in lacking)
        note = f"no column looks like a {' and no column like a '.join(lacking)}: name it with {options}"
        return replace(report, bad=bad, notes=[*notes, note if len(bad) < seen.rows else "no row can be read"])
    several: dict[str, Any] = {"label_separator": found.separator} if found.separator else {}
    task = Task(
        name=_task_name(path),
        text=found.text,
        label=found.label,
        id=found.id or (None if "id" in (*found.text, found.label) else "id"),
        kind=found.kind,
        train=path,
        dev=dev,
        format=format,
        **several,
    )
    try:
        prepared = prepare(RunConfig(tasks=[task]), bad_rows="skip")
    except DataError as error:
        return replace(report, notes=[*notes, f"can't be trained on as it is: {error}"])
    task = prepared.config.tasks[0]
    rows, dev_rows = prepared.train[task.name], prepared.dev[task.name]
    examples = list(rows.examples) if dev else sorted([*rows.examples, *dev_rows.examples], key=lambda row: row.where)
    repeats = find_repeats(examples)
    dialect = str(rows.dialect or seen.dialect)
    notes += [note for note in prepared.notes if dialect not in note]  # the report says that anyway
    stopping = sum(not row.missing for row in rows.skipped)
    if stopping:
        notes.append(f"{stopping} of the rows left out stop the training, unless --bad-rows skip leaves them out, too")
    lengths = None
    if weights is not None:
        try:
            lengths = _lengths(task, examples, weights)
        except WeightsError as error:
            notes.append(f"tokens are not counted: {error}")
    return replace(
        report,
        dialect=dialect,
        rows=len(examples),
        dev_rows=len(dev_rows.examples) if dev else 0,
        labels=_labels(task, examples),
        has_classes=task.rules.has_classes,
        bad=[str(row) for row in rows.skipped],
        duplicates=repeats.duplicates,
        conflicts=repeats.conflicts,
        conflicting_lines=repeats.lines,
        overlap=len(shared_rows(examples, dev_rows.examples)) if dev else 0,
        lengths=lengths,
        notes=notes,
        toml=_toml(task, found, path, dev, examples),
    )


def _labels(task: Task, examples: Sequence[Example]) -> dict[str, float]:
    labels: list[Any] = [row.label for row in examples if row.label is not None]  # of several classes a tuple
    if not task.rules.has_classes:
        low, middle, high = np.quantile(np.asarray(labels, dtype=float), [0.0, 0.5, 1.0]).tolist()
        return {"lowest": low, "median": middle, "highest": high}
    each = [index for label in labels for index in (label if isinstance(label, tuple) else (label,))]
    counts = Counter(task.classes[int(index)] for index in each)
    return {name: counts.get(name, 0) for name in sorted(task.classes, key=lambda name: -counts.get(name, 0))}


def _lengths(task: Task, examples: Sequence[Example], weights: str) -> Lengths:
    folder = resolve(weights)
    most = read_config(folder).max_tokens
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(COUNTED, len(examples))).astype(int))
    texts = [examples[row].texts for row in chosen]
    # Ten times the positions: how much longer a row is than what is cut matters little.
    # Of a pair the longest text that the encoder reads is both together.
    together = replace(task, input="joint") if task.is_pair else task
    tokens = EncodedTexts(together, texts, BertTokenizer.from_pretrained(folder), 10 * most)
    lengths = tokens.lengths
    bounds = [8]
    while bounds[-1] < lengths.max():
        bounds.append(2 * bounds[-1])
    places = np.searchsorted(bounds, lengths)
    return Lengths(
        rows=len(lengths),
        median=int(np.median(lengths)),
        longest=int(lengths.max()),
        most=most,
        cut=int((lengths > most).sum()),
        histogram={bound: int((places == place).sum()) for place, bound in enumerate(bounds)},
    )


def _task_name(path: str | Path) -> str:
    """Return a name for the task: the file's, if it may be a task's and no preset has settings for it."""
    stem = Path(path).name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")
    name = re.sub(r"[-_]?(train|training|data|dataset)$", "", name, flags=re.IGNORECASE)
    try:
        Task(name=name or "task", text="text", label="label")
        taken = name in PRESETS[DEFAULT_PRESET]["tasks"] or hasattr(nn.ModuleDict(), name)
    except ConfigError:  # a word that means something else
        taken = True
    return f"own-{name}" if name and taken else name or "task"


def _toml(task: Task, found: Guess, path: str | Path, dev: str | Path | None, examples: Sequence[Example]) -> str:
    """Return the TOML of a task: what was guessed, with a comment where another answer is likely, too."""
    text = found.text[0] if len(found.text) == 1 else list(found.text)
    lines = [f"[tasks.{task.name}]", f"train = {_value(str(path))}  # relative to the folder of this TOML file"]
    lines += [f"dev = {_value(str(dev))}"] if dev else []
    lines += [
        f"text = {_value(text)}{_or(found.other_texts)}",
        f"label = {_value(found.label)}{_or(found.other_labels)}",
    ]
    lines += [f"id = {_value(found.id)}"] if found.id not in (None, "id") else []
    whole = ""
    if found.other_kind:
        bounds = sorted(float(name) for name in task.classes)
        whole = (
            f'  # or "{found.other_kind}" with labels = [{bounds[0]:g}, {bounds[-1]:g}], if these numbers are an order'
        )
    lines.append(f"kind = {_value(found.kind)}{whole}")
    if task.rules.has_classes and len(task.classes) <= LISTED:
        positive = ", the second is the positive one" if task.num_outputs == 1 else ""
        lines.append(f"labels = {_value(list(task.classes))}  # all others are errors{positive}")
    elif not task.rules.has_classes:
        numbers = [float(row.label) for row in examples if isinstance(row.label, int | float)]
        lines.append(f"labels = {_value([min(numbers), max(numbers)])}  # the lowest and the highest that there can be")
    lines += [f"label_separator = {_value(found.separator)}"] if found.separator else []
    if found.group:
        both = len(found.group) == len(found.text) == 2
        group = _value(found.group if both else found.group[0])
        lines.append(f"# group = {group}  # keeps rows that share it on one side where dev is held out")
    told = {key: getattr(task.format, key) for key in FORMAT_KEYS if getattr(task.format, key) is not None}
    if told:
        lines.append(f"[tasks.{task.name}.format]")
        lines += [f"{key} = {_value(value)}" for key, value in told.items()]
    return "\n".join(lines) + "\n"


def _or(others: Sequence[str]) -> str:
    return f"  # or {', '.join(map(_value, others[:5]))}" if others else ""


def _value(value: Any) -> str:
    """Return a value as TOML has it: JSON's spelling, which TOML shares but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
