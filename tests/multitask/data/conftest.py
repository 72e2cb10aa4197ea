"""Files of rows, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multitask.data.examples import read_examples
from multitask.errors import DataError
from multitask.settings.task import Task

MOOD = Task(name="mood", text="text", label="label", labels=("neg", "pos"))


@pytest.fixture(scope="session")
def put() -> Callable[..., Path]:
    """Writes text, as UTF-8, or bytes to a file in a folder."""

    def run(folder: Path, content: str | bytes, name: str = "rows.tsv") -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return run


@pytest.fixture(scope="session")
def found() -> Callable[..., list[tuple[Any, ...]]]:
    """Reads the texts and label of each row of a task, by default of texts that are neg or pos."""

    def run(path: Path, task: Task = MOOD, **more: Any) -> list[tuple[Any, ...]]:
        return [(*row.texts, row.label) for row in read_examples(path, task, **more).examples]

    return run


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """Returns the error of reading a file, which is called by its name alone."""

    def run(path: Path, task: Task = MOOD) -> str:
        with pytest.raises(DataError) as caught:
            read_examples(path, task)
        return str(caught.value).replace(str(path), path.name)

    return run
