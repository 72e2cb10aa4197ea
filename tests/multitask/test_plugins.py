"""Each door walked through from a file outside of the package: train, stop, resume, predict, and what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minbert.files.storage import sha256_of
from multitask import plugins
from multitask.__main__ import main
from multitask.errors import ConfigError, RunError
from multitask.model.model import MultitaskModel
from multitask.plugins import REGISTRIES, load_plugin, registered_by
from multitask.run import Run

ROOT = Path(__file__).parents[2]
PLUGINS, PAGE = ROOT / "tests" / "plugins", ROOT / "docs" / "own_parts.md"
pytestmark = pytest.mark.usefixtures("one_thread")


class Door(NamedTuple):
    """A file of tests/plugins, what it registers, and the options of ``train`` that choose it."""

    file: str
    part: str
    options: list[str]


DOORS = [
    Door("weighted.py", "pooling weighted", ["--set", "tasks.sst.pooling=weighted"]),
    Door(
        "difference.py", "head difference", ["--set", "tasks.sts.head=difference", "--set", "tasks.sts.input=separate"]
    ),
    Door("ordinal.py", "kind ordinal", ["--set", "tasks.sst.kind=ordinal"]),
    Door("square_root.py", "sampler square-root", ["--set", "train.sampler=square-root"]),
    Door("inverse_root.py", "schedule inverse-root", ["--set", "train.schedule=inverse-root"]),
    Door("equal_norms.py", "update equal-norms", ["--set", "train.update=equal-norms"]),
    Door("smoothed.py", "update smoothed", ["--set", "train.update=smoothed"]),
    Door("nesterov.py", "optimizer nesterov", ["--set", "train.optimizer=nesterov"]),
    Door("rmse.py", "metric rmse", ["--set", "tasks.sts.metric=rmse", "--select", "sts"]),
]
SECOND = "import sys, json; from multitask.__main__ import main; sys.exit(max(map(main, json.loads(sys.argv[1]))))"


@pytest.fixture(autouse=True)
def own_registries(remember_parts: Callable[[], Callable[[], None]]) -> Iterator[Callable[[], None]]:
    """Whatever a test registers is forgotten after it; or before, when this is called."""
    forget = remember_parts()
    yield forget
    forget()


@pytest.fixture
def words(course_like: Path, tiny_weights: Path) -> Callable[..., list[str]]:
    """A function of a run folder and options: the words of a short ``train``."""

    def of(out: Path, *options: str) -> list[str]:
        small = [word for name in ("sst", "para", "sts") for word in ("--set", f"tasks.{name}.batch_size=8")]
        always = [
            "--epochs",
            "2",
            "--rounds",
            "4",
            "--save-every",
            "2",
            "--keep-optimizer",
            "--threads",
            "1",
            "--quiet",
        ]
        places = ["--data", str(course_like), "--weights", str(tiny_weights), "--out", str(out), "--threads", "1"]
        return ["train", *places, *always, *small, *options]

    return of


def predict_words(run: Path, rows: Path, output: Path, *options: str) -> list[str]:
    return ["predict", str(run), "--task", "sst", "--input", str(rows), "--output", str(output), "--quiet", *options]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.part)
def test_a_part_trains_resumes_and_predicts_from_its_file(
    door: Door,
    words: Callable[..., list[str]],
    stop_after: Callable[..., None],
    contents: Callable[[Path], dict[str, bytes]],
    own_registries: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = PLUGINS / door.file
    plugin = ["--plugin", str(file)]
    assert len(file.read_text().splitlines()) < 30
    assert f"```python\n{file.read_text()}```\n" in PAGE.read_text(), f"{PAGE} must show {file}"
    rows = tmp_path / "rows.txt"
    rows.write_text("good film\nbad story\n")
    assert main(words(tmp_path / "whole", *plugin, *door.options)) == 0
    assert registered_by(file) == [door.part]
    record = json.loads((tmp_path / "whole" / "record.json").read_text())
    assert record["plugins"] == {
        door.part: {"file": door.file, "sha256": plugins.sha256(file.read_bytes()).hexdigest()}
    }
    assert main(predict_words(tmp_path / "whole", rows, tmp_path / "one.tsv", *plugin)) == 0

    train = words(tmp_path / "run", *plugin, *door.options)
    with monkeypatch.context() as patch:
        stop_after(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert main(train) == 128 + signal.SIGTERM
    second = json.dumps([[*train, "--resume"], predict_words(tmp_path / "run", rows, tmp_path / "two.tsv", *plugin)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", SECOND, second], check=True, env=environment, timeout=120)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()

    own_registries()
    capfd.readouterr()
    what, name = door.part.split()
    assert main(predict_words(tmp_path / "run", rows, tmp_path / "three.tsv")) == 1
    message = capfd.readouterr().err
    assert f"run: the {what} '{name}' must be registered, by --plugin {door.file} or an import" in message
    assert message.count("\n") == 1
    assert main([*words(tmp_path / "other", *door.options)]) == 2
    assert re.search(
        rf"must be one of .*, got '{name}'; one of your own has to be loaded first \(--plugin FILE.py\)\n$",
        capfd.readouterr().err,
    )


@pytest.fixture
def weighted_run(words: Callable[..., list[str]], tmp_path: Path) -> tuple[Path, Path, list[str]]:
    """A run with a pooling of one's own, its file in a folder of its own, and the words that trained it."""
    file = tmp_path / "parts" / "weighted.py"
    file.parent.mkdir()
    file.write_bytes((PLUGINS / "weighted.py").read_bytes())
    train = words(tmp_path / "run", "--plugin", str(file), "--set", "tasks.sst.pooling=weighted")
    assert main(train) == 0
    return tmp_path / "run", file, train


def test_another_state_of_a_file_is_refused_by_resume_and_said_by_load(
    weighted_run: tuple[Path, Path, list[str]],
    own_registries: Callable[[], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    run, file, train = weighted_run
    before = sha256_of(file)
    file.write_text(file.read_text() + "# changed\n")
    after = sha256_of(file)
    capfd.readouterr()
    assert main([*train, "--resume"]) == 1  # in the same process: the changed file replaces what it registered
    message = capfd.readouterr().err
    assert f"pooling weighted must be 'weighted.py, sha256 {before}', got 'weighted.py, sha256 {after}'" in message
    for times in (1, 0):  # said once
        assert Run.load(run).predict("sst", ["good film"])
        old, new = (f"of weighted.py, sha256 {digest[:12]}" for digest in (before, after))
        said = f"the pooling weighted is {old}; now it is {new}"
        assert capfd.readouterr().err.count(said) == times


def test_a_copied_best_folder_needs_its_parts_too(
    weighted_run: tuple[Path, Path, list[str]], own_registries: Callable[[], None]
) -> None:
    run, file, _ = weighted_run
    assert MultitaskModel.from_pretrained(run / "best").tasks["sst"].pooling == "weighted"
    own_registries()
    with pytest.raises(RunError, match=r"best: the pooling 'weighted' must be registered, by --plugin weighted\.py or"):
        MultitaskModel.from_pretrained(run / "best")
    load_plugin(file)
    MultitaskModel.from_pretrained(run / "best")


def test_no_file_is_loaded_for_a_run_folder_or_a_configuration(
    weighted_run: tuple[Path, Path, list[str]],
    own_registries: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run, file, _ = weighted_run
    own_registries()
    ran = tmp_path / "ran"
    evil = f"open({str(ran)!r}, 'w')\n" + file.read_text()
    for place in (run / "weighted.py", run / "best" / "weighted.py", tmp_path / "weighted.py"):
        place.write_text(evil)
    record = json.loads((run / "record.json").read_text())
    record["plugins"]["pooling weighted"]["file"] = str(tmp_path / "weighted.py")
    (run / "record.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    for variable in ("MULTITASK_PLUGIN", "MULTITASK_PLUGINS", "PLUGIN"):
        monkeypatch.setenv(variable, "weighted.py")
    with pytest.raises(RunError, match="must be registered"):
        Run.load(run)
    for table in ("[train]\n", "[encoder]\n", "[tasks.sst]\n", ""):
        for key in ("plugin", "plugins"):
            (tmp_path / "own.toml").write_text(f'{table}{key} = "weighted.py"\n')
            assert main(["train", "--tasks", "own.toml", "--out", "new"]) == 2
            assert "must be one of" in capfd.readouterr().err
    assert main(["train", "--set", "train.plugin=weighted.py", "--out", "new"]) == 2
    assert not ran.exists()


def test_a_file_is_loaded_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    file, ran = tmp_path / "part.py", tmp_path / "ran"
    text = f"from multitask import SCHEDULES\nwith open({str(ran)!r}, 'a') as f:\n    f.write('x')\n"
    file.write_text(text + "@SCHEDULES.register('mine')\ndef mine(step, total, warmup):\n    return 0.5\n")
    (tmp_path / "link.py").symlink_to(file)
    for path in (file, str(file), tmp_path / "link.py", tmp_path / "." / "part.py"):
        load_plugin(path)
    assert ran.read_text() == "x"
    mine = REGISTRIES["schedule"]["mine"]
    assert (mine(0, 1, 0), sys.modules[mine.__module__].mine) == (0.5, mine)
    file.write_text(file.read_text().replace("0.5", "0.25"))
    load_plugin(file)
    assert REGISTRIES["schedule"]["mine"](0, 1, 0) == 0.25
    assert registered_by(file) == ["schedule mine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "part.py: the plugin can't be read (No such file or directory)"),
        ("x = 1\ndef f(:\n", "part.py:2: the plugin is not Python: invalid syntax"),
        ("x = 1\n\n1 / 0\n", "part.py:3: the plugin raised ZeroDivisionError: division by zero"),
        (
            "import no_such_module\n",
            "part.py:1: the plugin raised ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("import sys\nsys.exit('a\\nb')\n", "part.py:2: the plugin raised SystemExit: a b"),
        ("raise KeyError\n", "part.py:1: the plugin raised KeyError"),
        (
            "from multitask import POOLINGS\nPOOLINGS.register('mean')(abs)\n",
            "part.py:2: the name of a new pooling must not be taken, got 'mean', which is built in",
        ),
        (
            "from multitask import HEADS\nHEADS.register('a.b')(abs)\n",
            "part.py:2: the name of a new head must be letters, digits, '_' and '-', a letter first, got 'a.b'",
        ),
        (
            "from multitask import UPDATES\nUPDATES.register('mine')('nonsense')\n",
            "part.py:2: a new update must be a class or a function, got 'nonsense'",
        ),
        ("x = '\0'\n", "part.py: the plugin raised SyntaxError: source code string cannot contain null bytes"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(
    text: str | None, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "part.py"
    if text is not None:
        file.write_text(text)
    before = set(sys.modules)
    assert main(["evaluate", str(tmp_path), "--plugin", str(file)]) == 2
    assert capfd.readouterr().err == f"multitask: error: {tmp_path}/{message}\n"
    assert not [name for name in set(sys.modules) - before if name.startswith("multitask-plugin")]


def test_a_file_that_registers_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "part.py"
    file.write_text("x = 1\n")
    assert main(["evaluate", str(tmp_path / "none"), "--plugin", str(file)]) == 1
    assert f"--plugin {file} registers nothing\n" in capfd.readouterr().err


def test_a_name_of_another_file_is_refused(tmp_path: Path) -> None:
    load_plugin(PLUGINS / "weighted.py")
    (tmp_path / "other.py").write_bytes((PLUGINS / "weighted.py").read_bytes())
    with pytest.raises(ConfigError, match=r"other\.py:9: .* 'weighted', which weighted\.py has: Weighted$"):
        load_plugin(tmp_path / "other.py")


def test_a_notebooks_cell_may_be_run_again() -> None:
    cell = "from multitask import METRICS\n@METRICS.register('mine')\ndef mine(a, b):\n    return {}\n"
    for value in (1, 2):
        exec(compile(cell.format(value), f"<ipython-input-{value}>", "exec"), {"__name__": "__main__"})
    assert REGISTRIES["metric"]["mine"]([], []) == 2
    assert REGISTRIES["metric"].origin("mine").file == "<notebook>"  # type: ignore[union-attr]


@pytest.mark.parametrize("found", [[], {"pooling": {}}, {"pooling x": 3}, {"kind x": {"file": 3}}, {"nonsense x": {}}])
def test_a_broken_record_of_parts_is_named(found: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="plugins must be "):
        plugins.require_parts(tmp_path, found)
