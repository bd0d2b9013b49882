"""What sightings take in the file is what the triggers count."""

from __future__ import annotations

from digestry.catalog.catalog import Catalog
from digestry.model.digest import Digest
from digestry.model.sightings import SightingReport
from tests.catalog.raw import Raw
from tests.catalog.support import Clock, image, put


def seen(name: str, digest: Digest, place: str = "n1", containers: int = 1) -> SightingReport:
    return SightingReport(name, digest, place, containers)


def size_of(raw: Raw) -> int:
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(raw.query(f"PRAGMA {name}")[0][0]) for name in names)
    return (pages - free) * size


def test_it_takes_no_more_on_the_disk_than_is_counted(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    digest = put(catalog, "x", image(catalog, "x")).digest
    before = size_of(raw)
    for number in range(8):
        entries = [seen("x", digest, f"{number}.{other}" + "\u20ac" * 240) for other in range(500)]
        catalog.sightings.note(entries, at=clock.now + number, actor="a")
    ((counted,),) = raw.query("SELECT bytes FROM sighting_usage WHERE actor = 'a'")
    assert 1 << 20 < size_of(raw) - before < counted * 1.1
