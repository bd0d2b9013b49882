"""What registries are told of what runs: of which digest, by which name of the place."""

from __future__ import annotations

import dataclasses

import pytest

from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport
from digestry.audit.recording import record, sightings_of_report
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import Refused
from digestry.model.digest import Digest
from digestry.model.sightings import LONGEST_PLACE, MOST_REPOSITORIES, MOST_SIGHTINGS, SightingReport, batch
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import Listed, claim, image_id, sighted

APP = f"{HOST}/team/app"


def outcomes(report: AuditReport, **origins: str) -> dict[str, dict[tuple[Digest, str], int]]:
    running, _ = sightings_of_report(report, origins)
    return {
        host: {(one.digest, one.place): one.containers for one in sightings}
        for host, sightings in running.items()
    }


def test_the_index_and_its_child() -> None:
    registries = FakeRegistries()
    app = registries.at(APP)
    one = app.image("one")
    index = app.index({"linux/amd64": one}, "1")
    seen = [
        sighted(f"{APP}:1", claim(index, APP), image_id(one.config), name=f"c{number}") for number in range(3)
    ]
    report = audit([Listed(*seen)], RegistryQueries(registries))
    assert outcomes(report) == {HOST: {(index, "node"): 3, (one.manifest, "node"): 3}}


def test_what_only_the_image_id_tells() -> None:
    registries = FakeRegistries()
    one = registries.at(APP).image("one", "1")
    report = audit([Listed(sighted(f"{APP}:1", image_id(one.config)))], RegistryQueries(registries))
    assert outcomes(report) == {HOST: {(one.manifest, "node"): 1}}


def test_what_nobody_knows_and_what_does_not_run() -> None:
    registries = FakeRegistries()
    one = registries.at(APP).image("one", "1")
    gone = Digest.of(b"gone")
    template = dataclasses.replace(sighted(f"{APP}:1"), runs=False)
    seen = [
        sighted(f"{APP}:1", claim(one.manifest, APP)), sighted(f"{APP}:1", claim(gone, APP), name="gone"),
        sighted("local:dev", image_id(gone), name="local", registry_named=False), template,
    ]  # fmt: skip
    report = audit([Listed(*seen)], RegistryQueries(registries))
    running, nothing_known = sightings_of_report(report)
    assert [one.digest for one in running[HOST]] == [one.manifest]
    assert nothing_known == 2


@pytest.mark.parametrize(
    ("source", "host", "place"),
    [
        ("docker", "node", "node"),
        ("docker:tcp://10.0.0.1", "", "docker:tcp://10.0.0.1"),
        ("kubernetes", "node-1", "kubernetes/shop"),
        ("kubernetes:prod?namespace=shop", "node-1", "prod/shop"),
        ("berlin", "node-1", "berlin/shop"),
        ("munich", "node-1", "node-1"),
        ("docker", "x" * 1000, "x" * LONGEST_PLACE),
        ("docker", "a\nb\x1b", "a\\nb\\x1b"),
    ],
)
def test_the_names_of_places(source: str, host: str, place: str) -> None:
    registries = FakeRegistries()
    one = registries.at(APP).image("one", "1")
    seen = dataclasses.replace(
        sighted(f"{APP}:1", claim(one.manifest, APP)), source=source, host=host, namespace="shop"
    )
    report = audit([Listed(seen)], RegistryQueries(registries))
    origins = {"berlin": "kubernetes:prod-b", "munich": "docker:tcp://m"}
    assert outcomes(report, **origins)[HOST] == {(one.manifest, place): 1}


@pytest.mark.long
def test_many_containers_are_a_few_requests() -> None:
    registries = FakeRegistries()
    images = [registries.at(f"{HOST}/r{number}").image(str(number), "1") for number in range(450)]
    seen = [
        dataclasses.replace(
            sighted(f"{HOST}/r{number}:1", claim(one.manifest, f"{HOST}/r{number}")), host=f"n{at % 30}"
        )
        for number, one in enumerate(images)
        for at in range(60)
    ]
    lookup = RegistryQueries(registries)
    result = record(audit([Listed(*seen)], lookup), lookup)
    (one,) = result.outcomes
    assert one.noted is not None
    assert one.noted.noted == 450 * 30
    assert registries.asked["record", HOST, ""] == 3
    assert sum(sighting.containers for _, sighting in registries.recorded) == len(seen)


def test_one_registry_that_fails_keeps_no_other_from_being_told() -> None:
    registries = FakeRegistries()
    other = "other.example"
    seen = []
    for host in (HOST, other):
        one = registries.at(f"{host}/app").image("one", "1")
        seen.append(sighted(f"{host}/app:1", claim(one.manifest, f"{host}/app"), name=host))
    lookup = RegistryQueries(registries)
    report = audit([Listed(*seen)], lookup)
    registries.fail(other, Refused("no", status=500), only="record")
    result = {outcomes.host: outcomes for outcomes in record(report, lookup).outcomes}
    assert result[other].failure is not None
    assert result[HOST].noted is not None


def test_a_request_has_an_end() -> None:
    digest = Digest.of(b"x")
    many = [SightingReport("a", digest, str(number), 1) for number in range(MOST_SIGHTINGS + 5)]
    assert batch(many) == MOST_SIGHTINGS
    repositories = [SightingReport(f"a{number}", digest, "p", 1) for number in range(1000)]
    assert batch(repositories) == MOST_REPOSITORIES
    assert batch(many[:1]) == 1
    assert batch([]) == 0
    long = [SightingReport("a", digest, "\U0001f600" * LONGEST_PLACE, 1)] * MOST_SIGHTINGS
    assert 1000 < batch(long) < MOST_SIGHTINGS
