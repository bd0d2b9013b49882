"""A signer that ends at each statement, and several that sign at once: no two checkpoints contradict."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from digestry.backend import Backend
from digestry.catalog.catalog import Catalog
from digestry.catalog.transparency.checkpoint_rows import StoredCheckpoint
from digestry.errors import DigestryError, StorageError
from digestry.translog.cosignatures import cosign
from digestry.translog.notes import COSIGNATURE, SignerKey
from tests.catalog.support import Clock, give_positions, image, put
from tests.catalog.test_transparency import NAME, begun, second


class Killed(Exception):
    """The end of the signer at a statement."""


@contextmanager
def killed_at(number: int, *, after: bool) -> Iterator[list[str]]:
    """Ends whoever executes its ``number``-th statement in this thread, before or after that."""
    mine, seen = threading.get_ident(), list[str]()

    def hook(_: object, __: object, statement: str, *___: object) -> None:
        if threading.get_ident() == mine:
            seen.append(statement)
            if len(seen) - 1 == number:
                raise Killed

    name = "after_cursor_execute" if after else "before_cursor_execute"
    event.listen(Engine, name, hook)
    try:
        yield seen
    finally:
        event.remove(Engine, name, hook)


def sign(catalog: Catalog, clock: Clock) -> StoredCheckpoint | None:
    return catalog.log_signer.sign(lambda _: True, now=clock(), fence=None)


def contradictions(shown: list[StoredCheckpoint]) -> list[int]:
    """The sizes that two roots were signed for."""
    roots: dict[int, set[bytes]] = {}
    for one in shown:
        roots.setdefault(one.checkpoint.size, set()).add(one.checkpoint.root)
    return [size for size, found in roots.items() if len(found) > 1]


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_signer_that_ends_at_any_statement(
    catalog: Catalog, backend: Backend, clock: Clock, after: bool
) -> None:
    begun(catalog, clock)
    images = [image(catalog, "x") for _ in range(2)]
    shown: list[StoredCheckpoint] = []
    for number in range(40):
        for place in range(130 if number in {0, 5} else 2):  # over the end of a tile, too
            put(catalog, "x", images[(number + place) % 2], "t")
            put(catalog, "x", images[(number + place + 1) % 2], "t")
        give_positions(catalog)
        before = catalog.log.checkpoint()
        ended = False
        with killed_at(number, after=after) as statements:
            try:
                found = sign(catalog, clock)
            except (Killed, StorageError):
                ended = True
        if not ended:
            assert len(statements) <= number  # all of them were tried
            assert found is not None
            shown.append(found)
            break
        # Nothing of it is shown, and another process signs the same, whole.
        assert catalog.log.checkpoint() == before
        other = backend.open_catalog()
        try:
            found = sign(other, clock)
        finally:
            other.close()
        assert found is not None
        shown.append(found)
        assert catalog.log.checkpoint() == found
    else:
        raise AssertionError("a signature takes more statements than were tried")
    assert len(shown) > 5
    assert contradictions(shown) == []
    opinion, _ = second(catalog)
    assert opinion.size == shown[-1].checkpoint.size
    assert catalog.verify_journal() is None


def test_signers_at_once_sign_one_history(catalog: Catalog, backend: Backend, clock: Clock) -> None:
    """As after a fail-over whose first holder does not know it yet, and without the lock's fence."""
    begun(catalog, clock)
    images = [image(catalog, "x") for _ in range(2)]
    signers = [backend.open_catalog() for _ in range(3)]
    shown: list[StoredCheckpoint] = []
    witness = SignerKey.new("w.example/w", COSIGNATURE)
    odd: list[BaseException] = []

    def work(mine: Catalog, start: threading.Barrier) -> None:
        start.wait()
        try:
            found = sign(mine, clock)
            if found is not None:
                shown.append(found)
                made = [cosign(found.checkpoint.text, witness, 1)]
                mine.log_signer.cosign(NAME, found.checkpoint.size, made, fence=None)
        except DigestryError:
            pass  # it lost, and says so
        except BaseException as error:  # noqa: BLE001 - told below
            odd.append(error)

    try:
        for number in range(12):
            for place in range(3):
                put(catalog, "x", images[(number + place) % 2], "t")
            give_positions(catalog)
            start = threading.Barrier(len(signers))
            threads = [threading.Thread(target=work, args=(one, start)) for one in signers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        for one in signers:
            one.close()
    assert odd == []
    last = sign(catalog, clock)
    newest = catalog.log.checkpoint()
    assert newest is not None
    assert contradictions([*shown, *([] if last is None else [last])]) == []
    sizes: list[Any] = [one.checkpoint.size for one in shown]
    assert len(set(sizes)) == len(sizes)  # each size is signed once
    second(catalog)
    assert catalog.verify_journal() is None
