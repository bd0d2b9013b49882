"""The public interface: what ``import digestry`` has, and what it costs."""

from __future__ import annotations

import ast
import tomllib
import zipfile
from pathlib import Path

import pytest

import digestry
from tests.test_architecture import ROOT, SOURCE, loaded_by


def test_every_public_name_is_there_and_described() -> None:
    for name in digestry.__all__:
        assert getattr(digestry, name).__doc__, name
        assert name in dir(digestry)
    assert digestry.__doc__


def test_a_name_that_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'digestry' has no attribute 'Regsitry'"):
        _ = digestry.Regsitry  # type: ignore[attr-defined]


def test_types_and_values_come_from_the_same_modules() -> None:
    """What a type checker reads is what ``__getattr__`` loads."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    stated = {
        alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "digestry"
        for alias in node.names
    }
    assert stated
    for name, module in stated.items():
        assert getattr(digestry, name).__module__ == module
    assert {*stated, "audit", "errors", "__version__"} == set(digestry.__all__)


@pytest.mark.parametrize(
    ("statement", "loaded", "not_loaded"),
    [
        ("import digestry", {"digestry.version"}, {"digestry.errors", "msgspec", "urllib3"}),
        ("import digestry; digestry.LocalStore", {"digestry.images.local_store"}, {"urllib3", "ssl", "rich"}),
        ("import digestry; digestry.Digest", {"digestry.model.digest"}, {"msgspec", "urllib3"}),
        (
            "import digestry; digestry.Registry",
            {"http.client"},
            {"urllib3", "sqlalchemy", "starlette", "rich", "click"},
        ),
    ],
)
def test_a_name_loads_what_it_needs_only(statement: str, loaded: set[str], not_loaded: set[str]) -> None:
    modules = loaded_by(statement)
    assert loaded <= modules
    assert modules.isdisjoint(not_loaded)


def test_the_version_is_the_projects() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert digestry.__version__ == document["project"]["version"]


def test_the_wheel_is_typed(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"digestry/py.typed", "digestry/__init__.py"} <= names
    assert not any(name.startswith("tests/") for name in names)
