"""The journal of a large registry: how long its questions take. ``python -m bench.journal``.

Writes a catalog with so many entries, through the catalog's own hash, in one temporary directory;
then asks, and prints the median of each question's times.
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.backends import open_catalog

from digestry.backend import open_backend
from digestry.catalog.journal_hashes import GENESIS, HASHED, hash_of
from digestry.model.digest import Digest

_EPOCH = 1_790_000_000_000_000
_SECOND = 1_000_000
_BUSY = 50_000
_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest(number: int) -> str:
    return f"sha256:{hashlib.sha256(str(number).encode()).hexdigest()}"


def moves(entries: int) -> Iterator[tuple[str, str, str]]:
    """Repository, tag and digest: one tag that moves all the time, and many that moved now and then."""
    for number in range(entries):
        if number < _BUSY or number % 20 == 0:
            yield "team/busy", "latest", digest(number % 1000)
        elif number % 20 == 1:
            yield "team/many", f"build-{number}", digest(number)
        else:
            yield f"team/app-{number % 997}", f"1.{number % 61}", digest(number)


def fill(root: Path, entries: int) -> None:
    """Makes a catalog under ``root`` whose journal has so many entries, and the tags they lead to."""
    catalog = open_catalog(root)
    catalog.migrate()
    catalog.close()
    pointing: dict[tuple[str, str], tuple[str, int]] = {}
    ends: dict[str, tuple[int, str]] = {}

    def rows() -> Iterator[tuple[Any, ...]]:
        for sequence, (repository, tag, wanted) in enumerate(moves(entries), start=1):
            before = pointing.get((repository, tag), (None, 0))[0]
            # The same digest again would be no entry.
            to = digest(-sequence) if before == wanted else wanted
            at = _EPOCH + sequence * _SECOND
            event = "created" if before is None else "moved"
            number, previous = ends.get(repository, (0, GENESIS))
            fields = (
                repository, number + 1, at, tag, event, before, to, _MEDIA_TYPE, 405, "ci", "10.0.0.1",
                "docker/28.2", previous,
            )  # fmt: skip
            ends[repository] = (number + 1, hash_of(fields))
            pointing[repository, tag] = (to, at)
            yield (*fields, ends[repository][1], sequence)

    columns = ", ".join((*HASHED, "hash", "sequence"))
    marks = ", ".join("?" * (len(HASHED) + 2))
    with sqlite3.connect(root / "catalog.db") as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.executemany(f"INSERT INTO journal ({columns}) VALUES ({marks})", rows())  # noqa: S608
        names = sorted({repository for repository, _ in pointing})
        numbers = {name: number for number, name in enumerate(names, start=1)}
        connection.executemany(
            "INSERT INTO repositories VALUES (?, ?, ?)", [(numbers[name], name, _EPOCH) for name in names]
        )
        connection.executemany(
            "INSERT INTO tags VALUES (?, ?, ?, ?)",
            [(numbers[repository], tag, to, at) for (repository, tag), (to, at) in pointing.items()],
        )
    connection.close()


def median(question: Callable[[], object], rounds: int = 21) -> float:
    """Milliseconds."""
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        question()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.journal", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory(prefix="digestry-bench-") as name:
        root = Path(name)
        began = time.perf_counter()
        fill(root, entries)
        size = (root / "catalog.db").stat().st_size
        print(f"{entries:,} entries, {size / 1e6:,.0f} MB, made in {time.perf_counter() - began:.0f} s")
        catalog = open_catalog(root)
        middle = _EPOCH + entries // 2 * _SECOND
        popular = Digest.parse(digest(7))
        questions: dict[str, Callable[[], object]] = {
            "history of the busiest tag, newest 100": lambda: catalog.journal(
                "team/busy", tag="latest", limit=100
            ),
            "100 of them from the middle": lambda: catalog.journal(
                "team/busy", tag="latest", before=middle, limit=100
            ),
            "journal of one repository, newest 100": lambda: catalog.journal("team/app-1", limit=100),
            "the busiest tag as of the middle": lambda: catalog.tag_history.tag_at(
                "team/busy", "latest", middle
            ),
            "100 of 47,500 tags as of the middle": lambda: catalog.tag_history.tags_at(
                "team/many", middle, limit=100
            ),
            "whose a digest is that came 50 times": lambda: catalog.tag_history.tags_for_digest(
                "team/busy", popular, limit=100
            ),
        }
        for what, question in questions.items():
            print(f"  {what:<42}{median(question):>8.2f} ms")
        catalog.close()
        began = time.perf_counter()
        verdict = open_backend(root).catalog_store.verify_journal()
        assert verdict.broken is None, verdict
        assert verdict.entries == entries
        print(f"  {'all chains proved':<42}{time.perf_counter() - began:>8.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
