"""What the pages show is run: each fenced block of README.md, CONTRIBUTING.md and docs/*.md, word for word.

How to write a page. The blocks of a page run in its order, in a folder that has `.venv`, `examples/`, `weights/` and in
`data/` sample rows under the course's file names; nothing is downloaded. A block's language says what it is, and a
comment on the line right above it what is special:

- ``sh`` runs in a fresh bash; ``python`` blocks of a page run in one Python, each after those above it.
- ``text`` right after such a block is what it prints to standard output. Words must be equal, and whole numbers.
  Numbers with a decimal point may be off by 0.05 or by 10 %, as training differs between machines, and under
  ``<!-- exact -->`` by one in the last place. Widths of gaps don't count. ``...`` stands for any words of a line, on
  a line of its own for any lines.
- ``<!-- file: NAME -->``: not run but saved under that name, for later blocks. A file that the project ships under
  that name must be the same; of a TOML file the page may show a part.
- ``<!-- from: FILE -->``: not run; lines that stand so in a file of the project, indented or not.
- ``<!-- command: NAME -->``: .ci/run runs it; its output is compared with that of its last command, run here.
- ``<!-- not run: REASON -->``: any block that can't be run here, and a picture.

A page that needs no weights but those in `weights/` has a line ``<!-- weights: tiny-bert -->``; others skip where
all-minilm-l6-v2 is not in the cache. A block with ``multitask fetch data`` runs on the real files alone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from multitask.data.course import SMALL_QUORA, blob_hash

ROOT = Path(__file__).parents[1]
PAGES = [
    *(page for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if page.is_file()),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^[ \t]*(?:```|~~~)")
MARKER = re.compile(r"\s*<!-- (command|not run|file|from|exact)(?:: (.+))? -->")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
# The course's file names, and the sample rows that stand in for them.
STAND_INS = {
    f"{stem}-{end}.csv": f"{name}-{sample}.tsv"
    for stem, name in (("ids-sst", "sst"), ("quora", "para"), ("sts", "sts"))
    for end, sample in (("train", "train"), ("dev", "dev"), ("test-student", "dev"))
}
# One Python for a page's blocks: reads them as JSON, a line each, and says after each whether it went well.
SESSION = """
import json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "<block>", "exec"), names)
        print("\\n== done", flush=True)
    except BaseException:
        print(traceback.format_exc(), "\\n== failed", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One fenced block: the line of its opening fence, its language, its text, its marker, and what it must print."""

    line: int
    language: str
    text: str
    marker: str = ""  # "command", "not run", "file", "from", "exact" or none
    value: str = ""  # what the marker says
    output: "Block | None" = None


def blocks_of(page: str) -> list[Block]:
    """All fenced blocks of a page in its order, outputs with what prints them; Sphinx's directives are left out."""
    lines, blocks, start, end = page.splitlines(), list[Block](), None, 0
    for number, line in enumerate(lines):
        if not FENCE.match(line):
            continue
        if start is None:
            start = number
            continue
        language = lines[start].strip()[3:]
        marker = MARKER.fullmatch(lines[start - 1]) if start else None
        text = textwrap.dedent("\n".join(lines[start + 1 : number]) + "\n")
        block = Block(start + 1, language, text, *(marker.groups(default="") if marker else ()))
        between = [line for line in lines[end:start] if line.strip() and not MARKER.fullmatch(line)]
        if language == "text" and block.marker in ("", "exact"):
            runs = blocks and blocks[-1].language in ("sh", "python") and blocks[-1].marker in ("", "command")
            is_output = runs and not between and blocks[-1].output is None
            assert is_output, f"line {block.line}: output of no block"
            blocks[-1] = Block(**{**vars(blocks[-1]), "output": block})
        elif not language.startswith("{"):
            blocks.append(block)
        start, end = None, number + 1
    assert start is None, f"the block at line {start} is not closed"
    return blocks


def difference(shown: str, printed: str, *, exact: bool) -> str:
    """The first line that a page shows and a program did not print, or nothing."""
    wanted, got = shown.rstrip().splitlines(), iter([*printed.rstrip().splitlines(), None])
    free = False  # any lines may come here
    for line in wanted:
        if line.strip() == "...":
            free = True
            continue
        found = next(got)
        while free and found is not None and not same_line(line, found, exact=exact):
            found = next(got)
        if found is None or not same_line(line, found, exact=exact):
            return f"shown: {line}\nprinted: {'nothing more' if found is None else found}"
        free = False
    rest = next(got, None)
    return "" if free or rest is None else f"printed, but not shown: {rest}"


def same_line(shown: str, printed: str, *, exact: bool) -> bool:
    """Whether words are equal and numbers near."""
    words, numbers = " ".join(shown.split()), NUMBER.findall(shown)
    pattern = f"({NUMBER.pattern})".join(re.escape(text).replace(r"\.\.\.", ".*") for text in NUMBER.split(words))
    match = re.fullmatch(pattern, " ".join(printed.split()))
    return match is not None and all(near(*pair, exact=exact) for pair in zip(numbers, match.groups(), strict=True))


def near(shown: str, printed: str, *, exact: bool) -> bool:
    """Whether a number is what the page says, as nearly as its digits mean to say it."""
    decimals = len(shown.partition(".")[2].partition("e")[0])
    if not decimals or "e" in shown + printed:
        return shown == printed
    value, found = (float(number.replace(",", "")) for number in (shown, printed))
    allowed = 10.0**-decimals if exact else max(0.05, 0.1 * abs(value))
    return abs(value - found) <= allowed * 1.0001 and len(printed.partition(".")[2]) == decimals


class Workshop:
    """A folder like the one that a page's reader works in, and what runs a block there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("examples", "weights"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "data").mkdir()
        for name, sample in STAND_INS.items():
            rows = (ROOT / "examples" / "data" / sample).read_text(encoding="utf-8").splitlines()
            if name.endswith("-test-student.csv"):  # has no labels
                rows = [row.rpartition("\t")[0] for row in rows]
            (folder / "data" / name).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        # No server listens at that port.
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "MINBERT_DATA_URL": "http://127.0.0.1:9"}
        self.environment["PATH"] = os.pathsep.join([str(folder / ".venv" / "bin"), os.environ["PATH"]])
        self._python: subprocess.Popen[str] | None = None

    def sh(self, text: str) -> str:
        """What a command prints to standard output; it must end well."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, text: str) -> str:
        """What a block prints, run after those before it."""
        if self._python is None:
            pipe = subprocess.PIPE
            self._python = subprocess.Popen(
                ["python", "-c", SESSION], cwd=self.folder, env=self.environment, stdin=pipe, stdout=pipe, text=True
            )
        stdin, stdout = self._python.stdin, self._python.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(text) + "\n")
        stdin.flush()
        printed = ""
        for line in stdout:
            if line in ("== done\n", "== failed\n"):
                assert line == "== done\n", printed
                return printed
            printed += line
        raise AssertionError(f"Python has left: {printed}")

    def close(self) -> None:
        if self._python is not None:
            self._python.communicate(timeout=60)

    def save(self, block: Block) -> None:
        """Write a block where its marker says; what the project ships there must hold it."""
        shipped, path = ROOT / block.value, self.folder / block.value
        if shipped.is_file() and path.suffix == ".toml":
            whole, shown = (tomllib.loads(text) for text in (shipped.read_text(encoding="utf-8"), block.text))
            assert part_of(shown, whole), f"{block.value} has something else"
        elif shipped.is_file():
            assert block.text == shipped.read_text(encoding="utf-8"), f"{block.value} has something else"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


def part_of(shown: object, whole: object) -> bool:
    """Whether all that is shown of a table stands in the whole one."""
    if not isinstance(shown, dict) or not isinstance(whole, dict):
        return shown == whole
    return all(key in whole and part_of(value, whole[key]) for key, value in shown.items())


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_blocks_run_as_they_stand(workshop: Workshop, page: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    if blocks and "<!-- weights: tiny-bert -->" not in text:
        request.getfixturevalue("minilm_weights")
    for block in blocks:
        where = f"{page.name}, line {block.line}"
        if block.marker == "not run":
            assert block.value, f"{where}: no reason"
        elif block.marker == "file":
            workshop.save(block)
        elif block.marker == "from":
            source = (ROOT / block.value).read_text(encoding="utf-8")
            assert any(textwrap.indent(block.text, gap) in source for gap in ("", " " * 4, " " * 8)), where
        elif (block.marker != "command" or block.output) and "multitask fetch data" not in block.text:
            assert block.language in ("sh", "python"), f"{where}: a block that no test runs"
            code = block.text.rpartition(" && ")[2] if block.marker else block.text
            try:
                printed = (workshop.sh if block.language == "sh" else workshop.python)(code)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from None
            if block.output is not None:
                wrong = difference(block.output.text, printed, exact=block.output.marker == "exact")
                assert not wrong, f"{where}:\n{wrong}\nIn all it printed:\n{printed}"


def test_a_block_that_fetches_finds_the_files_and_downloads_none(workshop: Workshop, course_data: Path) -> None:
    if blob_hash((course_data / "quora-train.csv").read_bytes()) != SMALL_QUORA["quora-train.csv"]:
        pytest.skip("MINBERT_DATA holds another split of the Quora file")
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.marker or "multitask fetch data" not in block.text:
                continue
            for name in STAND_INS:
                shutil.copyfile(course_data / name, workshop.folder / "data" / name)
            workshop.sh(block.text)
            assert {path.name for path in (workshop.folder / "data").glob("*.csv")} == set(STAND_INS)
            assert not (workshop.folder / "data" / "source").exists()


def test_a_marked_block_is_run_by_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [block for page in PAGES for block in blocks_of(page.read_text("utf-8")) if block.marker == "command"]
    assert {block.value for block in commands} >= {"quickstart", "test"}
    for block in commands:
        assert block.language == "sh"
        assert re.search(rf"\brun_readme {re.escape(block.value)}\b", script)


def test_blocks_are_found_whatever_their_fence() -> None:
    page = "a\n<!-- command: x -->\n```sh\nb\n\nc\n```\n  ```python\n  d\n  ```\n\n<!-- exact -->\n~~~text\n1\n~~~\n"
    output = Block(13, "text", "1\n", "exact")
    assert blocks_of(page) == [Block(3, "sh", "b\n\nc\n", "command", "x"), Block(8, "python", "d\n", output=output)]
    for wrong in ("```text\na\n```\n", "```sh\na\n```\nb\n```text\na\n```\n", "```sh\n"):
        with pytest.raises(AssertionError, match=r"output of no block|is not closed"):
            blocks_of(wrong)


def test_what_is_printed_is_compared() -> None:
    shown = "sst  -0.48  of 1,101 rows\n...\nin ... s\n"
    assert not difference(shown, "sst -0.50 of 1,101 rows\na\nb\nin 3 s\n", exact=False)
    assert not difference("x 0.480", "x 0.481", exact=True)
    for printed in (
        "sst -0.48 of 1,102 rows\nin 3 s",
        "sst -0.60 of 1,101 rows\nin 3 s",
        "sst -0.48 of 1,101 rows\n",
        "",
    ):
        assert difference(shown, printed, exact=False), printed
    assert difference("x 0.480", "x 0.482", exact=True)
    assert difference("x", "x\ny", exact=True)
