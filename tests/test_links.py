"""Links of the pages lead somewhere, those to other hosts by their form alone; made pages are what the code says."""

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "examples", "examples/data", "weights")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"(?<!\\)\[[^\[\]]*\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")
CODE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts and myst make them."""
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    anchors = set(re.findall(r"^\((\S+)\)=$", text, re.MULTILINE))
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        words = LINK.sub(lambda match: match[0][1 : match[0].index("]")], heading).lower()
        kept = [sign for sign in words if sign in " -_" or unicodedata.category(sign)[0] in "LNM"]
        anchors.add("".join(kept).replace(" ", "-"))
    return anchors


def wrong_with(page: Path, link: str) -> str:
    """What is wrong with a link of a page; nothing if it is right."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        well_formed = parts.scheme == "https" and "." in parts.netloc
        return "" if well_formed or parts.scheme == "mailto" else "must begin with https:// and a host"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return "there is no such file"
    if page.parent.name == "docs" and target.is_dir():
        return "a page of docs can link files, not folders"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in anchors_of(target):
        return f"{target.name} has no such heading, only: {', '.join(sorted(anchors_of(target)))}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    assert {link: wrong for link in links if (wrong := wrong_with(page, link))} == {}


def test_a_wrong_link_is_found(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    for link in ("nowhere.md", "README.md#nowhere", "#nowhere", "http:/x", "ftp://example.org", "../../etc/passwd"):
        assert wrong_with(readme, link), link
    for link in ("README.md", "LICENSE", "minbert/layers.py", "https://example.org/x#y"):
        assert not wrong_with(readme, link), link
    page = tmp_path / "page.md"
    page.write_text("# A `code`, and: more!\n\n(own)=\n## [Link](x) it\n```sh\n# no heading\n```\n", encoding="utf-8")
    assert anchors_of(page) == {"a-code-and-more", "own", "link-it"}


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
