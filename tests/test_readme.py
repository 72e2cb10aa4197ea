"""README.md's fenced blocks are run as they stand there, in the order of the page.

The quickstart and the tests install from scratch and are run by .ci/run. All others run here, in a folder that has what
README says is there: `.venv`, `examples/`, and `data/` once it is fetched. A later block may use what an earlier one
wrote, so a block that fails may be followed by others.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from multitask.data.course import SMALL_QUORA, blob_hash

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
# The course's file names, and the sample rows that stand in for them where a block trains or predicts.
STAND_INS = {
    f"{stem}-{end}.csv": f"{name}-{sample}.tsv"
    for stem, name in (("ids-sst", "sst"), ("quora", "para"), ("sts", "sts"))
    for end, sample in (("train", "train"), ("dev", "dev"), ("test-student", "dev"))
}


@dataclass(frozen=True)
class Block:
    """One fenced block: the line of its opening fence, its language, its text, and the marker right above, if any."""

    line: int
    language: str
    text: str
    command: str | None

    def __str__(self) -> str:
        return f"line-{self.line}-{self.language or 'no-language'}"


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page in its order."""
    lines, blocks, start = page.splitlines(), [], None
    for number, line in enumerate(lines):
        if not FENCE.match(line):
            continue
        if start is None:
            start = number
            continue
        marker = re.fullmatch(r"<!-- command: (.+) -->", lines[start - 1]) if start else None
        text = "\n".join(lines[start + 1 : number]) + "\n"
        blocks.append(Block(start + 1, lines[start].strip()[3:], text, marker[1] if marker else None))
        start = None
    assert start is None, f"the block at line {start} is not closed"
    return blocks


BLOCKS = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))


class Workshop:
    """A folder like the one that README's reader works in, and what runs a block there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / ".venv").symlink_to(sys.prefix)

    def run(self, *words: str) -> str:
        """What a command prints to standard output; it must end well."""
        # Nothing is downloaded: no server listens at that port.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MINBERT_DATA_URL": "http://127.0.0.1:9"}
        environment["PATH"] = os.pathsep.join([str(self.folder / ".venv" / "bin"), os.environ["PATH"]])
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fill_data(self, source_of: Callable[[str], str]) -> None:
        """Write a file of each of the course's names into an emptied data/."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "data").mkdir()
        for name in STAND_INS:
            (self.folder / "data" / name).write_text(source_of(name), encoding="utf-8")

    def sample(self, name: str) -> str:
        """The sample rows that stand in for one of the course's files; a test file has no labels."""
        rows = (ROOT / "examples" / "data" / STAND_INS[name]).read_text(encoding="utf-8").splitlines()
        if name.endswith("-test-student.csv"):
            rows = [row.rpartition("\t")[0] for row in rows]
        return "".join(f"{row}\n" for row in rows)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("readme"))


def fetch(workshop: Workshop, block: Block, request: pytest.FixtureRequest) -> None:
    """With the course's files there already: each is checked by its hash, and none is downloaded."""
    real: Path = request.getfixturevalue("course_data")
    if blob_hash((real / "quora-train.csv").read_bytes()) != SMALL_QUORA["quora-train.csv"]:
        pytest.skip("MINBERT_DATA holds another split of the Quora file")
    workshop.fill_data(lambda name: (real / name).read_bytes().decode("utf-8"))
    workshop.run("bash", "-euo", "pipefail", "-c", block.text)
    assert {path.name for path in (workshop.folder / "data").glob("*.csv")} == set(STAND_INS)
    assert not (workshop.folder / "data" / "source").exists()


def shell(workshop: Workshop, block: Block, request: pytest.FixtureRequest) -> None:
    """On a hundred rows a file, since training on the course's takes most of an hour."""
    request.getfixturevalue("minilm_weights")
    workshop.fill_data(workshop.sample)
    printed = workshop.run("bash", "-euo", "pipefail", "-c", block.text)
    if "multitask train" in block.text:
        (out,) = re.findall(r"--out (\S+)", block.text) or ["runs/minilm"]
        assert (workshop.folder / out / "best" / "tasks.json").is_file()
    for output in re.findall(r"--output (\S+)", block.text):
        printed = (workshop.folder / output).read_text(encoding="utf-8")
    if "multitask predict" in block.text:
        # Training prints its scores before.
        table = printed[printed.index("id\tprediction\t") :]
        header, *rows = (line.split("\t") for line in table.splitlines())
        labels = [name.removeprefix("p_") for name in header[2:]]
        assert labels in (["0", "1", "2", "3", "4"], ["account", "billing", "delivery", "fault"])
        assert rows
        assert all(row[1] in labels for row in rows)


def python(workshop: Workshop, block: Block, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("minilm_weights")
    printed = workshop.run("python", "-c", block.text)
    for call in re.findall(r"^print\((.+?)\)  #", block.text, re.MULTILINE):
        assert ("Score(" if "evaluate" in call else "Prediction(") in printed


def toml(workshop: Workshop, block: Block, request: pytest.FixtureRequest) -> None:
    """Put where the sentence above it says; the file that is there has the same and more."""
    above = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[: block.line - 1]
    (name,) = re.findall(r"\]\((\S+\.toml)\)", "\n".join(above[-4:]))
    shipped = tomllib.loads((ROOT / name).read_text(encoding="utf-8"))
    for task, table in tomllib.loads(block.text)["tasks"].items():
        assert table.items() <= shipped["tasks"][task].items()
    (workshop.folder / name).write_text(block.text, encoding="utf-8")


def runner_of(block: Block) -> Callable[[Workshop, Block, pytest.FixtureRequest], None]:
    if block.language == "sh":
        return fetch if "multitask fetch data" in block.text else shell
    runners = {"python": python, "toml": toml}
    assert block.language in runners, f"README.md, line {block.line}: a block that no test runs"
    return runners[block.language]


def test_blocks_are_found_whatever_their_fence() -> None:
    page = "a\n<!-- command: x -->\n```sh\nb\n\nc\n```\n  ```\nd\n  ```\n~~~toml\n~~~\n"
    found = blocks_of(page)
    assert found == [
        Block(3, "sh", "b\n\nc\n", "x"),
        Block(8, "", "d\n", None),
        Block(11, "toml", "\n", None),
    ]
    with pytest.raises(AssertionError, match="a block that no test runs"):
        runner_of(found[1])


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.command], ids=str)
def test_a_marked_block_is_run_by_ci(block: Block) -> None:
    assert block.language == "sh"
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(rf"\brun_readme {re.escape(str(block.command))}\b", script)


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.command], ids=str)
def test_a_block_runs_as_it_stands(workshop: Workshop, block: Block, request: pytest.FixtureRequest) -> None:
    runner_of(block)(workshop, block, request)
