"""The tags of another registry's repository, and what refers to its images."""

from __future__ import annotations

import json

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Reply
from tests.registry.pull_through.support import KIND, Upstream, get, state
from tests.registry.support import query
from tests.support import RegistryServer, descriptor


def advisory(hub: Upstream, name: str, subject: Digest, text: str) -> Digest:
    """A referrer of ``subject`` that upstream lists."""
    raw = hub.manifests[name, str(subject)]
    document = {
        "schemaVersion": 2,
        "mediaType": KIND,
        "artifactType": media_types.IN_TOTO,
        "config": descriptor(media_types.OCI_EMPTY, hub.blob(name, b"{}"), 2),
        "layers": [],
        "subject": descriptor(KIND, subject, len(raw)),
        "annotations": {"says": text, media_types.PREDICATE_TYPE: media_types.OPENVEX},
    }
    digest = hub.manifest(name, document)
    size = len(hub.manifests[name, str(digest)])
    entry = descriptor(KIND, digest, size, artifactType=media_types.IN_TOTO)
    hub.referrers.setdefault((name, str(subject)), []).append(entry)
    return digest


def referrers(server: RegistryServer, name: str, subject: Digest) -> list[str]:
    answer = server.request("GET", f"/v2/{name}/referrers/{subject}")
    assert answer.status == 200, answer.body
    return [entry["digest"] for entry in answer.json()["manifests"]]


def test_all_tags_of_upstream_are_listed_in_pages(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    for tag in ("b", "a", "C", "d"):
        hub.image(name, tag)
    here = f"asking.test/{name}"
    answer = mirror.request("GET", f"/v2/{here}/tags/list")
    assert answer.json() == {"name": here, "tags": ["C", "a", "b", "d"]}
    assert state(answer) == "current"
    seen, path = [], f"/v2/{here}/tags/list?n=3"
    while path:
        answer = mirror.request("GET", path)
        seen.append(answer.json()["tags"])
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert seen == [["C", "a", "b"], ["d"]]
    assert mirror.request("GET", f"/v2/{here}/tags/list?n=0").json()["tags"] == []
    assert mirror.request("GET", f"/v2/{here}/tags/list?n=x").status == 400


def test_a_list_is_remembered_as_long_as_a_tag(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    hub.image(name, "1")
    for _ in range(8):
        assert mirror.request("GET", f"/v2/fresh.test/{name}/tags/list").json()["tags"] == ["1"]
    assert 1 <= hub.asked(name).count("GET tags/list") <= 2  # once for each worker


def test_the_tags_that_are_here_when_upstream_is_away(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"trouble11.test/{name}"
    hub.image(name, "1")
    hub.image(name, "2", layer=b"2")
    get(mirror, here, "2")
    hub.troubles[name] = lambda _: Reply(500)
    answer = mirror.request("GET", f"/v2/{here}/tags/list")
    assert answer.json()["tags"] == ["2"]
    assert state(answer) == "failing"


def test_an_unknown_repository_has_no_tags(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    answer = mirror.request("GET", f"/v2/asking.test/{name}/tags/list")
    assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


def test_referrers_are_fetched_and_stay(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"trouble12.test/{name}"
    subject = hub.image(name, "1", annotations={"of": name})
    first, second = (advisory(hub, name, subject, text) for text in ("one", "two"))
    assert sorted(referrers(mirror, here, subject)) == sorted(map(str, (first, second)))
    assert get(mirror, here, str(first)).body == hub.manifests[name, str(first)]
    listed = mirror.request("GET", f"/v2/{here}/_digestry/advisories").json()["advisories"]
    assert {entry["digest"] for entry in listed} == {str(first), str(second)}
    hub.troubles[name] = lambda _: Reply(500)
    answer = mirror.request("GET", f"/v2/{here}/referrers/{subject}")
    assert len(answer.json()["manifests"]) == 2
    assert state(answer) == "failing"


def test_a_withdrawn_referrer_goes(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    subject = hub.image(name, "1", annotations={"of": name})
    first, second = (advisory(hub, name, subject, text) for text in ("one", "two"))
    assert len(referrers(mirror, here, subject)) == 2
    hub.referrers[name, str(subject)] = [
        entry for entry in hub.referrers[name, str(subject)] if entry["digest"] == str(second)
    ]
    assert referrers(mirror, here, subject) == [str(second)]
    rows = query(mirror, "SELECT deleted_at FROM manifests WHERE digest = ?", str(first))
    assert rows[0][0] is not None


def test_what_refers_to_something_goes_only_by_the_word_of_who_knows_that(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"trouble15.test/{name}"
    subject = hub.image(name, "1", annotations={"of": name})
    signature = advisory(hub, name, subject, "one")
    assert referrers(mirror, here, subject) == [str(signature)]
    hub.troubles[name] = lambda _: Reply(404, b"<html>no such service</html>")
    assert referrers(mirror, here, subject) == [str(signature)]
    del hub.troubles[name]
    hub.referrers[name, str(subject)] = []
    assert referrers(mirror, here, subject) == []


def test_a_wrong_referrer_is_left_out(mirror: RegistryServer, hub: Upstream, name: str) -> None:
    here = f"asking.test/{name}"
    subject = hub.image(name, "1", annotations={"of": name})
    good, bad = (advisory(hub, name, subject, text) for text in ("one", "two"))
    hub.manifests[name, str(bad)] = json.dumps({"mediaType": KIND}).encode()
    assert referrers(mirror, here, subject) == [str(good)]


def test_an_upstream_without_referrers_has_them_under_a_tag(
    mirror: RegistryServer, hub: Upstream, name: str
) -> None:
    here = f"asking.test/{name}"
    subject = hub.image(name, "1", annotations={"of": name})
    found = advisory(hub, name, subject, "one")
    entries = hub.referrers[name, str(subject)]
    hub.manifest(
        name,
        {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries},
        f"sha256-{subject.encoded}",
    )
    hub.troubles[name] = lambda request: Reply(404) if "/referrers/" in request.path else None
    assert referrers(mirror, here, subject) == [str(found)]
