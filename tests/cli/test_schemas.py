"""The published schemas: the files in ``docs/schemas``, and what commands really print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from digestry.cli import exit_codes
from digestry.cli.schemas import LISTINGS, NAMES, schema_of
from tests.cli.conftest import Run
from tests.fleet.support import SimulatedAgent, judged, moment
from tests.json_schema import conforms
from tests.support import running_registry

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("command", NAMES)
def test_the_published_schema(run: Run, command: str) -> None:
    printed = json.loads(run("schema", *command.split()).stdout)
    assert printed == json.loads((SCHEMAS / f"{command.replace(' ', '-')}.json").read_text())
    assert printed["title"] == f"digestry {command}"


def test_every_schema_is_published_and_listed(run: Run) -> None:
    outputs = {path.stem for path in SCHEMAS.iterdir()} - {"sync-file"}  # which is of what a user writes
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


@pytest.fixture
def app(tmp_path: Path) -> Path:
    directory = tmp_path / "app"
    directory.mkdir()
    (directory / "program").write_text("one")
    return directory


def conforming(run: Run, command: str, *line: object, status: int = 0) -> Any:
    """Run a command that prints JSON, and return that, which is as the command's schema says."""
    document = json.loads(run(*command.split(), *line, status=status).stdout)
    schema = schema_of(command)
    assert conforms(document, schema, schema), (command, document)
    return document


@pytest.mark.long
def test_what_commands_print(run: Run, app: Path, tmp_path: Path) -> None:
    with running_registry() as server:
        name = f"{server.host}/team/app"
        for text in ("one", "two"):
            (app / "program").write_text(text)
            run("pack", app, "-t", f"{name}:1", "--platform", "linux/amd64", "--push")
        run("index", "create", f"{name}:all", f"{name}:1")
        run("attach", f"{name}:1", app / "program", "--artifact-type", "text/plain")
        run("token", "create", "--root", server.root, "ci")
        run("advisory", "add", f"{name}:1", "--status", "affected", "--id", "CVE-1", "--author", "me")
        run("observe", "add", "--root", server.root, "registry.example/app")
        run("age", "allow", f"{name}:1", "--reason", "an urgent fix")
        digest = run("digest", f"{name}:1").stdout.strip()
        lines = {
            "images": [],
            "ls": [server.host],
            "tags": [name],
            "log": [name],
            "log key list": ["--root", str(server.root)],
            "whose": [f"{name}@{digest}"],
            "history": [f"{name}:1"],
            "referrers": [f"{name}:1"],
            "token list": ["--root", str(server.root)],
            "webhook list": ["--root", str(server.root)],
            "age list": [name],
            "observe list": ["--root", str(server.root)],
            "advisory list": [f"{name}:1"],
            "fleet who": [f"{name}:1"],
            "fleet since": ["1h", "--registry", server.host],
            "fleet silent": ["--registry", server.host],
        }
        assert lines.keys() == LISTINGS.keys()
        agent = SimulatedAgent(server, "h1")
        agent.start({"c1": f"team/app:1@{digest}"})
        agent.report(
            {"type": "gap", "source": "docker", "from": moment(-9), "until": moment(-8), "reason": "full"}
        )
        judged(server, {"affected": 1})
        for command, line in lines.items():
            ending = exit_codes.FINDINGS if command in {"fleet who", "fleet since"} else exit_codes.OK
            rows = conforming(run, command, *line, "--format", "json", status=ending)
            schema = schema_of(command)
            assert rows or command == "webhook list", command
            assert all(list(row) == list(schema["items"]["properties"]) for row in rows), command
            shown = run(*command.split(), *line, "--format", "{{json .}}", status=ending).stdout.splitlines()
            assert [json.loads(text) for text in shown] == rows
        json_ = ("--format", "json")
        asked = ("--registry", server.host, *json_)
        counts = conforming(run, "fleet summary", *asked, status=exit_codes.FINDINGS)
        assert counts["containers"]["affected"] == 1
        line = conforming(run, "fleet timeline", "CVE-1", *asked, status=exit_codes.FINDINGS)
        assert (line["running"], line["sentence"]) == (1, "1 container still runs it.")
        assert conforming(run, "inspect", f"{name}:1", *json_)["digest"] == digest
        assert conforming(run, "diff", f"{name}:1", *json_)["new"] == digest
        assert conforming(run, "validate", f"{name}:all", *json_)["valid"]
        assert conforming(run, "advisory show", f"{name}:1")[0]["kind"] == "OpenVEX"
        run("config", "set", "--registry", "ghcr.io", "mirrors", f"{server.host}/ghcr")
        assert conforming(run, "config show", *json_)["registries"]
        assert conforming(run, "config explain", "ghcr.io/a/b", *json_)["statements"]
        (tmp_path / "vex.json").write_text(
            json.dumps(conforming(run, "advisory show", f"{name}:1")[0]["document"])
        )
        imported = conforming(run, "advisory import", tmp_path / "vex.json", "--for", f"{name}:1", *json_)
        assert imported["images"][0]["stated"] == 1
        attached = conforming(
            run, "attach", f"{name}:1", app / "program", "--artifact-type", "text/csv", *json_
        )
        assert attached["files"][0]["name"] == "program"
        copied = conforming(run, "copy", f"{name}:all", f"oci:{tmp_path / 'layout'}:all", *json_)
        assert copied["images"][0]["digest"] == run("digest", f"{name}:all").stdout.strip()
        (tmp_path / "sync.toml").write_text(
            f'[[copy]]\nsource = "{name}"\ntarget = "oci:{tmp_path / "all"}"\nall-tags = true\n'
        )
        assert len(conforming(run, "sync", tmp_path / "sync.toml", *json_)["copies"][0]["images"]) == 2
        (row,) = conforming(run, "rm", f"{name}:1", "--yes", *json_)
        assert (row["tag"], row["digest"], row["deleted"]) == ("1", digest, "tag")
        assert conforming(run, "prune", "--yes", *json_)["removed"]


@pytest.mark.long
def test_what_commands_of_a_registry_print(run: Run, app: Path, tmp_path: Path) -> None:
    json_ = ("--format", "json")
    with running_registry() as server:
        root = Path(server.root)
        name = f"{server.host}/team/app"
        run("pack", app, "-t", f"{name}:1", "--push")
        config = json.loads(run("manifest", "get", f"{name}:1").stdout)["config"]["digest"]
        assert conforming(run, "gc", "--root", root, "--dry-run", *json_)["totals"]["blobs"] == 0
        observed = conforming(run, "observe report", "--root", root, *json_, status=exit_codes.REMOTE)
        assert observed["moves"] == []
        assert conforming(run, "journal verify", "--root", root, *json_)["entries"] == 1
        path = next(root.rglob(config.removeprefix("sha256:")))
        path.chmod(0o600)
        path.write_bytes(b"damaged")
        found = conforming(run, "scrub", "--root", root, *json_, status=exit_codes.FINDINGS)
        assert found["pass"]["damaged"] == 1
        assert found["damaged"][0]["repositories"][0]["tags"] == ["1"]
        taken = conforming(
            run, "backup", "--root", root, tmp_path / "backup", *json_, status=exit_codes.FINDINGS
        )
        assert [one["digest"] for one in taken["backup"]["missing"]] == [config]
    restored = conforming(
        run, "restore-backup", "--root", tmp_path / "new", tmp_path / "backup", *json_,
        status=exit_codes.FINDINGS,
    )  # fmt: skip
    assert restored["backup"]["journal"]["entries"] == 1


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
