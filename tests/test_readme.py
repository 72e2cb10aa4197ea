"""README stays a page, and what it says of files is true."""

import re
from pathlib import Path

import pytest

README_BYTES = 9_000
# Of the book no chapters: the package's list of names, how they are loaded, and the error classes.
NO_CHAPTERS = {"__init__", "errors", "lazy"}


def table_rows(page: str, header: str) -> list[list[str]]:
    """The rows of the first table with that header, as cells."""
    _, _, below = page.partition(header + "\n")
    table = re.match(r"\|[- |]+\|\n((?:\|.*\|\n)+)", below)
    assert table is not None, f"no table with {header}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table[1].splitlines()]


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text(encoding="utf-8")


def test_readme_is_one_page(readme: str) -> None:
    assert len(readme.encode()) <= README_BYTES


def test_the_book_has_every_chapter_with_its_lines(root: Path, readme: str) -> None:
    chapters = {path.name: path for path in (root / "minbert").glob("*.py") if path.stem not in NO_CHAPTERS}
    found = {}
    for link, lines, _ in table_rows(readme, "| file | lines | what it holds |"):
        name = re.fullmatch(r"\[(\w+\.py)\]\(minbert/\1\)", link)
        assert name is not None, link
        found[name[1]] = int(lines)
    assert found == {name: path.read_text(encoding="utf-8").count("\n") for name, path in chapters.items()}


def test_no_chapter_needs_a_later_one(root: Path, readme: str) -> None:
    order = [re.findall(r"(\w+)\.py\]", row[0])[0] for row in table_rows(readme, "| file | lines | what it holds |")]
    for number, name in enumerate(order):
        text = (root / "minbert" / f"{name}.py").read_text(encoding="utf-8")
        needed = re.findall(r"^from minbert\.(\w+) import", text, re.MULTILINE)
        assert not set(needed) & set(order[number:]), name


@pytest.mark.parametrize(
    ("page", "header"),
    [("README.md", "| promise | test |"), ("docs/reliability.md", "| what is promised | the test that holds it |")],
)
def test_each_promise_names_the_test_that_holds_it(root: Path, page: str, header: str) -> None:
    rows = table_rows((root / page).read_text(encoding="utf-8"), header)
    assert len(rows) >= 5
    for promise, tests in rows:
        links = re.findall(r"\]\((?:\.\./)?(tests/[\w/]*test_\w+\.py)\)", tests)
        assert links, promise
        assert all((root / link).is_file() for link in links), promise
