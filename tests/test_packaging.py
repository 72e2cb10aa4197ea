"""What setup.py declares is what the packages import, no more and no less."""

import ast
import re
import sys
from pathlib import Path

import pytest

PACKAGES = ("minbert", "multitask")


def imported_names(folder: Path) -> set[str]:
    """Top-level names of all packages that the files of a folder import, wherever in a file that stands."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names)


def keyword(setup_file: Path, name: str) -> list[str]:
    """The list that setup.py passes to setup() under that keyword."""
    for node in ast.walk(ast.parse(setup_file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


def test_every_import_is_declared_and_every_declaration_imported(root: Path) -> None:
    declared = {re.split(r"[<>=!~ ]", line)[0] for line in keyword(root / "setup.py", "install_requires")}
    imported = set().union(*(imported_names(root / package) for package in PACKAGES)) - set(PACKAGES)
    assert imported == declared


def test_every_package_is_listed_and_typed(root: Path) -> None:
    from setuptools import find_packages

    found = find_packages(str(root), include=["minbert", "minbert.*", "multitask", "multitask.*"])
    folders = {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    assert {root.joinpath(*name.split(".")) for name in found} == folders
    for package in PACKAGES:
        assert (root / package / "py.typed").is_file()


def test_the_encoder_knows_nothing_of_tasks(root: Path) -> None:
    assert "multitask" not in imported_names(root / "minbert")


@pytest.mark.parametrize("name", ["torch", "numpy", "tokenizers", "safetensors", "huggingface_hub"])
def test_constraints_pin_what_is_declared(root: Path, name: str) -> None:
    assert re.search(rf"^{name}==\d", (root / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


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
