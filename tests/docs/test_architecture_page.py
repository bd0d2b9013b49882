"""docs/architecture.md shows the code as it is: the picture, and the files of its walks."""

from __future__ import annotations

import ast
import re

from tests.docs.pages import HOUSE
from tests.docs.picture import picture

_SOURCE = HOUSE / "src" / "digestry"
_PAGE = HOUSE / "docs" / "architecture.md"
_STEP = re.compile(r"^\d+\. `(?P<file>[\w/]+\.py)` \((?P<names>`[\w.]+`(?:, `[\w.]+`)*)\)")


def _defined(file: str) -> set[str]:
    """Return the functions and classes of a file, and ``Class.method``."""
    names = set()
    for node in ast.parse((_SOURCE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            names |= {f"{node.name}.{one.name}" for one in members}
    return names


def test_the_picture_is_as_the_imports() -> None:
    drawn = (HOUSE / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == picture(), "run: python -m tests.docs.picture >docs/architecture.svg"


def test_the_walks_name_files_and_functions_that_are_there() -> None:
    steps = 0
    # A step may be longer than a line.
    text = re.sub(r"\n +", " ", _PAGE.read_text(encoding="utf-8"))
    for line in text.splitlines():
        if not re.match(r"\d+\. ", line):
            continue
        found = _STEP.match(line)
        assert found, line
        assert (_SOURCE / found["file"]).is_file(), found["file"]
        missing = set(re.findall(r"`([\w.]+)`", found["names"])) - _defined(found["file"])
        assert not missing, f"{found['file']}: {missing}"
        steps += 1
    assert steps > 25
    others = set(re.findall(r"`([a-z_]+/[\w/]+\.py)`", text)) - {"tests/docs/picture.py"}
    assert not [file for file in others if not (_SOURCE / file).is_file()]


def test_the_design_lists_every_room() -> None:
    text = (HOUSE / "docs" / "design.md").read_text(encoding="utf-8")
    part = text.partition("    src/digestry/\n")[2].partition("    tests/ ")[0]
    listed = set(re.findall(r"^ {6}(\w+)(?:/|\.py) ", part, re.MULTILINE))
    rooms = {path.parent.name for path in _SOURCE.glob("*/__init__.py")}
    modules = {path.stem for path in _SOURCE.glob("*.py")} - {"__init__"}
    assert rooms <= listed <= rooms | modules
