"""What an import loads, and who may import whom: the floor plan of docs/architecture.md, held to."""

import ast
import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import minbert
import multitask

# What each package's own __init__ may import: see minbert/lazy.py.
FRONT_DOORS = ("minbert", "multitask")
# What the book imports of minbert/fast when it is imported itself.
OF_FAST = {"minbert.fast.choice", "minbert.fast.casts"}


def floors(root: Path) -> dict[str, list[set[str]]]:
    """The floor plan: the lines of each package from the top down, each a set of rooms and files."""
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^<!-- floor plan -->\n\n((?: {4}.+\n|\n)+)", page, re.MULTILINE)
    assert block is not None
    plan: dict[str, list[set[str]]] = {}
    for line in block[1].splitlines():
        if package := re.match(r" {4}(\w+)/  ", line):
            plan[package[1]] = []
        elif line:
            names = re.match(r" {8}(\w+(?:, \w+)*)  ", line)
            assert names is not None, line
            plan[list(plan)[-1]].append(set(names[1].split(", ")))
    return plan


def room_of(module: str) -> tuple[str, str]:
    """Package and room of a dotted name: the second part, which is empty for the package itself."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh Python holds after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def levels(root: Path, package: str) -> dict[str, int]:
    """The number of the line that each room and file of a package stands on, counted from the top."""
    return {name: number for number, line in enumerate(floors(root)[package]) for name in line}


def test_the_floor_plan_names_every_room_and_file(root: Path) -> None:
    assert list(floors(root)) == ["multitask", "minbert"]
    for package, beside in (("multitask", set()), ("minbert", {"families", "fast", "files"})):
        named = [*beside, *(name for line in floors(root)[package] for name in line)]
        folders = {file.parent.name for file in (root / package).glob("*/__init__.py")}
        files = {file.stem for file in (root / package).glob("*.py")} - {"__init__"}
        assert sorted(named) == sorted(folders | files)


def test_imports_of_multitask_go_down(root: Path, imports: list[Any]) -> None:
    level, checked, wrong = levels(root, "multitask"), 0, set()
    for importer, imported, _ in imports:
        (package, room), (other_package, other) = room_of(importer), room_of(imported)
        if package == other_package == "multitask" and room and room != other:
            checked += 1
            # Without a room it is the package itself, whose names load anything: not for those inside of it.
            if level[room] >= level.get(other, 0):
                wrong.add((importer, imported))
    assert checked > 100
    assert not wrong


def test_imports_of_the_book_go_down(root: Path, imports: list[Any]) -> None:
    level, checked, wrong = levels(root, "minbert"), 0, set()
    for importer, imported, when in imports:
        (package, room), (other_package, other) = room_of(importer), room_of(imported)
        if package == other_package == "minbert" and when == "import" and room in level and room != other:
            checked += 1
            if imported not in OF_FAST and level[room] >= level.get(other, 0):
                wrong.add((importer, imported))
    assert checked > 20
    assert not wrong


def test_the_encoder_knows_nothing_of_tasks(imports: list[Any]) -> None:
    assert not [each for each in imports if room_of(each.importer)[0] == "minbert" and "multitask" in each.imported]


def test_the_rooms_beside_the_book_keep_apart(imports: list[Any]) -> None:
    models = {"attention", "fast", "heads", "layers", "model", "vectors"}
    of_a_model = {"config", "packing", "inputs", "outputs", "optim", "tokenizer", "token_batch", "heads"}
    refused = {"files": models, "fast": {"files"}, "families": models | of_a_model | {"files"}}
    for room, others in refused.items():
        of_room = [each for each in imports if room_of(each.importer) == ("minbert", room)]
        assert of_room
        for importer, imported, _ in of_room:
            package, other = room_of(imported)
            assert package != "minbert" or other not in others | {""}, f"{importer} imports {imported}"


def test_no_circle_of_imports(modules: dict[str, ast.Module], imports: list[Any]) -> None:
    graph = {name: {each.imported for each in imports if each[::2] == (name, "import")} for name in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_packages_are_lazy(modules: dict[str, ast.Module], imports: list[Any], root: Path) -> None:
    files = [file for door in FRONT_DOORS for file in (root / door).rglob("__init__.py")]
    rooms = {".".join(file.parent.relative_to(root).parts) for file in files}
    assert rooms > set(FRONT_DOORS)
    for room in rooms - set(FRONT_DOORS):
        assert ast.get_docstring(modules[room])
        assert len(modules[room].body) == 1, f"{room} holds more than a docstring"
    for door in FRONT_DOORS:
        eager = {each.imported for each in imports if each[::2] == (door, "import")}
        assert eager == {"typing", "minbert.lazy"}


@pytest.mark.smoke
@pytest.mark.parametrize(
    "package",
    [
        "minbert",
        "multitask",
        "minbert.errors",
        "multitask.errors",
        "multitask.cli.commands",
        "multitask.settings.config",
        "multitask.settings.presets",
    ],
)
def test_an_import_alone_loads_no_dependency(package: str) -> None:
    dependencies = {"torch", "numpy", "tokenizers", "safetensors", "huggingface_hub", "tqdm", "filelock", "scipy"}
    assert not dependencies & loaded_by(f"import {package}")


@pytest.mark.smoke
def test_minberts_names_load_little_beyond_torch() -> None:
    torchs = loaded_by("import torch")
    added = loaded_by("from minbert import *") - torchs
    assert "minbert" in added
    assert not {"huggingface_hub", "safetensors", "scipy", "transformers", "filelock", "multitask"} & added


@pytest.mark.smoke
@pytest.mark.parametrize("package", [minbert, multitask])
def test_every_public_name_resolves_and_is_listed(package: object) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = package.nonsense
