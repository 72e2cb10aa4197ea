"""Whatever is given as rows in memory: rows that hold together, or one of the package's errors."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from multitask.data.examples import infer_labels, read_examples
from multitask.data.memory import rows_by_task
from multitask.settings.task import Task

TOPIC = Task(name="topic", text="message", label="topic")
ODD = [
    None,
    True,
    "a",
    "",
    "nan",
    "\ud83d",
    b"b",
    1,
    2.0,
    1e400,
    pd.NA,
    pd.NaT,
    np.int8(1),
    np.datetime64("NaT"),
    object,
]
LEAVES = st.sampled_from(ODD)
CELLS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(LEAVES, inner, max_size=2))
COLUMNS = st.sampled_from(["message", "topic", "id", 3, None, pd.NA])
ROWS = st.lists(st.dictionaries(COLUMNS, CELLS) | CELLS, max_size=5)
FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "rows": lambda given: given,
    "iterator": iter,
    "column": lambda given: pd.DataFrame({"message": given, "topic": given[::-1]}, dtype=object),
    "columns": lambda given: {"message": given},
    "row": lambda given: given[0] if given else None,
}


def test_whatever_is_given_is_read_or_named(
    fuzz: Callable[..., None], attempt: Callable[[Callable[[], Any]], tuple[Any, str]]
) -> None:
    def check(given: list[Any], form: str, labels: tuple[str, ...] | None) -> None:
        task = replace(TOPIC, labels=labels)
        rows, message = attempt(lambda: rows_by_task({"topic": {"train": FORMS[form](given)}}, [task])["topic"])
        if rows:
            assert rows["train"].digest.startswith(f"{len(rows['train'])} rows, ")
            data, message = attempt(
                lambda: read_examples(rows["train"], infer_labels(task, rows["train"]), bad_rows="skip")
            )
            if data is not None:
                assert len(data) + len(data.skipped) == len(rows["train"])
                assert all(isinstance(text, str) and text.strip() for text in data.texts)
        assert "\n" not in message

    fuzz(check, ROWS, st.sampled_from(list(FORMS)), st.sampled_from([None, ("1", "a")]))
