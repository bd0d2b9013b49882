"""What runs where, told and asked over HTTP."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

import pytest

from digestry.model.digest import Digest
from digestry.model.sightings import LARGEST_REQUEST, LONGEST_PLACE, MOST_SIGHTINGS
from tests.support import RegistryServer, Response

PATH = "/v2/_digestry/sightings"


def post(registry: RegistryServer, *entries: dict[str, Any]) -> Response:
    return registry.request(
        "POST", PATH, json.dumps({"sightings": entries}), {"Content-Type": "application/json"}
    )


def seen(name: str, digest: object, **more: Any) -> dict[str, Any]:
    return {"repository": name, "digest": str(digest), "place": "n1", "containers": 1, **more}


def where(registry: RegistryServer, name: str, digest: object, query: str = "") -> dict[str, Any]:
    answer = registry.request("GET", f"/v2/{name}/_digestry/sightings/{digest}{query}")
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def test_told_and_asked(registry: RegistryServer) -> None:
    name = "sightings/app"
    digest = registry.push_image(name, "t", os.urandom(10))
    before = datetime.datetime.now(datetime.UTC)
    answer = post(
        registry, seen(name, digest, containers=12), seen(name, digest, place="prod/shop"),
        seen(name, Digest.of(b"never")), seen("sightings/never", digest),
    )  # fmt: skip
    assert (answer.status, answer.json()) == (200, {"noted": 2, "unknown": 2})
    found = where(registry, name, digest)
    assert (found["digest"], found["places"]) == (str(digest), 2)
    first, second = found["sightings"]
    assert (first["place"], first["containers"], second["place"]) == ("n1", 12, "prod/shop")
    assert before <= datetime.datetime.fromisoformat(first["last"]) <= datetime.datetime.now(datetime.UTC)
    post(registry, seen(name, digest, containers=7))
    again = where(registry, name, digest, "?n=1")
    assert again["places"] == 2
    (latest,) = again["sightings"]
    assert (latest["place"], latest["containers"], latest["first"]) == ("n1", 7, first["first"])
    assert latest["last"] > first["last"]
    assert where(registry, "sightings/never", digest) == {
        "digest": str(digest), "places": 0, "sightings": [],
    }  # fmt: skip


def test_of_what_was_deleted_since(registry: RegistryServer) -> None:
    name = "sightings/gone"
    digest = registry.push_image(name, "t", os.urandom(10))
    assert registry.request("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    assert post(registry, seen(name, digest)).json() == {"noted": 1, "unknown": 0}
    assert where(registry, name, digest)["places"] == 1


def test_a_whole_request(registry: RegistryServer) -> None:
    name = "sightings/many"
    digest = registry.push_image(name, "t", os.urandom(10))
    entries = [seen(name, digest, place=f"node-{number}") for number in range(MOST_SIGHTINGS)]
    assert post(registry, *entries).json() == {"noted": MOST_SIGHTINGS, "unknown": 0}
    assert where(registry, name, digest, "?n=100000")["places"] == MOST_SIGHTINGS
    answer = post(registry, *entries, seen(name, digest))
    assert (answer.status, answer.code) == (400, "UNSUPPORTED")
    assert answer.json()["errors"][0]["detail"] == {"limit": MOST_SIGHTINGS}
    answer = registry.request("POST", PATH, b" " * (LARGEST_REQUEST + 1))
    assert answer.status == 413


@pytest.mark.parametrize(
    "wrong",
    [
        {"digest": "sha256:short"},
        {"place": ""},
        {"place": "a\nb"},
        {"place": "x" * (LONGEST_PLACE + 1)},
        {"containers": 0},
        {"containers": 1.5},
        {"repository": "UPPER"},
        {"repository": "../etc"},
    ],
)
def test_what_is_no_sighting(registry: RegistryServer, wrong: dict[str, Any]) -> None:
    digest = Digest.of(b"wrong")
    answer = post(registry, {**seen("sightings/wrong", digest), **wrong})
    assert answer.status == 400
    assert answer.code in {"UNSUPPORTED", "NAME_INVALID", "DIGEST_INVALID"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"sightings": 1}', b"[" * 100_000])
def test_what_is_no_request(registry: RegistryServer, body: bytes) -> None:
    assert registry.request("POST", PATH, body).status == 400


def test_methods_and_discovery(registry: RegistryServer) -> None:
    assert registry.request("GET", PATH).status == 405
    assert registry.request("POST", f"/v2/a/_digestry/sightings/{Digest.of(b'x')}", b"").status == 405
    assert registry.request("GET", "/v2/a/_digestry/sightings/no-digest").status == 400
    extensions = registry.request("GET", "/v2/_oci/ext/discover").json()["extensions"]
    listed = {endpoint for one in extensions for endpoint in one["endpoints"]}
    assert {"_digestry/sightings", "_digestry/sightings/<digest>"} <= listed


def test_the_audit_log_has_who_told_how_much(registry: RegistryServer) -> None:
    digest = registry.push_image("sightings/logged", "t", os.urandom(10))
    answer = post(registry, seen("sightings/logged", digest), seen("sightings/logged", Digest.of(b"no")))
    lines = [json.loads(line) for line in (registry.root / "audit.log").read_text().splitlines()]
    (line,) = [one for one in lines if one.get("request_id") == answer.headers["x-request-id"]]
    assert (line["action"], line["noted"], line["unknown"]) == ("note-sightings", 1, 1)
    assert line["user"] == "anonymous"
