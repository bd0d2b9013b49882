"""Where what runs stands in its registry: its indexes, the tags that point there, those that did."""

from __future__ import annotations

from typing import Any

import pytest

from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport
from digestry.audit.registry_queries import RegistryQueries
from digestry.audit.reports import values
from digestry.errors import Refused
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import AMD64, ARM64, Listed, claim, image_id, sighted

APP = f"{HOST}/team/app"


def rows(registries: FakeRegistries, *sightings: Any) -> tuple[list[dict[str, Any]], AuditReport]:
    report = audit([Listed(*sightings)], RegistryQueries(registries))
    document: Any = values.as_values(report)
    return document["containers"], report


@pytest.mark.parametrize("bulk", [False, True])
def test_every_tag_that_ever_held_it(bulk: bool) -> None:
    registries = FakeRegistries(bulk=bulk)
    app = registries.at(APP)
    old, new, other = app.image("old"), app.image("new"), app.image("arm")
    index = app.index({"linux/amd64": old, "linux/arm64": other}, "1.5")
    app.point("bad", index)
    app.point("alone", old.manifest)
    app.point("1.5", new.manifest)
    app.point("alone", None)
    (row,), _ = rows(registries, sighted(f"{APP}:1.5", claim(index, APP), platform=AMD64))
    assert row["running_digest"] == str(index)
    assert row["manifest_digest"] == str(old.manifest)
    assert row["indexes"] == [str(index)]
    assert row["tags"] == ["bad"]
    assert [(one["tag"], one["digest"]) for one in row["past_tags"]] == [
        ("alone", str(old.manifest)),
        ("1.5", str(index)),
    ]
    assert row["past_tags"][1]["until"] == row["moved_at"] == "2026-11-21T10:03:00.000000Z"
    asked_alone = sum(count for (what, *_), count in registries.asked.items() if what == "whose")
    assert asked_alone == (0 if bulk else 1)


def test_two_architectures_of_one_index() -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    amd, arm = app.image("amd"), app.image("arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1.5")
    found, _ = rows(
        registries,
        sighted(f"{APP}:1.5", claim(index, APP), platform=AMD64, name="a"),
        sighted(f"{APP}:1.5", claim(index, APP), platform=ARM64, name="b"),
    )
    assert [row["manifest_digest"] for row in found] == [str(amd.manifest), str(arm.manifest)]
    assert [(row["tag_state"], row["tags"], row["indexes"]) for row in found] == [
        ("current", ["1.5"], [str(index)])
    ] * 2


def test_one_config_under_two_manifests() -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    one = app.image("code", "gzip")
    app.image("code", "zstd", squeezed="zstd")
    (row,), _ = rows(registries, sighted(f"{APP}:gzip", claim(one.manifest, APP), image_id(one.config)))
    assert row["tags"] == ["gzip", "zstd"]


def test_another_registry_tells_of_the_own_tag_alone() -> None:
    registries = FakeRegistries(remembers=False)
    app = registries.at(APP)
    image = app.image("code", "1.5")
    app.point("other", image.manifest)
    (current, left), _ = rows(
        registries,
        sighted(f"{APP}:1.5", claim(image.manifest, APP), name="a"),
        sighted(f"{APP}:gone", claim(image.manifest, APP), name="b"),
    )
    assert (current["tags"], current["past_tags"]) == (["1.5"], None)
    assert (left["tags"], left["past_tags"]) == (None, None)
    assert not any(what == "whose" for what, *_ in registries.asked)


def test_a_registry_that_fails_to_say_is_a_problem() -> None:
    registries = FakeRegistries()
    image = registries.at(APP).image("code", "1.5")
    registries.fail(HOST, Refused("broken", status=500, code=""), only="whose")
    (row,), report = rows(registries, sighted(f"{APP}:1.5", claim(image.manifest, APP)))
    assert (row["running_digest"], row["tags"], row["past_tags"]) == (str(image.manifest), None, None)
    assert [problem.message for problem in report.problems] == ["broken"]
