"""Plans of fixes: only what is known, and nothing that a name could break out of."""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest

from digestry.audit import remediation
from digestry.audit.findings import ContainerFinding
from digestry.audit.reports import fix_plan, table_layout
from tests.audit import fleets
from tests.audit.fakes import FakeRegistries
from tests.audit.fleets import APP


def bad(source: str = "docker", **changes: Any) -> ContainerFinding:
    finding = next(
        one for one in fleets.four(source).report.findings if one.container.name == "golftrack-web-1"
    )
    return dataclasses.replace(finding, container=dataclasses.replace(finding.container, **changes))


def planned(finding: ContainerFinding, **origins: str) -> remediation.Remediation:
    fix = remediation.plan(finding, origins)
    assert fix is not None
    return fix


def test_a_container_of_docker_is_replaced_by_the_fixed_digest() -> None:
    finding = bad()
    fix = planned(finding)
    assert finding.fixed_image is not None
    assert fix.commands == (
        f"docker pull {finding.fixed_image}",
        "docker inspect golftrack-web-1",
        "docker stop golftrack-web-1",
        "docker rename golftrack-web-1 golftrack-web-1-replaced",
        f"docker run --detach --name golftrack-web-1 {finding.fixed_image}",
        "docker rm golftrack-web-1-replaced",
    )
    assert "@sha256:" in fix.commands[4]
    assert any("ports, volumes, environment" in note for note in fix.notes)


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("docker:tcp://node:2375", "docker --host tcp://node:2375 pull"),
        ("docker:prod", "docker --context prod pull"),
        ("podman", "podman pull"),
        ("podman:unix:///run/podman.sock", "podman --url unix:///run/podman.sock pull"),
    ],
)
def test_the_engine_is_the_one_that_was_asked(source: str, start: str) -> None:
    assert planned(bad(source)).commands[0].startswith(start)


def test_a_source_with_a_name_of_its_own_is_known_by_what_it_is() -> None:
    assert not planned(bad("berlin")).commands
    assert (
        planned(bad("berlin"), berlin="docker:tcp://b:1").commands[0].startswith("docker --host tcp://b:1 ")
    )


def test_compose_has_its_hint() -> None:
    fix = planned(bad(namespace="shop"))
    assert fix.commands[-1] == "docker compose --project-name shop up --detach"
    assert any("`image: reg.example:5000/golftrack@sha256:" in note for note in fix.notes)


def test_a_pods_workload_gets_the_image_set() -> None:
    finding = bad("kubernetes:prod?namespace=shop", namespace="shop", name="web-abc/main")
    commands = planned(finding).commands
    assert commands[1] == (
        f"kubectl --context prod --namespace shop set image KIND/NAME main={finding.fixed_image}"
    )
    finding = bad("kubernetes", namespace="shop", name="cronjob/backup/main", runs=False)
    assert planned(finding).commands == (
        f"kubectl --namespace shop set image cronjob/backup main={finding.fixed_image}",
    )


def test_what_only_moved_is_pulled_and_restarted() -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    one = app.image("one", "1.5")
    app.image("two", "1.5")
    for source, name, command in (
        ("docker", "web", f"docker run --detach --name web {APP}:1.5"),
        ("kubernetes", "web-1/main", "kubectl --namespace shop rollout restart KIND/NAME"),
    ):
        namespace = "shop" if source == "kubernetes" else ""
        row = fleets.row(APP, one, ":1.5", name, source=source, namespace=namespace)
        (finding,) = fleets.made(registries, row).report.findings
        fix = planned(finding)
        assert command in fix.commands
        assert "nothing is known against what runs" in fix.notes[0]


def test_no_known_fix_is_said() -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    one = app.image("one", "1.5")
    fleets.advised(registries, app, one, None)
    (finding,) = fleets.made(registries, fleets.row(APP, one, ":1.5", "web", source="docker")).report.findings
    fix = planned(finding)
    assert not fix.commands
    assert "no fixed image is known for CVE-2026-1505" in fix.notes[0]


def test_an_inventory_has_words_only() -> None:
    fix = planned(bad("file:x.json"))
    assert not fix.commands
    assert fix.notes[0].startswith(f"start golftrack-web-1 on node from {APP}@sha256:")


def test_what_is_well_needs_no_plan() -> None:
    good = next(one for one in fleets.four().report.findings if one.assessment.state == "fixed")
    assert remediation.plan(good) is None
    assert remediation.lines(good) == []


def test_no_name_breaks_out_of_a_command() -> None:
    allowed = {"docker", "podman", "kubectl"}
    for line in map(table_layout.plain, fix_plan.write(fleets.nasty().report)):
        if not line or line.startswith("#"):
            continue
        words = shlex.split(line)
        assert words[0] in allowed, line
        assert line.isprintable()
        # Nothing but what is quoted has a meaning for a shell.
        assert not set(";|&$<>`()\n") & set(line), line


def test_a_name_that_cannot_be_typed_is_replaced_by_the_id() -> None:
    fix = planned(bad(name="a b; reboot", id="0123456789abcdef"))
    assert "docker stop 0123456789abcdef" in fix.commands
    assert not any("reboot" in command for command in fix.commands)
    assert not planned(bad(name="a b", id="x y")).commands
    assert not planned(bad("docker:$(reboot)")).commands
    assert not planned(bad("kubernetes", namespace="$(x)", name="a/b")).commands


def test_a_container_that_the_template_has_not_is_warned_of() -> None:
    fix = planned(bad("kubernetes", namespace="shop", name="web-1/debugger"))
    assert any("was injected, or is ephemeral" in note for note in fix.notes)
