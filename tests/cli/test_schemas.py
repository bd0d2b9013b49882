"""The published schemas: the files in ``docs/schemas``, and what commands really print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from digestry.cli import exit_codes
from digestry.cli.schemas import LISTINGS, NAMES, schema_of
from tests.cli.conftest import Run
from tests.json_schema import conforms
from tests.support import running_registry

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("command", NAMES)
def test_the_published_schema(run: Run, command: str) -> None:
    printed = json.loads(run("schema", *command.split()).stdout)
    assert printed == json.loads((SCHEMAS / f"{command.replace(' ', '-')}.json").read_text())
    assert printed["title"] == f"digestry {command}"


def test_every_schema_is_published_and_listed(run: Run) -> None:
    outputs = {path.stem for path in SCHEMAS.iterdir()} - {"sync"}  # which is of what a user writes
    assert outputs == {name.replace(" ", "-") for name in NAMES}
    assert run("schema").stdout.split("\n")[:-1] == list(NAMES)
    assert "Did you mean images" in run("schema", "imges", status=exit_codes.USAGE).stderr


def test_a_key_means_the_same_everywhere() -> None:
    """A key has one type in all listings, and times are called so."""
    kinds: dict[str, Any] = {}
    for command in LISTINGS:
        for key, rule in schema_of(command)["items"]["properties"].items():
            stated = {name: value for name, value in rule.items() if name != "description"}
            (stated,) = [one for one in stated.pop("anyOf", [stated]) if one != {"type": "null"}]
            assert kinds.setdefault(key, stated) == stated, (command, key)
    assert not kinds.keys() & {"created", "updated", "expires", "name_", "id", "image", "type"}


def test_what_commands_print(run: Run, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "program").write_text("one")
    with running_registry() as server:
        name = f"{server.host}/team/app"
        for text in ("one", "two"):
            (app / "program").write_text(text)
            run("pack", app, "-t", f"{name}:1", "--platform", "linux/amd64", "--push")
        run("index", "create", f"{name}:all", f"{name}:1")
        run("attach", f"{name}:1", app / "program", "--artifact-type", "text/plain")
        run("token", "create", "--root", server.root, "ci")
        digest = run("digest", f"{name}:1").stdout.strip()
        lines = {
            "images": ["images"],
            "ls": ["ls", server.host],
            "tags": ["tags", name],
            "log": ["log", name],
            "whose": ["whose", f"{name}@{digest}"],
            "history": ["history", f"{name}:1"],
            "referrers": ["referrers", f"{name}:1"],
            "token list": ["token", "list", "--root", str(server.root)],
            "webhook list": ["webhook", "list", "--root", str(server.root)],
            "inspect": ["inspect", f"{name}:1"],
            "validate": ["validate", f"{name}:all"],
        }
        assert {*lines, "audit"} == set(NAMES)  # what an audit prints, its own tests look at
        for command, line in lines.items():
            document = json.loads(run(*line, "--format", "json").stdout)
            schema = schema_of(command)
            assert conforms(document, schema, schema), (command, document)
            if command in LISTINGS:
                assert document or command == "webhook list", command
                assert all(list(row) == list(schema["items"]["properties"]) for row in document), command
                shown = run(*line, "--format", "{{json .}}").stdout.splitlines()
                assert [json.loads(text) for text in shown] == document


def test_what_is_printed_of_a_damaged_image(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    run("pack", tmp_path / "app", "-t", "app:1")
    digest = run("digest", "--local", "app:1").stdout.strip()
    path = tmp_path / "home" / "images" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    document = json.loads(run("images", "--format", "json", status=exit_codes.CONTENT).stdout)
    schema = schema_of("images")
    assert conforms(document, schema, schema)
    assert document[0]["problem"]
