"""CITATION.cff names this version and every paper that the code rebuilds."""

import re
from pathlib import Path

import minbert

ARXIV = re.compile(r"arXiv[ :](\d{4}\.\d{4,5})")


def test_the_citation_is_of_this_version(root: Path) -> None:
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [minbert.__version__]


def test_every_paper_that_the_code_names_is_cited(root: Path) -> None:
    cited = set(ARXIV.findall((root / "CITATION.cff").read_text(encoding="utf-8")))
    named = {
        (paper, path.name)
        for folder in ("minbert", "multitask", "examples")
        for path in (root / folder).rglob("*.py")
        for paper in ARXIV.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 10
    assert not {pair for pair in named if pair[0] not in cited}
