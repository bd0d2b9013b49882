"""A minimum age of what tags resolve to, over HTTP: own repositories and mirrors, as clients see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal import Origin
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.support import RegistryServer, Response, running_registry

DAY = 86400 * clock.SECOND
HOUR = 3600 * clock.SECOND
ORIGIN = Origin("tester", "127.0.0.1", "pytest")

RULES = """
[[min-age]]
tag = "edge"
age = "off"

[[min-age]]
repository = ["app", "team/**"]
age = "7d"
"""


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry whose tags have a least age, but edge, with two worker processes."""
    file = tmp_path_factory.mktemp("rules") / "registry.toml"
    file.write_text(RULES)
    with running_registry("--config", str(file), "--workers", "2") as server:
        yield server


@contextmanager
def catalog_at(server: RegistryServer, now: int) -> Iterator[Catalog]:
    """The catalog of a running server, by a clock that stands at ``now``."""
    catalog = open_backend(server.root, now=lambda: now).open_catalog()
    try:
        yield catalog
    finally:
        catalog.close()


def tag_at(server: RegistryServer, name: str, tag: str, digest: Digest, ago: int) -> None:
    """Point a tag at what the repository has, as if it had been ``ago`` microseconds ago."""
    raw = server.request("GET", f"/v2/{name}/blobs/{digest}").body
    with catalog_at(server, clock.now() - ago) as catalog:
        catalog.put_manifest(name, Manifest.parse(raw), tag_names=[tag], origin=ORIGIN)


def pull(server: RegistryServer, name: str, tag: str, method: str = "GET") -> Response:
    return server.request(method, f"/v2/{name}/manifests/{tag}")


def fields(response: Response) -> dict[str, str]:
    """The header about the age, by its keys."""
    word, *rest = response.headers["digestry-age"].split("; ")
    return {"": word, **dict(part.split("=", 1) for part in rest)}


def message(response: Response) -> str:
    return str(json.loads(response.body)["errors"][0]["message"])


def image(server: RegistryServer, name: str, salt: str) -> Digest:
    """An image of the repository, under no tag."""
    document: dict[str, Any] = server.image(name, salt.encode())
    return server.push_manifest(name, str(Digest.of(json.dumps(document).encode())), document)


def test_a_tag_is_answered_with_the_newest_digest_that_has_stood(gated: RegistryServer) -> None:
    old, new = image(gated, "app", "old"), image(gated, "app", "new")
    tag_at(gated, "app", "1.5", old, 30 * DAY)
    tag_at(gated, "app", "1.5", new, 3 * HOUR)
    for method in ("GET", "HEAD"):
        answer = pull(gated, "app", "1.5", method)
        assert (answer.status, answer.headers["docker-content-digest"]) == (200, str(old))
        found = fields(answer)
        assert (found[""], found["least"], found["newer"]) == ("older", str(7 * 86400), str(new))
        assert 0 <= int(found["newer-stood"]) - 3 * 3600 < 60
        assert found["since"] < found["until"]
        assert f"the newer {new} stood for 3 hours" in answer.headers["warning"]
    assert Digest.of(pull(gated, "app", "1.5").body) == old
    again = gated.request("GET", "/v2/app/manifests/1.5", headers={"If-None-Match": f'"{old}"'})
    assert again.status == 304


def test_nothing_old_enough_is_refused_with_the_reason(gated: RegistryServer) -> None:
    digest = image(gated, "team/young", "one")
    tag_at(gated, "team/young", "1", digest, 2 * DAY)
    answer = pull(gated, "team/young", "1")
    assert (answer.status, answer.code) == (403, "DENIED")
    assert "has stood under this tag for 7 days" in message(answer)
    assert f"{digest} did longest, for 2 days" in message(answer)
    assert "the present one will have at" in message(answer)
    assert pull(gated, "team/young", "1", "HEAD").headers["digestry-age"].startswith("refused; ")
    assert pull(gated, "team/young", "2").status == 404
    gated.push_manifest("team/young", "edge", gated.request("GET", f"/v2/team/young/blobs/{digest}").body)
    assert pull(gated, "team/young", "edge").status == 200
    assert "digestry-age" not in pull(gated, "team/young", "edge").headers


def test_another_repository_has_no_gate(gated: RegistryServer) -> None:
    gated.push_image("free", "latest")
    answer = pull(gated, "free", "latest")
    assert answer.status == 200
    assert "digestry-age" not in answer.headers
