"""A task of a user's own: a TOML file and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multitask.settings.config import build_config
from multitask.training.train import train

pytestmark = pytest.mark.smoke
QUICK = """
[encoder]
weights = '{weights}'
[train]
epochs = 3
rounds = 11
schedule = "constant"
warmup = 0
[tasks.own]
train = "{file}"
text = {text}
label = "answer"
kind = "{kind}"
pooling = "mean"
batch_size = 16
lr = 2e-3
decoder_lr = 1e-2
"""


# File, kind of task, columns of text, and the labels of a row that is good, or that has a good and a bad text.
OWN = [
    ("rows.csv", "classification", ["message"], ("fine, thanks", "sad")),
    ("rows.tsv", "classification", ["message"], ("10", "9")),
    ("rows.jsonl", "classification", ["first", "second"], ("same", "other")),
    ("rows.jsonl", "binary", ["message"], (True, False)),
    ("rows.csv", "binary", ["first", "second"], ("yes", "no")),
    ("rows.tsv", "regression", ["message"], ("3.5", "-1.25")),
    ("rows.jsonl", "regression", ["first", "second"], (3.5, 0.5)),
]


def write_own(folder: Path, weights: Path, file: str, kind: str, text: list[str], labels: Any) -> Path:
    """200 rows whose label follows from their words, and the TOML file that names them."""
    rng, rows = np.random.default_rng(0), []
    for index in range(200):
        good = bool(index % 2)
        words = [str(rng.choice(["film", "story", "the"])), "good" if good else "bad"]
        texts = [" ".join(words), "good film"][: len(text)]
        rows.append({**dict(zip(text, texts, strict=True)), "answer": labels[0] if good else labels[1]})
    if file.endswith("jsonl"):
        lines = [json.dumps(row) for row in rows]
    else:
        mark = "," if file.endswith("csv") else "\t"
        cells = [[f'"{cell}"' if "," in str(cell) else str(cell) for cell in row.values()] for row in rows]
        lines = [mark.join(row) for row in ([*text, "answer"], *cells)]
    (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    toml = folder / "own.toml"
    columns = json.dumps(text if len(text) == 2 else text[0])
    toml.write_text(QUICK.format(weights=weights, file=file, text=columns, kind=kind), encoding="utf-8")
    return toml


@pytest.mark.parametrize(("file", "kind", "text", "labels"), OWN)
def test_a_task_of_each_kind(
    tiny_weights: Path, tmp_path: Path, file: str, kind: str, text: list[str], labels: tuple[Any, Any]
) -> None:
    """A TOML file and nothing else; predictions are spelled as the training file spells its labels."""
    toml = write_own(tmp_path, tiny_weights, file, kind, text, labels)
    run = train(build_config(tasks_file=toml), tmp_path / "run", progress=False)
    score = run.evaluate()["own"]  # without a dev file: a tenth of the rows
    assert score.n == 20
    assert score.value > 0.9
    rows = [(first, "good film")[: len(text)] for first in ("film good", "story bad")]
    found = run.predict("own", rows)
    assert [row.id for row in found] == ["1", "2"]
    if kind == "regression":
        half = abs(float(labels[0]) - float(labels[1])) / 2
        assert [row.label for row in found] == [pytest.approx(float(label), abs=half) for label in labels]
        assert [row.probabilities for row in found] == [None, None]
        return
    spelled = [str(label).lower() if isinstance(label, bool) else label for label in labels]
    assert [row.label for row in found] == spelled
    for row in found:
        assert row.probabilities is not None
        assert sum(row.probabilities) == pytest.approx(1, abs=1e-5)
        assert run.config.task("own").classes[int(np.argmax(row.probabilities))] == row.label
