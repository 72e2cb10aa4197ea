"""A run from one kind of file labels rows of any other; what was found is said and recorded."""

import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from multitask import RunConfig, Task, TrainConfig, train
from multitask.__main__ import main
from multitask.settings.config import EncoderConfig

TEXTS = ["a good film", 'a "bad" film; really', "fine, I think"]


@pytest.fixture(scope="module")
def trained(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("semicolons")
    rows = "".join(f"film {number};{('neg', 'pos')[number % 2]}\n" for number in range(40))
    (folder / "rows.csv").write_text(f"text;label\n{rows}", encoding="utf-16")
    task = Task(name="mood", text="text", label="label", train=folder / "rows.csv", batch_size=8)
    settings = TrainConfig(epochs=1, rounds=1, hold_out=True)
    config = RunConfig(encoder=EncoderConfig(weights=tiny_weights), train=settings, tasks=[task])
    return train(config, folder / "run", device="cpu", progress=False).folder


def test_how_the_files_are_written_is_recorded(trained: Path) -> None:
    record = json.loads((trained / "record.json").read_text(encoding="utf-8"))
    found = "semicolons between cells, quoting as in CSV, a header, UTF-16"
    assert record["tasks"]["mood"]["format"] == {"train": found, "dev": found}


def as_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def as_excel(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_excel(buffer, index=False)
    return buffer.getvalue()


FORMS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "plain": lambda frame: "\n".join(frame["text"]).encode(),
    "csv": lambda frame: frame.to_csv(index=False).encode(),
    "tsv, UTF-16": lambda frame: frame.to_csv(sep="\t").encode("utf-16"),
    "semicolons, gzip": lambda frame: gzip.compress(frame.to_csv(sep=";", index=False).encode()),
    "JSON lines": lambda frame: frame.to_json(orient="records", lines=True).encode(),
    "array": lambda frame: frame.to_json(orient="records", indent=1).encode(),
    "parquet": as_parquet,
    "excel": as_excel,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("piped", [False, True])
def test_predict_takes_each_kind_of_file(
    trained: Path,
    tmp_path: Path,
    form: str,
    piped: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = FORMS[form](pd.DataFrame({"text": TEXTS}))
    (tmp_path / "rows").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[type-var]
    output = tmp_path / "out.tsv"
    source = "-" if piped else str(tmp_path / "rows")
    status = main(["predict", str(trained), "--input", source, "--output", str(output), "--quiet"])
    if piped and form in ("parquet", "excel"):
        assert status == 1
        assert "must be named as a file to be read, not come through a pipe" in capsys.readouterr().err
        return
    assert (status, capsys.readouterr().err) == (0, "")
    assert [line.split("\t")[0] for line in output.read_text(encoding="utf-8").splitlines()] == ["id", "1", "2", "3"]
