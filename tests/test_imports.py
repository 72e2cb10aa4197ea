"""What an import loads: nothing heavy before it is used."""

import json
import subprocess
import sys

import pytest

import minbert
import multitask


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules that a fresh Python holds after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "package", ["minbert", "multitask", "minbert.errors", "multitask.errors", "multitask.cli.commands"]
)
def test_an_import_alone_loads_no_dependency(package: str) -> None:
    dependencies = {"torch", "numpy", "tokenizers", "safetensors", "huggingface_hub", "tqdm", "filelock", "scipy"}
    assert not dependencies & loaded_by(f"import {package}")


def test_minberts_names_load_little_beyond_torch() -> None:
    torchs = loaded_by("import torch")
    added = loaded_by("from minbert import *") - torchs
    assert "minbert" in added
    assert not {"huggingface_hub", "safetensors", "scipy", "transformers", "filelock", "multitask"} & added


@pytest.mark.parametrize("package", [minbert, multitask])
def test_every_public_name_resolves_and_is_listed(package: object) -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = package.nonsense
