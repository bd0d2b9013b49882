"""Which repositories changed since a moment."""

from __future__ import annotations

import json

from digestry.catalog.catalog import Catalog
from digestry.catalog.changed_repositories import OVERLAP, ChangedRepositories, Moment
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.catalog.support import ORIGIN, Clock, give_positions, image, pushed, put

MINUTE = 60_000_000


def later(catalog: Catalog, clock: Clock) -> Moment:
    """A moment later than what is looked at twice, and the same again after it."""
    if catalog.sequencing.is_needed():
        give_positions(catalog)
    clock.now += MINUTE
    moment = catalog.changes.moment()
    clock.now += MINUTE
    return moment


def since(catalog: Catalog, moment: Moment) -> ChangedRepositories:
    found = catalog.changes.since(moment)
    assert found.known
    return found


def test_moves_pushes_and_deletions(catalog: Catalog, clock: Clock) -> None:
    one = pushed(catalog, "a", ("1", "2"))
    pushed(catalog, "b")
    moment = later(catalog, clock)
    assert since(catalog, moment).repositories == frozenset()
    put(catalog, "a", one, "3")  # has no position yet, where those come later
    assert since(catalog, moment).repositories == {"a"}
    moment = later(catalog, clock)
    assert since(catalog, moment).repositories == frozenset()
    catalog.delete_tag("a", "3", origin=ORIGIN)
    assert since(catalog, moment).repositories == {"a"}
    moment = later(catalog, clock)
    untagged = put(catalog, "c", image(catalog, "c"))
    found = since(catalog, moment)
    assert found.repositories == {"c"}
    assert found.parts is False
    moment = later(catalog, clock)
    catalog.delete_manifest("c", untagged.digest, origin=ORIGIN)
    assert since(catalog, moment).repositories == {"c"}


def test_what_is_attached_to_a_layer_is_about_any_repository(catalog: Catalog, clock: Clock) -> None:
    one = pushed(catalog, "a")
    moment = later(catalog, clock)
    put(catalog, "a", attached(catalog, one.digest))
    found = since(catalog, moment)
    assert found.repositories == {"a"}
    assert found.parts is False
    moment = later(catalog, clock)
    put(catalog, "a", attached(catalog, one.layers[0].digest))
    found = since(catalog, moment)
    assert found.repositories == {"a"}
    assert found.parts is True


def attached(catalog: Catalog, subject: Digest) -> Manifest:
    body = json.loads(image(catalog, "a").raw)
    return Manifest.parse(
        json.dumps(
            body | {"subject": {"mediaType": media_types.OCI_LAYER, "digest": str(subject), "size": 8}}
        ).encode()
    )


def test_a_push_that_was_committed_late_is_seen(catalog: Catalog, clock: Clock) -> None:
    begun = clock.now
    clock.now += OVERLAP // 2
    moment = catalog.changes.moment()
    clock.now = begun  # the time that a slow transaction has
    put(catalog, "a", image(catalog, "a"))
    clock.now = moment.at + MINUTE
    assert since(catalog, moment).repositories == {"a"}


def test_another_catalog_does_not_know(catalog: Catalog, clock: Clock) -> None:
    pushed(catalog, "a")
    moment = later(catalog, clock)
    assert not catalog.changes.since(Moment(moment.position + 1, moment.at)).known
    assert not catalog.changes.since(Moment(moment.position, moment.at + 10 * MINUTE)).known
