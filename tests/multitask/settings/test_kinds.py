"""Kinds of task: asked in one place, and a new one is a class in a file of one's own."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import multitask
from multitask.data.batches import label_tensor
from multitask.data.examples import read_examples
from multitask.model.losses import predicted_values, task_loss
from multitask.settings.kinds import KINDS, Binary, Classification, Kind, Regression
from multitask.settings.task import Task

PACKAGE = Path(multitask.__file__).parent
# Asks which kind a task has: `task.kind == ...`, `self.kind in ...`, or a kind's name in quotes.
ASKS = re.compile(r"\bkind\s*(?:[=!]=|in\b|not in\b|is\b)|\"(?:regression|binary|classification)\"")


def test_a_tasks_kind_is_asked_in_one_file() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in files
        if (lines := [line for line in path.read_text(encoding="utf-8").splitlines() if ASKS.search(line)])
    }
    found.pop("settings/kinds.py", None)  # registers them
    # The default of a task's kind, the command line's `fetch KIND`, and the presets' data.
    assert {name: len(lines) for name, lines in found.items()} == {
        "cli/commands.py": 1,
        "settings/presets.py": 3,
        "settings/task.py": 1,
    }
    assert 'args.kind == "weights"' in found["cli/commands.py"][0]
    assert 'default="classification"' in found["settings/task.py"][0]


def test_the_built_in_kinds_are_registered_as_any_other() -> None:
    assert dict(KINDS) == {"classification": Classification, "binary": Binary, "regression": Regression}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_agrees_with_itself(name: str) -> None:
    labels: tuple[Any, ...] = (0, 5) if name == "regression" else ("no", "yes")
    task = Task(name="t", text="a", label="y", kind=name, labels=labels)
    kind = task.rules
    assert isinstance(kind, Kind)
    assert (task.scored_by, task.num_outputs) == (kind.metrics[0], kind.num_outputs(task))
    outputs = torch.tensor([[0.3, -0.2], [2.0, -1.0], [-1.0, 4.0]])[:, : task.num_outputs]
    values, probabilities = predicted_values(task, outputs)
    assert values.shape == (3,)
    assert (probabilities is not None) == kind.has_classes
    # What a prediction is spelled as can be read back as a label.
    spelled = [task.rules.spell(task, value) for value in values.clamp(0, 5).tolist()]
    read = [kind.read_label(task, str(word)) for word in spelled]
    assert read == pytest.approx(values.clamp(0, 5).tolist())
    assert kind.row_losses(outputs, label_tensor(task, read)).shape == (3,)


def test_a_new_kind_is_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS, "_entries", dict(KINDS))

    @KINDS.register("absolute")
    class Absolute(Regression):
        """A number, by absolute error, scored by ranks."""

        metrics = ("spearman",)

        def row_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return (outputs.squeeze(1) - labels).abs()

    task = Task(name="t", text="a", label="y", kind="absolute", labels=(0, 5))
    path = tmp_path / "rows.tsv"
    path.write_text("a\ty\nfilm\t3.5\nstory\t1\n", encoding="utf-8")
    labels = label_tensor(task, read_examples(path, task).labels)
    assert task_loss(task, torch.tensor([[3.0], [3.0]]), labels).item() == 1.25
    assert (task.scored_by, task.num_outputs, task.classes) == ("spearman", 1, ())
    assert Task.from_dict("t", task.to_dict()) == task
