"""Settings of the documentation site: ``make docs`` builds it in build/docs."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import Any

import digestry
import digestry.client.options
from digestry import __version__
from digestry.client.configuration.rules import RegistryRules

project = "digestry"
author = "The digestry authors"
release = version = __version__
project_copyright = author

# A type that the options name, and load for type checkers alone: the page of the library shows it.
vars(digestry.client.options)["RegistryRules"] = RegistryRules

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["schemas"]

# Markdown, with links to the headings of pages as the forges that show it make them.
myst_heading_anchors = 4

# The reference is made from the docstrings and the annotations of the public names.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False

# Nothing is loaded from another host: the theme brings its styles, and the fonts are the reader's own.
html_theme = "furo"
html_title = f"digestry {release}"
html_copy_source = False
html_show_sphinx = False


@functools.cache
def _defined() -> frozenset[str]:
    """The names of types of the whole package: an annotation has no module for what the type checker alone
    imports, nor for the other types of the same class."""
    pattern = re.compile(r"^(?:class )?([A-Z]\w+)(?:\(|:| =)", re.MULTILINE)
    modules = Path(digestry.__file__).parent.rglob("*.py")
    return frozenset(name for path in modules for name in pattern.findall(path.read_text(encoding="utf-8")))


def _resolve(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Resolve a name of the code by its last part: annotations have the module that defines it, and the
    reference has the public one. Types of other libraries, and of modules that are not public, are no links."""
    if node.get("refdomain") != "py":
        return None
    target: str = node["reftarget"]
    name = target.rpartition(".")[2]
    python = env.domains["py"]
    found = [full for full in python.objects if full.rpartition(".")[2] == name]
    if len(found) == 1:
        return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], found[0], node, text)
    module, _, _ = target.partition(".")
    other = module in sys.stdlib_module_names or module in {"digestry", "msgspec"}
    return text if (other and module != target) or target in _defined() | {"Path"} else None


def setup(app: Any) -> None:
    app.connect("missing-reference", _resolve)
