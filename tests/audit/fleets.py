"""Fleets to report on: the story of one moved tag, a large one, and one whose every word is hostile."""

from __future__ import annotations

import dataclasses
from typing import Any

from digestry.advisories import publish
from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.timelines import Timeline, timelines
from digestry.inventory.observation import Unseen
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.audit.fakes import HOST, FakeRegistries, FakeRepository, Image
from tests.inventory.fakes import START, Listed, claim, image_id, sighted

APP = f"{HOST}/golftrack"
NASTY = (
    "\x1b]0;owned\x07\x1b[31m", "\u202egnp.exe", "</td><script>alert(1)</script>", "\" onload=alert(1) x='",
    "=HYPERLINK(\"http://evil\")", "+1", "-1", "@SUM(A1)", "\t=1", "a|b`c``<img src=x>", "\\|<b>",
    "]]>&bogus;",
    "\ufffe\x00\x0b", "'; rm -rf / #", "$(reboot)", "-rf", "line\nbreak", "@someone #1 ![](http://evil/x.png)",
    "```\n</details><h1>", "www.evil.example", "<!--", "[login](https://evil.example)", "[rule](1)",
    "\\[x\\](0)",
    "..", "../../etc/passwd", "%2e%2e", "javascript:alert(1)", "https://evil.example/", "C:\\x",
    "/abs", "{0}",
    "::error file=x::owned", " ::add-mask::x", "##vso[task.setvariable variable=PATH]x", "##[group]x",
)  # fmt: skip


@dataclasses.dataclass
class Fleet:
    """An audit's report, and the tags' timelines."""

    report: AuditReport
    histories: list[Timeline]


def made(registries: FakeRegistries, *seen: Any) -> Fleet:
    lookup = RegistryQueries(registries)
    report = audit([Listed(*seen)], lookup)
    return Fleet(report, timelines(report, lookup))


def advised(
    registries: FakeRegistries, app: FakeRepository, bad: Image, good: Image | None, **more: Any
) -> None:
    """States that ``bad`` is affected, and that ``good`` is not."""
    name = app.reference.name
    fixes = (
        [] if good is None else [publish.find_image(registries, Reference.parse(f"{name}@{good.manifest}"))]
    )
    subject = publish.find_image(registries, Reference.parse(f"{name}@{bad.manifest}"))
    values: dict[str, Any] = {"vulnerability": "CVE-2026-1505", "author": "security@example", **more}
    statement = publish.NewStatement(
        values["vulnerability"], "affected", values["author"], START, note=values.get("note", "")
    )
    publish.attach_statement(
        registries, subject, statement, fixes, new_queries=lambda: RegistryQueries(registries)
    )


def row(repository: str, image: Image, target: str, name: str, **more: Any) -> Any:
    reference = f"{repository}{target}"
    return dataclasses.replace(
        sighted(reference, claim(image.manifest, repository), image_id(image.config), name=name), **more
    )


def four(source: str = "docker") -> Fleet:
    """Two by tag and one by digest run the bad one; one runs the fixed one."""
    registries = FakeRegistries()
    app = registries.at(APP)
    bad, good = app.image("one", "1.5"), app.image("two", "1.5")
    advised(registries, app, bad, good)
    return made(
        registries,
        row(APP, bad, ":1.5", "golftrack-web-1", source=source),
        row(APP, bad, ":1.5", "golftrack-web-2", source=source),
        row(APP, bad, f"@{bad.manifest}", "golftrack-api", source=source),
        row(APP, good, ":1.5", "golftrack-web-3", source=source),
    )


def large(containers: int = 300) -> Fleet:
    """Two bad containers and one that its tag never pointed to, among so many."""
    registries = FakeRegistries()
    app = registries.at(APP)
    bad, middle, good = app.image("one", "1.5"), app.image("two", "1.5"), app.image("three", "1.5")
    app.point("1.5", middle.manifest)
    app.point("1.5", good.manifest)
    stranger = app.image("stranger", "nightly")
    advised(registries, app, bad, good)
    others = {
        name: registries.at(f"{HOST}/{name}").image(name, "16") for name in ("postgres", "redis", "team/shop")
    }
    seen: list[Any] = []
    for number in range(containers):
        host, name = f"node-{number % 40:02}", f"web-{number:03}"
        if number in {117, 243}:
            seen.append(row(APP, bad, ":1.5", f"golftrack-{name}", host=host))
        elif number == 200:
            seen.append(row(APP, stranger, ":1.5", f"golftrack-{name}", host=host))
        elif number in {50, 51, 52}:
            seen.append(row(APP, middle, ":1.5", f"golftrack-{name}", host=host))
        elif number % 4 == 3:
            other = list(others)[number // 4 % 3]
            seen.append(
                row(
                    f"{HOST}/{other}", others[other], ":16", f"{other.rpartition('/')[2]}-{number}", host=host
                )
            )
        else:
            seen.append(row(APP, good, ":1.5", f"golftrack-{name}", host=host))
    local = sighted("local:dev", image_id(Digest.of(b"x")), name="local", registry_named=False)
    seen.append(dataclasses.replace(local, host="node-07"))
    seen.append(Unseen("docker:tcp://node-41:2375", "node-41:2375 does not answer", "is its engine running?"))
    return made(registries, *seen)


def nasty() -> Fleet:
    """A container for each of :data:`NASTY`, which is its name, host, ID and namespace; the advisory
    and the problems say such things too."""
    registries = FakeRegistries()
    app = registries.at(APP)
    bad, good = app.image("one", "1.5"), app.image("two", "1.5")
    advised(registries, app, bad, good)
    seen: list[Any] = []
    for text in NASTY:
        parts: Any = {"host": text, "namespace": text, "id": text, "remarks": (text,)}
        seen.append(row(APP, bad, ":1.5", text, source="docker", **parts))
        seen.append(sighted(text, image_id(Digest.of(b"x")), name=text, registry_named=False))
        seen.append(row(APP, bad, ":1.5", text, source="kubernetes", namespace=text))
        seen.append(row(APP, bad, ":1.5", text, source=f"podman:{text}"))
        seen.append(Unseen(text, text, text))
    fleet = made(registries, *seen)
    return Fleet(
        dataclasses.replace(fleet.report, findings=tuple(map(_worse, fleet.report.findings))), fleet.histories
    )


def _worse(finding: ContainerFinding) -> ContainerFinding:
    """With an advisory whose every text is hostile."""
    text = " ".join(NASTY)
    advisories = tuple(
        dataclasses.replace(
            one,
            author=text,
            statement=dataclasses.replace(
                one.statement,
                vulnerability=f"CVE-1 {NASTY[2]} {NASTY[9]}",
                notes=text,
                aliases=(text,),
                action=text,
            ),
        )
        for one in finding.assessment.advisories
    )
    return dataclasses.replace(
        finding,
        assessment=dataclasses.replace(finding.assessment, advisories=advisories),
        action=finding.action + text,
    )
