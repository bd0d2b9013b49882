"""``digestry advisory``, as its own program, against a running registry."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.test_audit import environment, run
from tests.support import RegistryServer

__all__ = ["environment"]  # a fixture


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "cli/advisory/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


def test_add_list_show(environment: dict[str, str], registry: RegistryServer, name: str) -> None:
    bad, good = registry.push_image(name, "1", name.encode()), registry.push_image(name, "2", b"good")
    where = f"{registry.host}/{name}"
    done = run(
        environment, "advisory", "add", f"{where}:1", "--status", "affected", "--id", "CVE-7",
        "--fixed-by", f"{where}:2", "--note", "in the parser", "--author", "sec@example",
        "--timestamp", "2026-11-21T10:02:00Z",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{where}:1 is {bad}" in done.stderr
    assert f"{where}:2 is {good}" in done.stderr
    assert f"CVE-7: affected: {where}@{bad}" in done.stdout
    assert f"CVE-7: fixed: {where}@{good}" in done.stdout
    listed = run(environment, "advisory", "list", f"{where}@{bad}")
    assert re.search(
        rf"CVE-7 +affected +- +{good.short} +sec@example +2026-11-21T10:02:00.000000Z", listed.stdout
    )
    by_tag = run(environment, "advisory", "list", f"{where}:2", "--format", "json")
    assert by_tag.stderr.count(f"{where}:2 is {good}") == 1
    answer = json.loads(by_tag.stdout)
    assert [(one["vulnerability"], one["status"]) for one in answer] == [("CVE-7", "fixed")]
    (shown,) = json.loads(run(environment, "advisory", "show", f"{where}:1").stdout)
    assert shown["document"]["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert shown["document"]["statements"][0]["action_statement"] == f"Update to {where}@{good}."


def test_a_later_statement_clears(environment: dict[str, str], registry: RegistryServer, name: str) -> None:
    digest = registry.push_image(name, "1", name.encode())
    where = f"{registry.host}/{name}@{digest}"
    add = ("advisory", "add", where, "--id", "CVE-7", "--status")
    assert run(environment, *add, "affected").returncode == 0
    assert run(environment, *add, "not_affected", "--justification", "component_not_present").returncode == 0
    answer = json.loads(run(environment, "advisory", "list", where, "--format", "json").stdout)
    assert [one["status"] for one in answer] == ["not_affected"]


def test_what_is_not_there_is_exit_4_and_nothing_is_written(
    environment: dict[str, str],
    registry: RegistryServer,
    name: str,
) -> None:
    digest = registry.push_image(name, "1", name.encode())
    where = f"{registry.host}/{name}"
    missing = f"{where}@sha256:{'0' * 64}"
    for subject, cure in ((missing, f"{where}:1"), (f"{where}:1", missing)):
        done = run(
            environment, "advisory", "add", subject, "--id", "C", "--status", "affected", "--fixed-by", cure
        )
        assert done.returncode == 4
        assert "nothing was written" in done.stderr
    assert registry.request("GET", f"/v2/{name}/referrers/{digest}").json()["manifests"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--status", "fixed"),
        ("--id", "C", "--status", "worse"),
        ("--id", "C", "--status", "not_affected"),
        ("--id", "C", "--status", "fixed", "--fixed-by", "sha256:" + "0" * 64),
        ("--id", "C", "--status", "affected", "--timestamp", "noon"),
        ("--id", "C", "--status", "affected", "--fixed-by", "sha256:12"),
    ],
)
def test_wrong_usage(environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    assert run(environment, "advisory", "add", "127.0.0.1:9/x:1", *arguments).returncode == 2


def test_a_registry_that_does_not_answer(environment: dict[str, str]) -> None:
    assert run(environment, "advisory", "list", "127.0.0.1:9/x:1").returncode == 3


@pytest.mark.parametrize("command", ["list", "show"])
def test_nothing_was_to_be_written_by_a_look(
    environment: dict[str, str], registry: RegistryServer, name: str, command: str
) -> None:
    done = run(environment, "advisory", command, f"{registry.host}/{name}:nosuch")
    assert done.returncode == 4
    assert "is not in its registry" in done.stderr
    assert "nothing was written" not in done.stderr


def test_several_vulnerabilities_of_a_component_in_one_document(
    environment: dict[str, str], registry: RegistryServer, name: str
) -> None:
    registry.push_image(name, "1", name.encode())
    good = registry.push_image(name, "2", b"good")
    where = f"{registry.host}/{name}"
    curl = "pkg:deb/debian/curl@7.88.1"
    done = run(
        environment, "advisory", "add", f"{where}:1", "--status", "affected", "--id", "CVE-1",
        "--id", "CVE-2", "--component", curl, "--fixed-by", str(good),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(run(environment, "advisory", "list", f"{where}:1", "--format", "json").stdout)
    assert [(row["vulnerability"], row["component"]) for row in rows] == [("CVE-1", curl), ("CVE-2", curl)]
    assert len({row["advisory"] for row in rows}) == 1
    rows = json.loads(run(environment, "advisory", "list", f"{where}:2", "--format", "json").stdout)
    assert [(row["vulnerability"], row["status"]) for row in rows] == [("CVE-1", "fixed"), ("CVE-2", "fixed")]
