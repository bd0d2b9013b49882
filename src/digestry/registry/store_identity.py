"""The identity of a registry: the same ID in the catalog and in the blob store.

With another registry's catalog, a new one or an older one, garbage collection would take the blobs for
garbage. So the catalog and the blob store have the same ID, and the blob store records the catalog's
generation. Both are compared before the registry is served, and before anything is removed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from typing import Final

from digestry.backend import Backend
from digestry.blobs.protocols import BlobStore, StoreMark
from digestry.catalog.catalog import Catalog
from digestry.catalog.registry_identity import RegistryIdentity
from digestry.catalog.store import CatalogChanges, CatalogStore
from digestry.errors import Conflict, StorageError, StorageFull

log: Final = logging.getLogger("digestry.registry")

_LOOKED_AT: Final = 10_000
_ASKED: Final = 500
_LOOK_SECONDS: Final = 10.0


def ensure(catalog: Catalog, blobs: BlobStore) -> None:
    """Check as :func:`check` does, and give an ID to a registry that has none yet."""
    found, marked = catalog.identity.get(), check(catalog, blobs)
    if not marked:
        blobs.set_mark(StoreMark(found.id, found.generation))
    if not found.bound:
        catalog.identity.bind()


def check(catalog: Catalog, blobs: BlobStore, *, remove: bool = True) -> bool:
    """Return whether the store has the catalog's ID; False for a registry without IDs.

    Before a removal in a registry without IDs, the catalog must know most of the blobs.

    Raises :class:`Conflict` if the two are not of one registry, or if the catalog is older than it was.
    """
    mark = blobs.mark()  # first: a server may advance both meanwhile, the catalog's before the store's
    found = catalog.identity.get()
    if mark is None:
        if remove or found.bound:
            _check_new(catalog, blobs, found)
        return False
    if mark.id != found.id:
        raise Conflict(
            f"the catalog {catalog.describe()} is of the registry {found.id}, and the blobs beside it are of"
            f" {mark.id}",
            hint="put the right one back, or restore a backup; " + _all_the_same(blobs, found),
        )
    if mark.generation > found.generation:
        raise Conflict(
            f"the catalog {catalog.describe()} is older than the blobs beside it: what was pushed since would"
            " be removed as content that nobody needs",
            hint="put the newer one back, or restore a backup; " + _all_the_same(blobs, found),
        )
    return True


def of_copy(copy: CatalogStore) -> StoreMark | None:
    """Return the ID and the generation in a copy of a catalog; None for a copy from before there were IDs."""
    found = copy.identity()
    return None if found is None else StoreMark(found.id, found.generation)


def check_copy(copy: CatalogStore, mark: StoreMark | None, location: str) -> StoreMark | None:
    """Return :func:`of_copy`. Raises :class:`Conflict` if the blobs are another registry's, or if the catalog
    is older than it was when they were marked.

    ``mark`` is that of the blobs at ``location``, from before the copy was taken, if they are being served.
    """
    found = of_copy(copy)
    if mark is None or (found is not None and mark.id == found.id and mark.generation <= found.generation):
        return found
    raise Conflict(
        f"the blobs under {location} are another registry's than the catalog, or of a later state",
        hint="put the right catalog back, or choose another directory",
    )


class SameStore:
    """A check that the store is still the one for which this object was made: it may be replaced."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._before = blobs.instance()

    def check(self) -> None:
        """Raise :class:`StorageError` if another store has taken the store's place."""
        if self._blobs.instance() != self._before:
            raise StorageError(
                f"the content under {self._blobs.location} was replaced while blobs were removed from it",
                hint="nothing that is there now was removed; stop the registry before it is moved",
            )


def _check_new(catalog: Catalog, blobs: BlobStore, found: RegistryIdentity) -> None:
    """Raise :class:`Conflict` unless the catalog knows the blobs of a store that has no ID."""
    if found.bound:
        raise Conflict(
            f"the blobs beside the catalog {catalog.describe()} do not say which registry they are of: they"
            " are another's, lost, or on a disk that is not there",
            hint="put them back, or restore a backup; " + _all_the_same(blobs, found),
        )
    digests = itertools.islice(blobs.digests(), _LOOKED_AT)
    total = known = 0
    while some := list(itertools.islice(digests, _ASKED)):
        total += len(some)
        known += catalog.identity.knows(some)
    if total > 2 * known:
        raise Conflict(
            f"the catalog {catalog.describe()} knows {known} of the {total} blobs beside it: they are another"
            " registry's",
            hint="put the right catalog back, or restore a backup; " + _all_the_same(blobs, found),
        )
    if not total and catalog.identity.has_content():
        raise Conflict(
            f"the catalog {catalog.describe()} has content, and there are no blobs beside it: they are lost,"
            " or on a disk that is not there",
            hint="put them back, or restore a backup; " + _all_the_same(blobs, found),
        )


def _all_the_same(blobs: BlobStore, found: RegistryIdentity) -> str:
    mark = f"{found.id} {found.generation}"
    return f"if they belong together all the same, write '{mark}' to {blobs.mark_location}"


def advance(catalog: Catalog, blobs: BlobStore) -> None:
    """Raise the generation, so that older copies of the catalog are recognised.

    On a full disk the generation stays.
    """
    with contextlib.suppress(StorageFull):
        found = catalog.identity.advance()
        blobs.set_mark(StoreMark(found.id, found.generation))


class IdentityJob:
    """Advances the identity of a served registry after changes, at most once in ten seconds.

    Of several nodes the last one that did so continues; another one takes over once that has stopped.
    """

    name = "identity"

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._catalog = backend.open_catalog()
        self._blobs = backend.blobs
        self._changes: CatalogChanges | None = None
        self._seen: int | None = None
        self._generation: int | None = None

    def run(self, _: threading.Event) -> float:
        """Advance if anything was written since; return after how many seconds to look again."""
        if self._changes is None:
            self._changes = self._backend.open_changes()
        if self._changes.number() != self._seen:
            generation = self._catalog.identity.get().generation
            if self._generation in {None, generation}:
                advance(self._catalog, self._blobs)
                generation = self._catalog.identity.get().generation
                self._seen = self._changes.number()
            self._generation = generation
        return _LOOK_SECONDS
