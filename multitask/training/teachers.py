"""Runs whose outputs a run learns beside its labels: knowledge distillation, Hinton et al. 2015, arXiv 1503.02531."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minbert.errors import WeightsError
from minbert.files.storage import read_tensors, sha256_of, write_tensors
from minbert.tokenizer import BertTokenizer
from multitask.data.batches import EncodedTexts, TaskData
from multitask.data.examples import Example, OnBad
from multitask.data.load import Prepared, read_unlabelled
from multitask.distributed import is_main, wait_for_all
from multitask.errors import ConfigError, RunError
from multitask.evaluation import outputs_of
from multitask.run import read_record
from multitask.settings.checks import check_known, listed, shown
from multitask.settings.distillation import Distillation, SoftTargets
from multitask.settings.task import Task
from multitask.training.identity import known_identity
from multitask.training.origin import Origin

__all__ = ["CACHE", "Teaching"]

CACHE = "teachers.safetensors"


class Teaching:
    """The teachers of a run, and the rows without labels that they answer for it.

    ``identity`` is what must not change when the run is resumed, ``record`` what record.json says.

    :param data: the digests of the run's rows, by task and split.
    :param resume: a teacher whose folder is gone is not needed where its outputs are in the run's folder already.
    :param limit: the most rows to take of each file without labels.
    :raises ConfigError: for tasks that no teacher can teach, naming task, key and teacher.
    """

    def __init__(
        self,
        settings: Distillation,
        prepared: Prepared,
        data: Mapping[str, Mapping[str, str]],
        out: Path,
        *,
        resume: bool,
        limit: int | None,
        bad_rows: OnBad,
    ) -> None:
        config = prepared.config
        self.settings, self._tasks, self._cache = settings, {task.name: task for task in config.tasks}, out / CACHE
        self._train = prepared.train
        check_known("a task of distillation.unlabelled", settings.unlabelled, self._tasks)
        self._teachers: list[Origin] = []
        teachers = []
        # Without a checkpoint the run starts anew, and they answer anew.
        before = _recorded_teachers(out) if resume and known_identity(out) is not None else {}
        held_with = {name: names for name, names in prepared.held_with.items() if len(prepared.dev[name])}
        for folder in map(Path, settings.teachers):
            known = before.get(str(folder.resolve()))
            if known is not None and not folder.is_dir() and self._cache.is_file():
                teachers.append(known)
                continue
            teacher = Origin.load(folder)
            self._teachers.append(teacher)
            seen = teacher.seen_rows(config, data, held_with)
            teachers.append({"folder": str(folder.resolve()), "sha256": teacher.digest, "notes": seen})
        if len(self._teachers) == len(settings.teachers):
            self._check()
        self.notes = [note for teacher in teachers for note in teacher["notes"]]
        self.unlabelled: dict[str, list[Example]] = {}
        skipped, digests = dict[str, list[str]](), dict[str, str]()
        for name, file in settings.unlabelled.items():
            rows = read_unlabelled(
                self._tasks[name], Path(file), limit=limit, seed=config.train.seed, bad_rows=bad_rows
            )
            self.unlabelled[name], digests[name] = rows.examples, sha256_of(Path(file))
            skipped[name] = [str(row) for row in rows.skipped]
            self.notes.append(f"{name}: learns the teachers' outputs on {len(rows):,} rows of {Path(file).name}, too")
        options = {"temperature": settings.temperature, "teacher_weight": settings.teacher_weight}
        phrases = [f"{teacher['folder']}, sha256 {teacher['sha256']}" for teacher in teachers]
        self.identity = {"distillation": {**options, "teachers": phrases, "unlabelled": digests}}
        files = {
            name: {
                "file": str(file),
                "sha256": digests[name],
                "rows": len(self.unlabelled[name]),
                "skipped": skipped[name],
            }
            for name, file in settings.unlabelled.items()
        }
        self.record = {"distillation": {**options, "teachers": teachers, "unlabelled": files}}

    def _check(self) -> None:
        """Check that each task has a teacher, whose outputs mean the same, and a kind that can learn from them."""
        for teacher in self._teachers:
            if not any(name in teacher.run.model.tasks for name in self._tasks):
                raise ConfigError(
                    f"the teacher {teacher.folder} must have a task of this run, {listed(self._tasks)},"
                    f" got {listed(teacher.run.model.tasks)}"
                )
        for name, task in self._tasks.items():
            teachers = self._teachers_of(name)
            if not teachers:
                raise ConfigError(
                    f"distillation.teachers must have the task {name}, got none among"
                    f" {listed(teacher.folder for teacher in self._teachers)}"
                )
            for teacher in teachers:
                _check_meaning(task, teacher.run.model.tasks[name], teacher.folder)
            if not task.rules.can_learn_outputs:
                raise ConfigError(
                    f"tasks.{name}.kind {task.kind!r} must have soft_losses beside row_losses to learn a teacher's"
                    " outputs, lacks it"
                )

    def _teachers_of(self, name: str) -> list[Origin]:
        return [teacher for teacher in self._teachers if name in teacher.run.model.tasks]

    def enter(self, record: dict[str, Any]) -> None:
        """Enter the teachers into a run's record, with a note for each file without labels."""
        record |= self.record
        record["notes"] += self.notes

    @property
    def sizes(self) -> dict[str, int]:
        """How many rows each task is trained on: those with labels and those without."""
        return {name: len(rows) + len(self.unlabelled.get(name, ())) for name, rows in self._train.items()}

    def taught(
        self,
        data: Mapping[str, TaskData],
        tokenizer: BertTokenizer,
        where: tuple[torch.device, torch.dtype],
        cached: bool,
        say: Callable[[str], None],
    ) -> dict[str, TaskData]:
        """Return the training rows with their teachers' outputs, those without labels behind the others.

        :param data: the rows with labels.
        :param tokenizer: the student's.
        :param where: the device that teachers compute on, and the type of their matrix products.
        :param cached: take the outputs from the run's folder, where an earlier call put them.
        :param say: told what takes its time.
        :raises RunError: for outputs there that do not fit the rows.
        """
        rows = {name: [*self._train[name].examples, *self.unlabelled.get(name, ())] for name in data}
        if not cached:
            say(f"the teachers answer {sum(map(len, rows.values())):,} rows")
        outputs = self._read() if cached else self._compute(rows, *where)
        result = {}
        for name, own in data.items():
            if name not in outputs or len(outputs[name]) != len(rows[name]):
                found = len(outputs[name]) if name in outputs else 0
                raise RunError(f"{self._cache}: must have {len(rows[name])} rows of task {name}, got {found}")
            task, more = self._tasks[name], len(rows[name]) - len(own)
            nothing = float("nan") if own.labels.is_floating_point() else -1
            filler = own.labels.new_full((more, *own.labels.shape[1:]), nothing)
            result[name] = TaskData(
                EncodedTexts(task, [row.texts for row in rows[name]], tokenizer, own.texts.max_length, ahead=False),
                torch.cat([own.labels, filler]),
                np.concatenate([own.lines, np.zeros(more, dtype=np.int64)]),
                SoftTargets(outputs[name], self.settings.temperature, self.settings.teacher_weight),
            )
        self._teachers = []  # their memory is the student's now
        return result

    def _read(self) -> dict[str, Tensor]:
        try:
            return read_tensors(self._cache)
        except (OSError, WeightsError) as error:
            raise RunError(f"{self._cache}: the teachers' outputs can't be read ({error})") from None

    def _compute(
        self, rows: Mapping[str, list[Example]], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Compute the mean outputs of each task's teachers, by task (rows, num_outputs), and write them down."""
        outputs = {name: torch.zeros(len(each), self._tasks[name].num_outputs) for name, each in rows.items()}
        for teacher in self._teachers:
            model = teacher.run.model.to(device)
            for name in filter(model.tasks.__contains__, rows):
                texts = EncodedTexts(
                    model.tasks[name], [row.texts for row in rows[name]], teacher.run.tokenizer, model.max_length
                )
                found = outputs_of(model, name, texts, device=device, dtype=dtype)
                outputs[name] += found / len(self._teachers_of(name))
            model.cpu()
        if is_main():
            try:
                write_tensors(self._cache, outputs)
            except (OSError, WeightsError) as error:
                raise RunError(f"{self._cache}: can't be written ({error})") from None
        wait_for_all()
        return outputs


def _recorded_teachers(out: Path) -> dict[str, dict[str, Any]]:
    """Return what a run's record says of its teachers, by folder."""
    try:
        teachers = read_record(out)["distillation"]["teachers"]
        return {each["folder"]: {"notes": [], **each} for each in teachers}
    except (KeyError, TypeError):
        return {}


def _check_meaning(task: Task, teachers: Task, folder: Path) -> None:
    """Check that a teacher's outputs mean what the student's do."""
    for key in ("kind", "labels"):
        now, then = getattr(task, key), getattr(teachers, key)
        if now != then:
            raise ConfigError(
                f"tasks.{task.name}.{key} must be the teacher's of {folder}, {shown(then)}, got {shown(now)}"
            )
    if len(task.text) != len(teachers.text):
        raise ConfigError(
            f"tasks.{task.name}.text must be {len(teachers.text)} columns, as the teacher's of {folder},"
            f" got {len(task.text)}"
        )
