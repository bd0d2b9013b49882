"""The rooms and the direction of imports, and what the command line may not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "digestry"


def loaded_by(statement: str) -> set[str]:
    """The modules that are loaded in a fresh interpreter after ``statement``."""
    script = f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_the_contracts_hold() -> None:
    # In a process of its own: it disables the loggers that there are.
    line = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_contracts_name_every_room() -> None:
    import tomllib

    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers, *_ = document["tool"]["importlinter"]["contracts"]
    named = {part.strip() for layer in layers["layers"] for part in layer.split("|")}
    rooms = {
        f"digestry.{entry.stem}"
        for entry in SOURCE.iterdir()
        if not entry.name.startswith(("_", "."))
        and ((entry / "__init__.py").exists() or entry.suffix == ".py")
    }
    assert rooms <= named


@pytest.mark.parametrize(
    "statement",
    [
        "import digestry.cli.main, digestry.cli.output",
        """
import sys
from digestry.cli.main import main
sys.argv = ["digestry", "--help"]
try:
    main()
except SystemExit:
    pass
""",
    ],
    ids=["import", "help"],
)
def test_the_command_line_starts_light(statement: str) -> None:
    modules = loaded_by(statement)
    heavy = ("rich", "urllib3", "sqlalchemy", "granian", "starlette", "alembic", "tomlkit", "msgspec", "ssl")
    assert modules.isdisjoint(heavy)
    ours = {name for name in modules if name.startswith("digestry.")}
    assert ours <= {
        "digestry.cli",
        "digestry.cli.exit_codes",
        "digestry.cli.command_group",
        "digestry.cli.main",
        "digestry.cli.output",
        "digestry.cli.verbose_option",
        "digestry.errors",
        "digestry.model",
        "digestry.model.text",
        "digestry.version",
    }


def test_the_model_does_no_input_or_output() -> None:
    modules = loaded_by("import digestry.model.manifest, digestry.model.reference, digestry.model.history")
    assert modules.isdisjoint({"socket", "ssl", "sqlite3", "subprocess", "tempfile", "digestry.fsio"})


@pytest.mark.parametrize(
    ("words", "rooms"),
    [
        (("sqlite3", "PRAGMA", "catalog.db"), ("catalog/sqlite/", "catalog/migrations/")),
        (("DiskBlobs",), ("blobs/", "backend/")),
    ],
)
def test_one_database_and_one_store_are_named_in_their_rooms_alone(
    words: tuple[str, ...], rooms: tuple[str, ...]
) -> None:
    elsewhere = [
        (str(path.relative_to(SOURCE)), word)
        for path in SOURCE.rglob("*.py")
        if not str(path.relative_to(SOURCE)).startswith(rooms)
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert elsewhere == []


def test_every_package_is_typed_and_described() -> None:
    assert (SOURCE / "py.typed").exists()
    silent = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if path.name != "__init__.py" and not path.read_text(encoding="utf-8").lstrip().startswith('"""')
        if "migrations" not in path.parts
    ]
    assert silent == []
