"""Sphinx's settings: python -m sphinx -W -n --keep-going docs docs/_build."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the pages describe this checkout, whatever is installed

import minbert  # noqa: E402
import multitask  # noqa: E402

project = "minbert"
author = "the authors of minbert"
version = release = minbert.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "minbert"
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "no-value": True}


def link_public_names(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a type by the package that exports it, wherever its module is; leave others' and private types as words."""
    package, _, rest = node.get("reftarget", "").partition(".")
    name = rest.rpartition(".")[2]
    if node.get("refdomain") != "py":
        return None
    if name not in {"minbert": minbert.__all__, "multitask": multitask.__all__}.get(package, ()):
        return contnode
    public = f"{package}.{name}"
    return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)


def link_files_outside(app: Any, name: str, source: list[str]) -> None:
    """Let a link to a file of the checkout lead to a copy of it: myst takes ../README.md for a page that is missing."""
    source[0] = re.sub(r"\]\((\.\./[^)#]+)(#[^)]*)?\)", r"](path:\1)", source[0])


def setup(app: Any) -> None:
    """Tell Sphinx of the hooks above."""
    app.connect("missing-reference", link_public_names)
    app.connect("source-read", link_files_outside)
