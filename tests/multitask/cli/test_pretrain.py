"""The command ``pretrain``: what it prints, and its errors as one line."""

from pathlib import Path
from typing import Any

import pytest

from multitask.__main__ import main


@pytest.fixture
def words(root: Path, tiny_weights: Path, tmp_path: Path, one_thread: None) -> list[str]:
    """Arguments of a short pretraining on the sample rows."""
    files = [root / "examples" / "data" / f"{name}-dev.tsv" for name in ("sst", "para")]
    columns = [f"--text={column}" for column in ("sentence", "sentence1", "sentence2")]
    rest = ["--weights", tiny_weights, "--epochs", 1, "--precision", "float32", "--out", tmp_path / "out"]
    return ["pretrain", *map(str, files), *columns, *map(str, rest)]


def test_it_says_what_it_does_and_prints_the_losses(words: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(words) == 0
    printed, said = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0] == "epoch\tloss\tperplexity\taccuracy"
    assert [line.split("\t")[0] for line in lines[1:3]] == ["0", "1"]
    assert lines[3] == f"The weights are in {tmp_path / 'out'}. Next: multitask train --weights {tmp_path / 'out'}"
    assert "the masked-language-model head is that of the weights" in said
    assert "before training, held out: loss " in said
    assert "after epoch 1, held out: loss " in said
    assert main([*words, "--quiet", "--resume"]) == 0  # is finished: prints the same
    assert capsys.readouterr() == (printed, "")


def test_errors_are_one_line(words: list[str], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "odd.csv").write_text("text\n1;2\n", encoding="utf-8")
    cases = [
        (
            [*words, "--lr", "0"],
            2,
            "argument --lr: must be finite and above 0, got 0.0 (see multitask pretrain --help)",
        ),
        ([*words, "--format", "header=maybe"], 2, "--format.header must be true or false, got 'maybe'"),
        ([word for word in words if not word.startswith("--text")], 2, "text must name the column of the text, one of"),
        ([*words[:1], str(tmp_path / "no.txt"), *words[3:]], 1, "no.txt can't be read: No such file or directory"),
        ([*words, "--weights", "no-such-weights"], 1, "no-such-weights"),
    ]
    for arguments, status, message in cases:
        assert main([*arguments, "--quiet"]) == status, message
        printed, said = capsys.readouterr()
        assert not printed
        assert message in said
        assert said.startswith("multitask: error: ")
        assert said.count("\n") == 1
