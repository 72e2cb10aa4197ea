"""The command line: exit statuses, one-line errors, and what it refuses before it computes anything."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from multitask.__main__ import main
from multitask.cli.parser import build_parser
from multitask.settings.presets import preset_names


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]):
    """Runs a command that must fail, and returns its status and its only line of complaint."""

    def run(*argv: object) -> tuple[int, str]:
        status = main([str(word) for word in argv])
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert captured.out == ""
        assert len(lines) == 1, lines
        assert lines[0].startswith("multitask: error: ")
        return status, lines[0]

    return run


def command(*argv: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """``python -m multitask ...`` as a user starts it."""
    words = [sys.executable, "-m", "multitask", *(str(word) for word in argv)]
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, encoding="utf-8")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["trian", "train", "evaluate"]),
        (["train", "--epochs", "0"], ["--epochs", "0"]),
        (["train", "--epochs", "many"], ["--epochs", "many", "whole number"]),
        (["train", "--seed", "-1"], ["--seed", "-1"]),
        (["train", "--device", "tpu"], ["--device", "tpu", "cpu"]),
        (["train", "--epoch", "3"], ["--epoch"]),  # no abbreviations: scripts must not break on a new option
        (["evaluate"], ["RUN"]),
        (["fetch"], ["weights", "data"]),
        (["train", "--preset", "nope"], ["nope", *preset_names()[:5], f"and {len(preset_names()) - 5} more"]),
        (["train", "--set", "train.epcohs=3"], ["epcohs", "did you mean epochs?", " more"]),
        (["train", "--set", "tasks.nope.lr=1"], ["nope", "sst", "para", "sts"]),
        (["train", "--set", "epochs"], ["epochs", "KEY=VALUE"]),
        (["train", "--tasks", "no-such.toml"], ["no-such.toml"]),
    ],
)
def test_wrong_usage_is_status_2_and_one_line(error_of, argv: list[str], words: list[str]) -> None:
    status, line = error_of(*argv)
    assert status == 2
    for word in words:
        assert word in line


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "predict" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["fetch", "data", "--help"]])
def test_help_is_status_0(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(argv) == 0
    assert "usage: multitask" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("multitask ")


def test_help_and_usage_errors_do_not_load_torch() -> None:
    script = (
        "import sys; from multitask.__main__ import main; main(['train', '--help']); main(['train', '--x']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_presets_are_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == list(preset_names())


def test_every_command_on_a_page_has_options_that_the_parser_knows() -> None:
    root, checked = Path(__file__).parents[3], 0
    parsers = next(iter(build_parser()._subparsers._group_actions)).choices
    for page in (*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("examples/*.py")):
        for command, rest in re.findall(
            r"\bmultitask ([a-z]+)\b((?: (?!&&)[^\s`|]+)*)", page.read_text(encoding="utf-8")
        ):
            for option in re.findall(r"(?<!\S)\[?(--[a-z-]+)", rest) if command in parsers else ():
                inner = getattr(parsers[command]._subparsers, "_group_actions", None)
                known = [parsers[command], *(inner[0].choices.values() if inner else ())]
                assert any(option in parser._option_string_actions for parser in known), (page.name, command, option)
                checked += 1
    assert checked > 3


def test_data_that_is_not_there_is_status_1_and_says_how_to_get_it(error_of, tmp_path: Path) -> None:
    status, line = error_of("train", "--data", tmp_path)
    assert status == 1
    assert str(tmp_path) in line
    assert "multitask fetch data" in line


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from multitask.cli import commands

    def broken(args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(commands.COMMANDS, "presets", broken)
    with pytest.raises(ZeroDivisionError):
        main(["presets"])


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from multitask.cli import commands

    def interrupted(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(commands.COMMANDS, "presets", interrupted)
    assert main(["presets"]) == 130
    assert capsys.readouterr().err == "multitask: interrupted\n"


class TestPredictRefusesBeforeItLoadsAModel:
    """Each of these would otherwise fail after seconds of loading, or lose a file."""

    @pytest.fixture
    def rows(self, tmp_path: Path) -> Path:
        path = tmp_path / "rows.tsv"
        path.write_text("id\tsentence\n1\tA film.\n", encoding="utf-8")
        return path

    def predict(self, error_of, tmp_path: Path, source: object, output: object) -> tuple[int, str]:
        return error_of("predict", tmp_path / "run", "--task", "sst", "--input", source, "--output", output)

    def test_output_on_input(self, error_of, tmp_path: Path, rows: Path) -> None:
        status, line = self.predict(error_of, tmp_path, rows, tmp_path / "." / rows.name)
        assert status == 2
        assert "--input" in line
        assert rows.read_text(encoding="utf-8").startswith("id")

    def test_output_on_input_by_a_link(self, error_of, tmp_path: Path, rows: Path) -> None:
        link = tmp_path / "link.tsv"
        link.symlink_to(rows)
        assert self.predict(error_of, tmp_path, rows, link)[0] == 2

    def test_output_that_is_a_folder(self, error_of, tmp_path: Path, rows: Path) -> None:
        status, line = self.predict(error_of, tmp_path, rows, tmp_path)
        assert status == 2
        assert "folder" in line

    def test_output_in_no_folder(self, error_of, tmp_path: Path, rows: Path) -> None:
        status, line = self.predict(error_of, tmp_path, rows, tmp_path / "none" / "out.tsv")
        assert status == 2
        assert "there is no folder" in line

    def test_output_on_a_file_of_the_run(self, error_of, tmp_path: Path, rows: Path) -> None:
        (tmp_path / "run").mkdir()
        config = tmp_path / "run" / "config.json"
        config.write_text("{}", encoding="utf-8")
        assert self.predict(error_of, tmp_path, rows, config)[0] == 2
        assert config.read_text(encoding="utf-8") == "{}"

    def test_input_that_is_not_there(self, error_of, tmp_path: Path) -> None:
        status, line = self.predict(error_of, tmp_path, tmp_path / "no.tsv", tmp_path / "out.tsv")
        assert status == 1
        assert "no.tsv" in line


@pytest.mark.parametrize(("redirected", "status"), [("< /dev/null >&-", 0), ("2>&-", 0), ("> /dev/full", 1)])
def test_standard_streams_that_are_closed_or_full(redirected: str, status: int) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m multitask presets {redirected}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr == (
        ""
        if status == 0
        else "multitask: error: an input or output can't be read or written: No space left on device\n"
    )
