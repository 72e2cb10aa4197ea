"""Kinds of task: asked in one place, and a new one is a class in a file of one's own."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import multitask
from multitask.data.batches import label_tensor
from multitask.data.examples import read_examples
from multitask.errors import ConfigError
from multitask.model.losses import predicted_values, task_loss
from multitask.settings.kinds import KINDS, Binary, Classification, Kind, Regression
from multitask.settings.multilabel import Multilabel
from multitask.settings.task import Task

PACKAGE = Path(multitask.__file__).parent
# Asks which kind a task has: `task.kind == ...`, `self.kind in ...`, or a kind's name in quotes.
ASKS = re.compile(r"\bkind\s*(?:[=!]=|in\b|not in\b|is\b)|\"(?:regression|binary|classification|multilabel)\"")


def test_a_tasks_kind_is_asked_in_one_file() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in files
        if (lines := [line for line in path.read_text(encoding="utf-8").splitlines() if ASKS.search(line)])
    }
    found.pop("settings/kinds.py", None)  # registers them
    found.pop("inspection/guesses.py", None)  # tells by its rows what kind of task a file makes
    # The default of a task's kind, the command line's `fetch KIND`, and the presets' data.
    assert {name: len(lines) for name, lines in found.items()} == {
        "cli/commands.py": 1,
        "settings/presets.py": 3,
        "settings/task.py": 1,
    }
    assert 'args.kind == "weights"' in found["cli/commands.py"][0]
    assert 'default="classification"' in found["settings/task.py"][0]


def test_the_built_in_kinds_are_registered_as_any_other() -> None:
    assert dict(KINDS) == {
        "classification": Classification,
        "binary": Binary,
        "regression": Regression,
        "multilabel": Multilabel,
    }


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_agrees_with_itself(name: str) -> None:
    labels: tuple[Any, ...] = (0, 5) if name == "regression" else ("no", "yes")
    task = Task(name="t", text="a", label="y", kind=name, labels=labels)
    kind = task.rules
    assert isinstance(kind, Kind)
    assert (task.scored_by, task.num_outputs) == (kind.metrics[0], kind.num_outputs(task))
    outputs = torch.tensor([[0.3, -0.2], [2.0, -1.0], [-1.0, 4.0]])[:, : task.num_outputs]
    values, probabilities = predicted_values(task, outputs)
    assert values.shape == ((3, 2) if kind.many else (3,))
    assert (probabilities is not None) == kind.has_classes
    # What a prediction is spelled as can be read back as a label.
    spelled = [task.rules.spell(task, value) for value in values.clamp(0, 5).tolist()]
    read: Any = [kind.read_label(task, word if kind.many else str(word)) for word in spelled]
    torch.testing.assert_close(label_tensor(task, read).double(), values.clamp(0, 5).double())
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


@pytest.fixture
def task_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Task]:
    """A function of what a kind derived from Classification has of its own: a task of that kind, of three classes."""
    monkeypatch.setattr(KINDS, "_entries", dict(KINDS))

    def make(**own: Any) -> Task:
        KINDS.register("odd")(type("Odd", (Classification,), own))
        return Task(name="t", text="a", label="y", kind="odd", labels=("x", "y", "z"))

    return make


@pytest.mark.parametrize(
    ("losses", "found"),
    [
        (lambda rows: rows[:, None], "(4, 1)"),  # times weights (4,) it would be (4, 4), and the loss too high
        (lambda rows: rows.mean(), "()"),
        (lambda rows: rows[:1], "(1,)"),
        (lambda rows: rows.tolist(), "list"),
    ],
)
def test_losses_of_ones_own_are_one_a_row(task_of: Any, losses: Callable[[Tensor], Any], found: str) -> None:
    task = task_of(row_losses=lambda self, outputs, labels: losses(outputs.sum(1)))
    with pytest.raises(ConfigError) as caught:
        task_loss(task, torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    assert str(caught.value) == f"row_losses of tasks.t.kind 'odd' must return a tensor (4,), got {found}"


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (lambda o: o.argmax(1), "must return predictions, and probabilities or None, got tensor"),
        (lambda o: (o, None), r"predict of tasks.t.kind 'odd' must return a tensor \(4,\), got \(4, 3\)"),
        (lambda o: (o.argmax(1), o[:, :2]), r"the probabilities of predict .* a tensor \(4, 3\), got \(4, 2\)"),
        (lambda o: (o.argmax(1) + 3, None), r"must return whole numbers from 0 to 2, got \[3, 3, 3, 3\]"),
        (lambda o: (o.argmax(1) - 1, None), r"must return whole numbers from 0 to 2, got \[-1, "),
        (lambda o: (o.argmax(1).float(), None), r"must return whole numbers from 0 to 2, got \[0\.0, "),
    ],
)
def test_predictions_of_ones_own_are_one_class_a_row(task_of: Any, predicted: Any, message: str) -> None:
    task = task_of(predict=lambda self, outputs: predicted(outputs))
    with pytest.raises(ConfigError, match=message):
        predicted_values(task, torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"metrics": ()}, r"^metrics of tasks.t.kind 'odd' must name at least one metric, got \(\)$"),
        (
            {"metrics": ("acuracy",)},
            r"^tasks.t.metric of a odd must be one of accuracy, .*, got 'acuracy'; one of your own",
        ),
        ({"metrics": ("f1",)}, "^tasks.t.metric of more than two classes must be f1:LABEL, got 'f1'$"),
        ({"num_outputs": lambda self, task: 0}, "^num_outputs of tasks.t.kind 'odd' must be at least 1, got 0$"),
        ({"num_outputs": lambda self, task: 2.5}, "^num_outputs .* must be a whole number, got 2.5$"),
    ],
)
def test_what_a_kind_says_has_to_be_sound(task_of: Any, own: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        print(task_of(**own).num_outputs)


def test_what_is_no_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KINDS, "_entries", dict(KINDS))
    KINDS.register("plain")(dict)  # type: ignore[type-var]
    KINDS.register("half")(type("Half", (Kind,), {"has_classes": True, "spell": None}))
    for name, message in (
        ("plain", "tasks.t.kind 'plain' must be derived from multitask.Kind, got <class 'dict'>"),
        (
            "half",
            "tasks.t.kind 'half' must have check_labels, num_outputs, predict, read_label, row_losses and 1 more,"
            " which Half lacks",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            Task(name="t", text="a", label="y", kind=name, labels=(0, 5))
        assert str(caught.value) == message
