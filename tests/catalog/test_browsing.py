"""What the pages read: lists by their keys with all that a row shows, searches, and a digest's details."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import insert

from digestry.catalog.blob_links import UnknownRepository
from digestry.catalog.catalog import Catalog
from digestry.catalog.schema import advisory_statements
from digestry.catalog.tag_pages import TagCursor
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix
from digestry.model.manifest import Manifest
from tests.catalog.support import ORIGIN, Clock, image, index, put


@pytest.mark.long
def test_repositories_come_by_name_with_their_tags_and_last_change(catalog: Catalog, clock: Clock) -> None:
    for name in ("b/one", "a/one", "b_one"):
        clock.now += 10
        put(catalog, name, image(catalog, name), "t1", "t2")
    rows = catalog.browsing.repositories(limit=10)
    assert [row.name for row in rows] == ["a/one", "b/one", "b_one"]
    assert [row.tags for row in rows] == [2, 2, 2]
    assert rows[0].bytes > 0
    assert rows[0].changed_at is not None
    assert rows[1].changed_at is not None
    assert rows[0].changed_at > rows[1].changed_at
    names = [row.name for row in catalog.browsing.repositories(containing="_", limit=10)]
    assert names == ["b_one"]
    assert [row.name for row in catalog.browsing.repositories(after="a/one", limit=1)] == ["b/one"]
    assert [row.name for row in catalog.browsing.repositories(beginning="b/", limit=9)] == ["b/one"]
    assert catalog.browsing.repository("a/one").tags == 2
    with pytest.raises(UnknownRepository):
        catalog.browsing.repository("a")


def test_tags_come_by_time_or_by_name_with_their_moves(catalog: Catalog, clock: Clock) -> None:
    first, second = image(catalog, "x"), image(catalog, "x")
    for manifest, tag in ((first, "b"), (first, "c"), (second, "a"), (second, "c")):
        clock.now += 10
        put(catalog, "x", manifest, tag)
    newest = catalog.browsing.tags("x", runs_at=None, limit=2)
    assert [(row.name, row.moves) for row in newest.rows] == [("c", 2), ("a", 1)]
    assert newest.more
    last = newest.rows[-1]
    after = TagCursor(last.name, last.moved_at)
    rest = catalog.browsing.tags("x", after=after, runs_at=None, limit=2)
    assert ([row.name for row in rest.rows], rest.more) == (["b"], False)
    assert rest.rows[0].digest == str(first.digest)
    by_name = catalog.browsing.tags("x", newest_first=False, after=TagCursor("a"), runs_at=None, limit=9)
    assert [row.name for row in by_name.rows] == ["b", "c"]
    assert not catalog.browsing.tags("x", containing="%", runs_at=1, limit=9).rows
    with pytest.raises(UnknownRepository):
        catalog.browsing.tags("y", runs_at=None, limit=9)


def test_an_index_is_listed_with_its_images_and_their_sizes(catalog: Catalog) -> None:
    children = [image(catalog, "x"), image(catalog, "x")]
    for child in children:
        put(catalog, "x", child)
    put(catalog, "x", index(*children), "t")
    page = catalog.browsing.tags("x", runs_at=1, limit=9)
    digest = page.rows[0].digest
    assert page.rows[0].config is None
    assert {child.digest for child in page.images.children[digest]} == {str(one.digest) for one in children}
    for child in children:
        assert page.images.sizes[str(child.digest)] == sum(blob.size for blob in child.blobs())


def test_searches_find_tags_and_digests_by_their_beginnings(catalog: Catalog) -> None:
    one, two = image(catalog, "a"), image(catalog, "b")
    put(catalog, "a", one, "v1", "v2")
    put(catalog, "b", two, "v1")
    browsing = catalog.browsing
    found = browsing.tags_beginning("v", beginning="", limit=9)
    assert [(tag.repository, tag.name) for tag in found] == [("a", "v1"), ("a", "v2"), ("b", "v1")]
    rest = browsing.tags_beginning("v", beginning="", after=("a", "v1"), limit=9)
    assert [(tag.repository, tag.name) for tag in rest] == [("a", "v2"), ("b", "v1")]
    assert [tag.repository for tag in browsing.tags_beginning("v", beginning="b", limit=9)] == ["b"]
    prefix = DigestPrefix("", one.digest.encoded[:12])
    (hit,) = browsing.digests_beginning(prefix, beginning="", limit=9)
    assert (hit.repository, hit.digest, hit.kind, hit.deleted_at) == ("a", str(one.digest), "manifest", None)
    blob = one.blobs()[0].digest
    kinds = {
        hit.kind
        for hit in browsing.digests_beginning(DigestPrefix("sha256", blob.encoded), beginning="", limit=9)
    }
    assert kinds == {"blob"}
    assert not browsing.digests_beginning(prefix, beginning="b", limit=9)
    assert not browsing.digests_beginning(prefix, beginning="", after=(hit.digest, "a"), limit=9)


def test_a_digest_has_what_refers_to_it_and_is_remembered_when_deleted(
    catalog: Catalog, clock: Clock
) -> None:
    child = image(catalog, "x")
    put(catalog, "x", child)
    parent = index(child)
    put(catalog, "x", parent, "t")
    details = catalog.browsing.digest("x", str(child.digest), limit=9, visible=bool)
    assert details.manifest is not None
    assert details.manifest.deleted_at is None
    assert [(user.digest, user.role) for user in details.users] == [(str(parent.digest), "manifest")]
    layer = str(child.layers[0].digest)
    details = catalog.browsing.digest("x", layer, limit=9, visible=bool)
    assert (details.manifest, details.blob) == (None, child.layers[0].size)
    assert [(user.digest, user.role) for user in details.users] == [(str(child.digest), "layer")]
    catalog.delete_manifest("x", parent.digest, origin=ORIGIN)
    details = catalog.browsing.digest("x", str(parent.digest), limit=9, visible=bool)
    assert details.manifest is not None
    assert details.manifest.deleted_at == clock.now


def test_statements_about_a_vulnerability_follow_each_other(catalog: Catalog) -> None:
    rows = [
        {
            "vulnerability": name,
            "repository": repository,
            "subject": "sha256:s",
            "advisory": f"sha256:{number}",
            "status": "affected",
            "stated_at": number,
        }
        for number, (name, repository) in enumerate([("CVE-1", "a"), ("CVE-1", "b"), ("CVE-11", "a")])
    ]
    with catalog._database.write() as connection:
        connection.execute(insert(advisory_statements), rows)
    browsing = catalog.browsing
    found = browsing.statements_about("cve-1", beginning="", limit=9)
    assert [(one.repository, one.stated_at) for one in found] == [("a", 0), ("b", 1)]
    assert browsing.statements_about("CVE-1", beginning="", after=found[0], limit=9) == found[1:]
    assert browsing.statements_about("CVE-1", beginning="b", limit=9) == found[1:]


def test_a_session_is_found_by_its_secret_until_it_ends(catalog: Catalog) -> None:
    sessions = catalog.web_sessions
    secret = sessions.begin("alice", "fingerprint", now=100, expires_at=200)
    found = sessions.find(secret)
    assert found is not None
    assert (found.identity, found.credential, found.created_at, found.used_at) == (
        "alice",
        "fingerprint",
        100,
        100,
    )
    assert len(found.csrf) >= 20
    sessions.touch(secret, now=150)
    touched = sessions.find(secret)
    assert touched is not None
    assert touched.used_at == 150
    assert sessions.find(secret + "x") is None
    other = sessions.begin("bob", "f", now=250, expires_at=300)  # ended ones go
    assert sessions.find(secret) is None
    sessions.end(other)
    assert sessions.find(other) is None


def referrer(catalog: Catalog, name: str, subject: Digest) -> Manifest:
    """A manifest that refers to ``subject``; not put."""
    body = json.loads(image(catalog, name).raw)
    body["subject"] = {"mediaType": media_types.OCI_LAYER, "digest": str(subject), "size": 8}
    return Manifest.parse(json.dumps(body).encode())


def test_referrers_of_a_layer_in_other_repositories_are_bounded_and_that_is_said(catalog: Catalog) -> None:
    child = image(catalog, "x")
    put(catalog, "x", child, "t")
    layer = child.layers[0].digest
    for number in range(3):
        put(catalog, f"y{number}", referrer(catalog, f"y{number}", layer))
    put(catalog, "x", referrer(catalog, "x", layer))

    def found(limit: int, hidden: str = "") -> tuple[list[str], bool]:
        details = catalog.browsing.digest(
            "x", str(child.digest), limit=limit, visible=lambda name: name != hidden
        )
        return sorted(name for name, _ in details.elsewhere.rows), details.elsewhere.more

    assert found(9) == (["y0", "y1", "y2"], False)
    assert found(9, hidden="y1") == (["y0", "y2"], False)
    names, more = found(2)
    assert (len(names), more) == (2, True)
