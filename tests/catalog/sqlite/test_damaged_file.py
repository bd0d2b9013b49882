"""A file that somebody, or a disk, has changed: the journal and the indices tell."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from digestry.backend import open_backend
from digestry.catalog import journal_export
from digestry.catalog.blob_links import LEASE
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal_chain import Verdict
from digestry.errors import StorageError
from tests.backends import file_of
from tests.catalog.fleet_support import Agent
from tests.catalog.support import ORIGIN, Clock, collected, image, pushed, put, there

COLUMNS = (
    "sequence", "repository", "number", "at", "tag", "event", "from_digest", "to_digest", "media_type",
    "size", "actor", "address", "client", "previous_hash", "hash",
)  # fmt: skip


@pytest.fixture
def journal(catalog: Catalog) -> Path:
    """The root of a catalog with eight entries, its triggers taken away."""
    for tag in ("a", "b"):
        for _ in range(3):
            pushed(catalog, "x", [tag])
        catalog.delete_tag("x", tag, origin=ORIGIN)
    catalog.close()
    with sqlite3.connect(file_of(catalog)) as connection:
        for action in ("update", "delete"):
            connection.execute(f"DROP TRIGGER journal_no_{action}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return file_of(catalog).parent


def verdict(root: Path, *expect: str) -> Verdict:
    return open_backend(root).catalog_store.verify_journal(expect)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("sequence", [1, 5, 8])
def test_a_flipped_byte_is_found(journal: Path, column: str, sequence: int) -> None:
    """One bit of one byte, here and there in the value; what is no text any more included."""
    update = f"UPDATE journal SET {column} = ? WHERE sequence = ?"  # noqa: S608
    with sqlite3.connect(journal / "catalog.db", isolation_level=None) as connection:
        query = f"SELECT {column} FROM journal WHERE sequence = ?"  # noqa: S608
        (value,) = connection.execute(query, (sequence,)).fetchone()
        if column in {"sequence", "number"}:
            changed: list[Any] = [value + 100, value + (1 << 40)]
        elif isinstance(value, int):
            changed = [value ^ (1 << bit) for bit in (0, 7, 40)]
        elif value is None:
            changed = ["", "sha256:" + "0" * 64]
        else:
            raw = value.encode()
            changed = [
                raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :]
                for place in range(0, len(raw), max(1, len(raw) // 5))
                for flip in (1, 0x80)
            ]
        for new in changed:
            asked = update.replace("= ?", "= CAST(? AS TEXT)", 1) if isinstance(new, bytes) else update
            connection.execute(asked, (new, sequence))
            found = verdict(journal)
            assert found.broken is not None, (column, new)
            assert found.broken.sequence == sequence, (column, new, found.broken)
            assert found.entries == sequence - 1
            connection.execute(update, (value, new if column == "sequence" else sequence))
        assert verdict(journal).broken is None
    connection.close()


def test_an_index_that_lies_is_found(journal: Path) -> None:
    """The hashes cover the entries; questions are answered from the indices."""
    path = journal / "catalog.db"
    content = path.read_bytes()
    # A tag's name beside its repository's, as only the pages of indices have it; the last one is found.
    *_, last = re.finditer(rb"(?<!inde)xb", content)
    place = last.start()
    assert content[place - 1 : place] != b"b"
    path.write_bytes(content[: place + 1] + b"q" + content[place + 2 :])
    found = verdict(journal)
    assert (found.entries, found.broken is None) == (8, False)


def test_what_was_noted_elsewhere_must_be_there(journal: Path) -> None:
    lines = list(open_backend(journal).catalog_store.export_journal())
    hashes = [json.loads(line)["hash"] for line in lines]
    whole = ["0" * 64]
    for one in hashes:
        whole.append(hashlib.sha256((whole[-1] + one).encode()).hexdigest())
    assert verdict(journal, *hashes, *whole[1:]) == Verdict(8, whole[-1])
    assert verdict(journal, "f" * 64, hashes[2]).absent == ("f" * 64,)
    for start, end in itertools.combinations(range(8), 2):
        found = journal_export.verify_lines(lines[start : end + 1], hashes[start : end + 1])
        assert (found.entries, found.first, found.broken) == (end - start + 1, start + 1, None)
        # Of a part it is not known what was before it.
        known = ("0" * 64, whole[end + 1]) if start == 0 else ("", "")
        assert (found.anchor, found.last_hash) == known
        assert found.absent == ()
    assert journal_export.verify_lines([]) == Verdict(0, "0" * 64)


@pytest.mark.long
def test_nothing_goes_if_an_index_has_lost_a_run(catalog: Catalog, later: Clock) -> None:
    """By that index no container runs the image."""
    loose = put(catalog, "x", image(catalog, "x"))
    agent = Agent(catalog, later)
    agent.send(agent.started("c1"), agent.started("c2"))
    later.now += LEASE + 1
    catalog.close()
    with sqlite3.connect(file_of(catalog)) as connection:
        (statement,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'fleet_runs_running_by_image'"
        ).fetchone()
        connection.execute("DROP INDEX fleet_runs_running_by_image")
        connection.execute(f"{statement} AND container <> 'c1'")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = ? WHERE name = 'fleet_runs_running_by_image'", (statement,)
        )
    connection.close()
    with pytest.raises(StorageError, match="is damaged: 2 rows of fleet_runs, and 1 in its indices"):
        collected(catalog)
    assert there(catalog, loose) == [True]
    with sqlite3.connect(file_of(catalog)) as connection:
        connection.execute("REINDEX fleet_runs_running_by_image")
    connection.close()
    assert len(collected(catalog)) == 3


def test_nothing_goes_by_a_catalog_that_is_damaged(catalog: Catalog, later: Clock) -> None:
    """One bit of an index is another: by it no manifest needs that layer."""
    live, loose = put(catalog, "x", image(catalog, "x"), "t"), put(catalog, "x", image(catalog, "x"))
    later.now += LEASE + 1
    layer = str(live.layers[0].digest)
    entry = f"{layer}layer{live.digest}".encode()  # as the index by what is needed has it
    other = f"{layer[:-1]}{'1' if layer.endswith('0') else '0'}layer{live.digest}".encode()
    catalog.close()
    with sqlite3.connect(file_of(catalog)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = file_of(catalog).read_bytes()
    assert whole.count(entry) == 1
    file_of(catalog).write_bytes(whole.replace(entry, other))
    for _ in range(2):
        with pytest.raises(StorageError, match=r"is damaged: .*manifest_references_by_child") as caught:
            collected(catalog)
        assert "backup" in caught.value.hint
    assert there(catalog, live, loose) == [True, True]
    assert catalog.blob_size("x", live.layers[0].digest) is not None
    catalog.close()
    file_of(catalog).write_bytes(whole)
    assert len(collected(catalog)) == 3
