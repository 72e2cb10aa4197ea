"""Standard output is UTF-8 whatever the locale, byte for byte what --output writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multitask.__main__ import main

# A label of each sort: in latin-1, in another code page, in none.
LABELS = ("größer", "žluťoučký", "好")
LOCALES = {
    "C": {"LC_ALL": "C"},
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "windows": {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
}


@pytest.fixture(scope="module")
def trained(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoding")
    lines = "".join(f"the film {number}\t{LABELS[number % 3]}\n" for number in range(60))
    (folder / "rows.tsv").write_text(f"text\tlabel\n{lines}", encoding="utf-8")
    toml = '[tasks.size]\ntrain = "rows.tsv"\ntext = "text"\nlabel = "label"\nkind = "classification"\n'
    (folder / "tasks.toml").write_text(toml + "batch_size = 8\n", encoding="utf-8")
    words = ["train", "--tasks", folder / "tasks.toml", "--weights", tiny_weights, "--out", folder / "run"]
    assert main([str(word) for word in [*words, "--epochs", 1, "--rounds", 1, "--quiet"]]) == 0
    return folder / "run"


@pytest.mark.parametrize("locale", LOCALES)
def test_predictions_are_utf8_in_every_locale(trained: Path, tmp_path: Path, locale: str) -> None:
    rows = tmp_path / "rows.tsv"
    rows.write_text("id\ttext\nä1\tthe film\n好2\ta story\n", encoding="utf-8")
    output = tmp_path / "out.tsv"
    assert main(["predict", str(trained), "--input", str(rows), "--output", str(output), "--quiet"]) == 0
    words = [sys.executable, "-m", "multitask", "predict", str(trained), "--input", str(rows), "--quiet"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    environment = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), **LOCALES[locale]}
    done = subprocess.run(words, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert done.stdout == output.read_bytes()
    header, *lines = done.stdout.decode("utf-8").splitlines()
    assert header.split("\t") == ["id", "prediction", *(f"p_{label}" for label in sorted(LABELS))]
    assert [line.split("\t")[0] for line in lines] == ["ä1", "好2"]
    assert {line.split("\t")[1] for line in lines} <= set(LABELS)
