"""What a registry remembers of other logs as their witness; over both databases."""

from __future__ import annotations

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.transparency.witnessing import REPEATED, Inconsistent, SizeDiffers
from digestry.translog.checkpoints import Checkpoint, parse_checkpoint
from digestry.translog.cosignatures import AddCheckpoint
from digestry.translog.merkle import Subtree, consistency_proof, leaf_hash, root_of
from digestry.translog.notes import Note, Signature, SignerKey, parse_note
from tests.catalog.raw import Raw
from tests.catalog.support import Clock

SECOND = 1_000_000
WITNESS = "witness.example/w"
KEY = SignerKey.new("log.example/a")
LEAVES = [leaf_hash(b"%d" % number) for number in range(20)]


def note_of(size: int, *extensions: str) -> Note:
    return Checkpoint(KEY.name, size, root_of(LEAVES[:size]), extensions).sign([KEY])


class Witness:
    """The witness as the registry's endpoint uses it."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._witnessing = catalog.witnessing
        self._clock = clock

    def _asked(self, note: Note, old: int) -> tuple[str, AddCheckpoint, Checkpoint, Note]:
        checkpoint = parse_checkpoint(note.text)

        def read(subtrees: list[Subtree]) -> dict[Subtree, bytes]:
            return {each: root_of(LEAVES[each.first : each.end]) for each in subtrees}

        proof = consistency_proof(old, checkpoint.size, read) if old <= checkpoint.size else []  # type: ignore[arg-type]
        return WITNESS, AddCheckpoint(old, tuple(proof), note.encode()), checkpoint, note

    def check(self, note: Note, old: int) -> Signature | None:
        return self._witnessing.check(*self._asked(note, old), now=self._clock())

    def add(self, note: Note, old: int) -> Signature:
        return self._witnessing.add(*self._asked(note, old), now=self._clock())


@pytest.fixture
def witness(catalog: Catalog, clock: Clock) -> Witness:
    return Witness(catalog, clock)


def test_what_was_cosigned_just_now_has_nothing_written(witness: Witness, clock: Clock, raw: Raw) -> None:
    assert witness.check(note_of(5), 0) is None
    made = witness.add(note_of(5), 0)
    before = raw.query("SELECT * FROM witnessed_logs")
    assert witness.check(note_of(5), 5) == made
    clock.now += REPEATED * SECOND - 1
    assert witness.check(note_of(5), 5) == made
    assert raw.query("SELECT * FROM witnessed_logs") == before
    clock.now += 1
    assert witness.check(note_of(5), 5) is None  # a fresh cosignature is what is asked for
    again = witness.add(note_of(5), 5)
    assert (KEY.verifier.made(again), again != made) == (False, True)
    assert witness.check(note_of(5), 5) == again


def test_only_the_same_text_has_the_same_cosignature(witness: Witness, clock: Clock) -> None:
    made = witness.add(note_of(5), 0)
    assert witness.check(note_of(5, "another text"), 5) is None
    other = witness.add(note_of(5, "another text"), 5)
    assert other != made
    assert witness.check(note_of(5), 5) is None
    clock.now -= 5 * SECOND  # set back: that cosignature is of a time to come
    assert witness.check(note_of(5, "another text"), 5) is None


def test_a_key_that_was_replaced_cosigns_nothing_again(
    witness: Witness, catalog: Catalog, clock: Clock
) -> None:
    witness.add(note_of(5), 0)
    clock.now += 1
    key = catalog.log_signer.rotate(witness=WITNESS, now=clock(), overlap=0).verifier
    assert witness.check(note_of(5), 5) is None
    assert key.made(witness.add(note_of(5), 5))


def test_a_damaged_row_is_written_anew(witness: Witness, raw: Raw) -> None:
    witness.add(note_of(5), 0)
    raw.edit("UPDATE witnessed_logs SET checkpoint = 'x'")
    assert witness.check(note_of(5), 5) is None
    witness.add(note_of(5), 5)
    assert (
        parse_note(raw.query("SELECT checkpoint FROM witnessed_logs")[0][0].encode()).text == note_of(5).text
    )


def test_what_is_refused_is_refused_before_anything_is_written(witness: Witness, raw: Raw) -> None:
    witness.add(note_of(5), 0)
    before = raw.query("SELECT * FROM witnessed_logs")
    for look in (witness.check, witness.add):
        with pytest.raises(SizeDiffers) as differs:
            look(note_of(9), 3)
        assert differs.value.size == 5
        with pytest.raises(Inconsistent):
            look(Checkpoint(KEY.name, 5, bytes(32)).sign([KEY]), 5)
    assert raw.query("SELECT * FROM witnessed_logs") == before
