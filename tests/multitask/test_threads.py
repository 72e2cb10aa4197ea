"""Threads that predict beside one another, and beside a training, give to the bit what they give alone."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minbert import BertTokenizer
from multitask import Run
from multitask.model.model import MultitaskModel
from multitask.settings.config import TrainConfig
from multitask.updates.stepper import Stepper

pytestmark = pytest.mark.usefixtures("one_thread")  # so that sums are taken in one order

AtOnce = Callable[[Callable[[int], Any]], list[Any]]
WORDS = ["a", "good", "bad", "film", "story", "the", "lovely", "dull", "great", "poor", "not"]
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 9)) for i in range(80)]


@pytest.fixture
def make_run(
    three_tasks: Any, make_model: Any, make_config: Any, tiny_weights: Path, tmp_path: Path
) -> Callable[[str], Run]:
    """A function of a precision: a run of three tasks with random decoders."""

    def make(precision: str) -> Run:
        tokenizer = BertTokenizer.from_pretrained(tiny_weights)
        model = make_model(three_tasks, vocab_size=100).float()
        return Run(tmp_path, make_config(), model, tokenizer, device="cpu", precision=precision)

    return make


def rows_of(run: Run, task: str) -> list[Any]:
    return list(zip(TEXTS, reversed(TEXTS), strict=True)) if run.model.tasks[task].is_pair else TEXTS


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_predictions_while_weights_change_between_calls(
    kernels: str, make_run: Callable[[str], Run], precision: str, at_once: AtOnce
) -> None:
    run, before = make_run(precision), None
    names = [*run.model.tasks, "sst"]  # one task twice
    for _ in range(3):
        found = at_once(lambda number: run.predict(names[number], rows_of(run, names[number])))
        alone = Run(run.folder, run.config, copy_of(run.model), run.tokenizer, device="cpu", precision=precision)
        expected = [alone.predict(name, rows_of(run, name)) for name in names]
        assert found == expected
        assert [run.predict(name, rows_of(run, name)) for name in names] == expected
        assert before is None or before != expected
        before = expected
        run.model.load_state_dict({name: 0.9 * tensor + 0.01 for name, tensor in run.model.state_dict().items()})


def copy_of(model: MultitaskModel) -> MultitaskModel:
    """A model that nothing was ever computed with, of the same weights."""
    copy = MultitaskModel(
        {name: type(encoder)(encoder.config) for name, encoder in model.encoders.items()}, [*model.tasks.values()]
    )
    copy.load_state_dict(model.state_dict())
    return copy.eval()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["separate", "pcgrad"])
def test_a_training_beside_threads_that_predict(
    kernels: str,
    make_run: Callable[[str], Run],
    make_model: Any,
    make_batches: Any,
    three_tasks: Any,
    kind: str,
    precision: str,
    at_once: AtOnce,
) -> None:
    """Rounds of real updates, spare gradients lent: the same weights as alone."""
    dtype = getattr(torch, precision)
    tasks = [replace(task, lr=1e-3, weight_decay=0.1) for task in three_tasks]

    def train(_: int = 0) -> list[Tensor]:
        model = make_model(tasks).float()
        update = Stepper(model, TrainConfig(update=kind), np.random.default_rng(0), dtype)
        for number in range(12):
            update.round(make_batches(model, number), 1.0)
        return [parameter.detach() for parameter in model.parameters()]

    run, stop = make_run(precision), threading.Event()
    expected = run.predict("sst", TEXTS)
    alone, untrained = train(), make_model(tasks).float()

    def work(number: int) -> Any:
        if number == 0:
            try:
                return train()
            finally:
                stop.set()
        found = []
        while not stop.is_set():
            found.append(run.predict("sst", TEXTS))
        return found

    trained, *others = at_once(work)
    assert all(torch.equal(mine, due) for mine, due in zip(trained, alone, strict=True))
    assert not all(torch.equal(mine, due) for mine, due in zip(trained, untrained.parameters(), strict=True))
    for answers in others:
        assert answers
        assert all(answer == expected for answer in answers)
