"""What setup.py declares is what the packages import, no more and no less."""

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

PACKAGES = {"minbert", "multitask"}
# SetFit 1.2 needs a transformers before 5, so an environment of its own: 08_few_rows.py uses it where it is installed.
APART = {"examples": {"setfit", "sentence_transformers", "sklearn", "datasets"}}


def third_party(names: Iterable[str]) -> set[str]:
    """Top-level names of the modules of that list that are neither Python's nor this project's."""
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - PACKAGES


def imported_by(folder: Path) -> set[str]:
    """What the scripts of a folder import of others' packages, pytest.importorskip included."""
    names: set[str] = set()
    files = list(folder.rglob("*.py"))
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
                names |= {each.value for each in node.args if isinstance(each, ast.Constant)}
    return third_party(names) - {path.stem for path in files}


def distributions(requirements: Iterable[str]) -> set[str]:
    """The names in a list of requirements."""
    return {re.split(r"[<>=!~ ]", line)[0] for line in requirements}


def keyword(setup_file: Path, name: str) -> Any:
    """The list or dict that setup.py passes to setup() under that keyword."""
    for node in ast.walk(ast.parse(setup_file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def test_every_import_is_declared_and_every_declaration_imported(root: Path, imports: list[Any]) -> None:
    assert third_party(each.imported for each in imports) == distributions(
        keyword(root / "setup.py", "install_requires")
    )


@pytest.mark.parametrize(
    ("folder", "extras"), [("tests", ["test"]), ("examples", ["examples", "benchmark"]), ("weights", ["test"])]
)
def test_extras_hold_what_a_folder_imports(root: Path, folder: str, extras: list[str]) -> None:
    known = keyword(root / "setup.py", "extras_require")
    declared = keyword(root / "setup.py", "install_requires") + [name for extra in extras for name in known[extra]]
    imported = imported_by(root / folder)
    assert "torch" in imported
    apart = APART.get(folder, set())
    assert apart <= imported
    assert imported - apart <= distributions(declared)


def test_every_package_is_listed_and_typed(root: Path) -> None:
    from setuptools import find_packages

    found = find_packages(str(root), include=["minbert", "minbert.*", "multitask", "multitask.*"])
    folders = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    assert {root.joinpath(*name.split(".")) for name in found} == folders
    for package in PACKAGES:
        assert (root / package / "py.typed").is_file()


def test_constraints_pin_all_that_is_declared(root: Path) -> None:
    extras = keyword(root / "setup.py", "extras_require")
    declared = distributions([*keyword(root / "setup.py", "install_requires"), *sum(extras.values(), [])])
    pinned = re.findall(r"^([\w-]+)==\d", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared <= set(pinned)
    assert len(pinned) == len(set(pinned))


def test_readme_has_the_commands_that_ci_runs(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    for name in ("quickstart", "test"):
        block = re.search(rf"^<!-- command: {name} -->\n```sh\n(.+?)\n```$", readme, re.MULTILINE | re.DOTALL)
        assert block is not None
        assert block[1].startswith("python3 -m venv .venv && .venv/bin/pip install")
        assert "-c constraints.txt" in block[1]


def test_nothing_is_unpickled(root: Path) -> None:
    loads = re.compile(r"\bimport pickle|\btorch\.load\b|allow_pickle|\bmarshal\b|gather_object|object_list")
    for path in [*(root / "minbert").rglob("*.py"), *(root / "multitask").rglob("*.py")]:
        assert not loads.search(path.read_text(encoding="utf-8")), path.name
