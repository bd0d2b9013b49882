"""``digestry diff``, as a user calls it, over images of registries, the local store and layouts."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest

from digestry.cli import exit_codes
from digestry.cli.schemas import schema_of
from tests.cli.conftest import Run
from tests.json_schema import conforms
from tests.support import RegistryServer


@pytest.fixture
def name(registry: RegistryServer) -> str:
    """A repository of a registry."""
    return f"{registry.host}/diff/{secrets.token_hex(6)}"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


def packed(run: Run, app: Path, name: str, text: str, *options: str) -> str:
    """Make an image of a file with this text, and return its digest."""
    (app / "program").write_text(text)
    run("pack", app, "-t", name, "--platform", "linux/amd64", *options)
    return run("digest", "--local", name).stdout.strip()


def compared(run: Run, *line: str | Path, status: int = 0) -> Any:
    document = json.loads(run("diff", *line, "--format", "json", status=status).stdout)
    schema = schema_of("diff")
    assert conforms(document, schema, schema), document
    return document


def rows(text: str) -> list[list[str]]:
    """Return the rows of the table of what changed, without their headings."""
    lines = text[text.index("CHANGE ") :].splitlines()[1:]
    return [line.split() for line in lines]


@pytest.mark.long
def test_what_a_tag_moved_to(run: Run, name: str, app: Path) -> None:
    """The digest before is the journal's, also of a tag that was deleted in between."""
    old = packed(run, app, f"{name}:1", "one", "--push", "-e", "MODE=a", "--user", "0", "--cmd", "serve")
    new = packed(
        run, app, f"{name}:1", "twice", "--push", "-e", "MODE=b", "-e", "DB_PASSWORD=x", "--cmd", "serve"
    )
    text = run("diff", f"{name}:1").stdout
    assert f"Old:         {name}@{old} {old}" in text
    assert f"New:         {name}:1 {new}" in text
    assert "Base:        different: the lowest layers differ" in text
    assert "0 layers shared (0B), 1 only in the old" in text
    table = rows(text)
    assert ["changed", "variable", "MODE", "a", "b"] in table
    assert ["added", "variable,", "secret?", "DB_PASSWORD", "-", "x"] in table
    assert ["removed", "setting", "User", "0", "-"] in table
    assert not any("Cmd" in row for row in table)
    assert sorted(row[0] for row in table if row[1] == "layer") == ["added", "removed"]
    run("rm", f"{name}:1", "--yes")
    packed(run, app, f"{name}:1", "twice", "--push", "-e", "MODE=b", "-e", "DB_PASSWORD=x", "--cmd", "serve")
    found = compared(run, f"{name}:1")
    assert (found["old"], found["new"], found["same"]) == (old, new, False)
    assert found["image"]["layers"]["added_size"] == found["image"]["new"]["size"]


def test_a_tag_that_never_moved(run: Run, name: str, app: Path) -> None:
    digest = packed(run, app, f"{name}:1", "one", "--push")
    assert f"has always been {digest}" in run("diff", f"{name}:1", status=exit_codes.NOT_FOUND).stderr
    run("diff", f"{name}:2", status=exit_codes.NOT_FOUND)
    assert "is not a tag" in run("diff", f"{name}@{digest}", status=exit_codes.USAGE).stderr
    run("diff", "a", "b", "c", status=exit_codes.USAGE)
    run("diff", status=exit_codes.USAGE)


@pytest.mark.long
def test_a_registry_without_history(run: Run, docker_registry: str, app: Path) -> None:
    name = f"{docker_registry}/diff/{secrets.token_hex(6)}"
    old, new = (packed(run, app, f"{name}:{tag}", tag, "--push") for tag in ("1", "2"))
    assert "keeps no history" in run("diff", f"{name}:1", status=exit_codes.REMOTE).stderr
    found = compared(run, f"{name}:1", f"{name}:2", "--remote")
    assert (found["old"], found["new"]) == (old, new)


@pytest.mark.long
def test_images_of_any_place(run: Run, name: str, app: Path, tmp_path: Path) -> None:
    old = packed(run, app, "local:1", "one")
    new = packed(run, app, f"{name}:2", "two", "--push", "-l", "version=2")
    run("copy", f"{name}:2", f"oci:{tmp_path / 'layout'}:2")
    run("save", "local:1", "--output", tmp_path / "one.tar", "--format", "oci-archive")
    places: list[tuple[str, str]] = [
        ("local:local:1", f"{name}:2"),
        (old[:19], f"docker://{name}:2"),
        (f"oci-archive:{tmp_path / 'one.tar'}", f"oci:{tmp_path / 'layout'}:2"),
        ("local:local:1", f"{name}@{new[7:20]}"),
    ]
    for pair in places:
        found = compared(run, *pair)
        assert (found["old"], found["new"]) == (old, new), pair
        assert found["image"]["config"]["labels"] == [{"name": "version", "old": None, "new": "2"}]


@pytest.mark.long
def test_exit_codes(run: Run, app: Path) -> None:
    packed(run, app, "a:1", "one")
    packed(run, app, "a:2", "two")
    run("tag", "a:1", "a:same")
    run("diff", "a:1", "a:2")
    run("diff", "a:1", "a:2", "--exit-code", status=exit_codes.FINDINGS)
    assert "are the same: sha256:" in run("diff", "a:1", "a:same", "--exit-code").stdout
    run("diff", "a:1", "a:2", "--platform", "nonsense", status=exit_codes.USAGE)
    run("diff", "oci:/nowhere:1", "a:2", status=exit_codes.CONTENT)


@pytest.mark.long
def test_platforms(run: Run, name: str, app: Path) -> None:
    for text in ("one", "two"):
        (app / "program").write_text(text)
        run("pack", app, "-t", f"{name}:amd", "--platform", "linux/amd64", "--push")
        (app / "program").write_text("the same")
        run("pack", app, "-t", f"{name}:arm", "--platform", "linux/arm64", "--push")
        added = [f"{name}:arm"] if text == "one" else []
        run("index", "create", f"{name}:all", f"{name}:amd", *added)
    text = run("diff", f"{name}:all").stdout
    assert ["linux/amd64", "changed"] in [line.split()[:2] for line in text.splitlines()]
    assert ["linux/arm64", "removed"] in [line.split()[:2] for line in text.splitlines()]
    assert "Platform:    linux/amd64" in text
    missing = run("diff", f"{name}:all", "--platform", "linux/arm64", status=exit_codes.NOT_FOUND)
    assert "has no image for linux/arm64" in missing.stderr
    assert "linux/amd64" in missing.stdout


@pytest.mark.long
def test_text_of_others_is_escaped(run: Run, app: Path) -> None:
    packed(run, app, "a:1", "one", "-e", "A=\x1b[31mred")
    packed(run, app, "a:2", "two", "-l", "\u202eevil=\x9b1m", "--cmd", "'\x1b]0;title\x07'")
    shown = run("diff", "a:1", "a:2", "--no-trunc").stdout
    assert "\\x1b[31mred" in shown
    assert not any(character in shown for character in "\x1b\x07\x9b\u202e")
