"""The journal as a signed log: over both databases, against trees that are computed from the entries."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from digestry.catalog.catalog import Catalog
from digestry.catalog.journal_hashes import HASHED, hash_of
from digestry.catalog.schema import journal
from digestry.catalog.transparency.damage import LogDamaged
from digestry.catalog.transparency.signing import Head, LogContradicted
from digestry.translog.checkpoints import open_checkpoint
from digestry.translog.cosignatures import cosign
from digestry.translog.entries import Entry, Sealed, open_leaf, parse_leaf
from digestry.translog.merkle import leaf_hash, root_from, root_of, verify_consistency
from digestry.translog.notes import COSIGNATURE, SignerKey
from digestry.translog.tiles import Tile, TileReader, bundles_of, decode_bundle, parse_path, tiles_of
from tests.catalog.raw import Raw
from tests.catalog.support import Clock, give_positions, image, pushed, put
from tests.translog import second_opinion

NAME = "registry.example.com/log"
OTHER = "(SELECT public FROM log_keys)"
"""A hash that is none of the log's."""


def begun(catalog: Catalog, clock: Clock) -> Catalog:
    catalog.log_signer.begin(NAME, now=clock(), fence=None)
    return catalog


def signed(catalog: Catalog, clock: Clock, *, head: Head | None = None, limit: int = 2000) -> Head | None:
    give_positions(catalog)
    found = catalog.log_signer.sign(
        lambda name: name != "secret", now=clock(), fence=None, head=head, limit=limit
    )
    if found is None:
        return None
    return Head(found.checkpoint.origin, found.checkpoint.size, found.checkpoint.root)


def leaves_of(catalog: Catalog, size: int) -> list[bytes]:
    leaves: list[bytes] = []
    for tile in bundles_of(size):
        bundle = catalog.log.bundle(tile)
        assert bundle is not None
        assert bundle.changed is None
        leaves += decode_bundle(tile, bundle.content)
    return leaves


def fetch(catalog: Catalog, tiles: Sequence[Tile]) -> dict[Tile, bytes]:
    found = {}
    for tile in tiles:
        content = catalog.log.tile(tile)
        assert content is not None, tile
        found[tile] = content
    return found


def test_an_empty_log_is_signed(catalog: Catalog, clock: Clock) -> None:
    assert catalog.log.checkpoint() is None
    begun(catalog, clock)
    assert catalog.log_signer.waiting(NAME)
    assert signed(catalog, clock) == Head(NAME, 0, root_of([]))
    assert signed(catalog, clock) is None
    assert not catalog.log_signer.waiting(NAME)
    assert catalog.verify_journal() is None


def test_entries_that_come_to_an_empty_log_are_proved_before_they_are_signed(
    catalog: Catalog, clock: Clock, raw: Raw
) -> None:
    signed(begun(catalog, clock), clock)
    pushed(catalog, "first")
    assert catalog.verify_journal() is None
    raw.edit("UPDATE log_checkpoints SET root = (SELECT public FROM log_keys)")
    broken = catalog.verify_journal()
    assert broken is not None
    assert "is not of these entries" in broken.reason


@pytest.mark.long
def test_entries_are_signed_in_order(catalog: Catalog, clock: Clock) -> None:
    begun(catalog, clock)
    first = pushed(catalog, "x")
    clock.now += 1
    second = pushed(catalog, "secret")
    head = signed(catalog, clock)
    assert head is not None
    assert head.size == 2
    log_keys = catalog.log.keys()
    assert log_keys is not None
    keys = [key.signer.verifier for key in log_keys.keys]
    stored = catalog.log.checkpoint()
    assert stored is not None
    assert open_checkpoint(stored.served, NAME, keys).checkpoint.root == head.root
    leaves = leaves_of(catalog, 2)
    assert root_of(leaf_hash(leaf) for leaf in leaves) == head.root
    clear, sealed = (parse_leaf(leaf) for leaf in leaves)
    assert isinstance(clear, Entry)
    assert (clear.repository, clear.tag, clear.event, clear.to_digest) == ("x", "t", "created", first.digest)
    assert b"tester" not in leaves[0]
    assert isinstance(sealed, Sealed)
    (opening,) = catalog.log.openings("secret", audits=False, limit=10)
    opened = open_leaf(leaves[1], opening)
    assert (opened.index, opened.entry.to_digest, opened.rest) == (1, second.digest, None)
    (audited,) = catalog.log.openings("secret", audits=True, tag="t", limit=10)
    rest = open_leaf(leaves[1], audited).rest
    assert rest is not None
    assert (rest.actor, rest.sequence) == ("tester", 2)
    assert rest.hash == catalog.journal("secret", limit=1)[0].hash
    assert catalog.log.openings("x", audits=True, index=1, limit=10) == []
    assert [found.index for found in catalog.log.openings("x", audits=True, index=0, limit=10)] == [0]


@pytest.mark.long
def test_a_log_grows_over_tiles(catalog: Catalog, clock: Clock) -> None:
    begun(catalog, clock)
    heads: list[Head] = []
    one, other = image(catalog, "x"), image(catalog, "x")
    for number in range(300):
        put(catalog, "x", (one, other)[number % 2], "t")
        if number in {0, 1, 6, 250, 254, 255, 256, 299}:
            head = signed(catalog, clock, head=heads[-1] if heads else None, limit=100)
            while head is not None:
                heads.append(head)
                head = signed(catalog, clock, head=head, limit=100)
    last = heads[-1]
    assert [head.size for head in heads] == [1, 2, 7, 107, 207, 251, 255, 256, 257, 300]
    leaves = leaves_of(catalog, 300)
    assert root_of(map(leaf_hash, leaves)) == last.root
    for head in heads:
        assert root_of(map(leaf_hash, leaves[: head.size])) == head.root
        assert root_from(head.size, TileReader(head.size, lambda tiles: fetch(catalog, tiles))) == head.root
        proof = catalog.log.consistency(head.size, 300)
        verify_consistency(head.size, head.root, 300, last.root, proof)
    assert all(catalog.log.tile(tile) is not None for tile in tiles_of(300))
    assert [tile.path for tile in tiles_of(300)] == ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"]
    for absent in (Tile(0, 1, 45), Tile(1, 0, 2), Tile(2, 0, 1)):
        assert catalog.log.tile(absent) is None
    for absent in (Tile(None, 1, 45), Tile(None, 2, 1)):
        assert catalog.log.bundle(absent) is None


def served(catalog: Catalog, path: str) -> bytes | None:
    """A resource of the log, as the registry answers."""
    tile = parse_path(path)
    if tile.level is not None:
        return catalog.log.tile(tile)
    bundle = catalog.log.bundle(tile)
    return None if bundle is None else bundle.content


def second(catalog: Catalog) -> tuple[second_opinion.Signed, second_opinion.Tree]:
    """Let the other verifier open the newest checkpoint, and read all of the log."""
    stored, keys = catalog.log.checkpoint(), catalog.log.keys()
    assert stored is not None
    assert keys is not None
    found = second_opinion.opened(stored.served, [str(key.signer.verifier) for key in keys.keys])
    assert found.origin == NAME
    return found, second_opinion.whole(lambda path: served(catalog, path), found.size, found.root)


def compare(catalog: Catalog, found: Sequence[second_opinion.Signed], tree: second_opinion.Tree) -> None:
    """Compare the catalog's proofs between all checkpoints with the other verifier's."""
    for old in found:
        for new in found:
            if old.size > new.size:
                continue
            proof = catalog.log.consistency(old.size, new.size)
            assert second_opinion.consistent(old.size, old.root, new.size, new.root, proof)
            if old.size:
                assert proof == tree.proof(old.size, 0, new.size)
                assert not second_opinion.consistent(old.size, bytes(32), new.size, new.root, proof)


@pytest.mark.long
def test_a_second_opinion(catalog: Catalog, clock: Clock) -> None:
    """A verifier that shares no code with this one reads the log at the edges of its tiles."""
    begun(catalog, clock)
    one, other = image(catalog, "x"), image(catalog, "x")
    found, sizes = [], {0, 1, 2, 3, 254, 255, 256, 257, 258}
    for number in range(259):
        if number in sizes:
            signed(catalog, clock)
            opinion, tree = second(catalog)
            assert opinion.size == number
            found.append(opinion)
        put(catalog, "x", (one, other)[number % 2], "t")
    compare(catalog, found, tree)
    last = found[-1]
    for index in (0, 1, 127, 128, 254, 255, 256, 257):
        path = tree.path(index, 0, last.size)
        assert second_opinion.included(tree.leaves[index], index, last.size, path, last.root)
        assert not second_opinion.included(tree.leaves[index - 1], index, last.size, path, last.root)


@pytest.mark.long
def test_a_second_opinion_of_two_levels(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    """At 65,536 entries the tree gets a whole tile of its second level."""
    begun(catalog, clock)
    pushed(catalog, "x")
    give_positions(catalog)
    columns = [
        name
        for name in journal.c.keys()  # noqa: SIM118
        if name not in {"sequence", "at", "number"}
    ]
    listed = ", ".join(columns)
    found = []
    for first, size in ((1, 65_535), (65_535, 65_536), (65_536, 65_537), (65_537, 65_793)):
        numbers = (
            f"WITH RECURSIVE n(i) AS (SELECT {first + 1} UNION ALL SELECT i + 1 FROM n WHERE i < {size}) "  # noqa: S608
        )
        raw.edit(
            f"INSERT INTO journal (sequence, at, number, {listed}) {numbers}"  # noqa: S608
            f" SELECT n.i, journal.at + n.i, n.i, {listed} FROM n, journal WHERE journal.sequence = 1"
        )
        while catalog.log_signer.waiting(NAME):
            signed(catalog, clock)
        opinion, tree = second(catalog)
        assert opinion.size == size
        found.append(opinion)
    compare(catalog, found, tree)


@pytest.mark.long
def test_the_databases_own_rules_keep_the_log(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    begun(catalog, clock)
    pushed(catalog, "x")
    signed(catalog, clock)
    for statement in (
        "UPDATE log_entries SET sequence = 2",
        "DELETE FROM log_entries",
        "DELETE FROM log_checkpoints",
        "UPDATE log_checkpoints SET note = ''",
        "UPDATE log_origins SET origin = 'other'",
    ):
        assert "append-only" in raw.refused(statement)


@pytest.mark.long
@pytest.mark.parametrize("entries", [1, 3, 257])
def test_a_changed_leaf_is_never_signed_over(catalog: Catalog, clock: Clock, raw: Raw, entries: int) -> None:
    begun(catalog, clock)
    one, other = image(catalog, "x"), image(catalog, "x")
    for number in range(entries):
        put(catalog, "x", (one, other)[number % 2], "t")
    head = signed(catalog, clock)
    raw.edit(f"UPDATE log_entries SET hash = (SELECT public FROM log_keys) WHERE sequence = {entries}")  # noqa: S608
    pushed(catalog, "y")
    for noted in (head, None):
        with pytest.raises(LogContradicted, match=r"rows of the log were changed|with other entries"):
            signed(catalog, clock, head=noted)
    assert catalog.log_signer.unsigned() == 1


@pytest.mark.long
def test_an_edited_entry_of_the_journal_is_not_what_was_logged(
    catalog: Catalog, clock: Clock, raw: Raw
) -> None:
    begun(catalog, clock)
    pushed(catalog, "x")
    clock.now += 1
    pushed(catalog, "y")
    signed(catalog, clock)
    raw.edit("UPDATE journal SET tag = 'u' WHERE repository = 'y'")
    bundle = catalog.log.bundle(Tile(None, 0, 2))
    assert bundle is not None
    assert bundle.changed == 1


@pytest.mark.long
def test_a_catalog_that_is_behind_what_was_signed_signs_nothing(catalog: Catalog, clock: Clock) -> None:
    begun(catalog, clock)
    pushed(catalog, "x")
    head = signed(catalog, clock)
    assert head is not None
    pushed(catalog, "x", ("u",))
    for noted, message in (
        (Head(NAME, 5, head.root), "was signed with 5 entries, and this catalog has signed 1"),
        (Head(NAME, 1, bytes(32)), "with other entries than this catalog has among the first 1"),
        (Head("other", 1, head.root), "was signed as other, which this catalog does not know"),
    ):
        with pytest.raises(LogContradicted, match=message):
            signed(catalog, clock, head=noted)
    assert signed(catalog, clock, head=head) is not None


def test_a_missing_entry_of_the_journal_stops_the_log(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    begun(catalog, clock)
    pushed(catalog, "x")
    head = signed(catalog, clock)
    for name in ("y", "z"):
        clock.now += 1
        pushed(catalog, name)
    give_positions(catalog)
    raw.edit("DELETE FROM journal WHERE sequence = 2")
    with pytest.raises(LogContradicted, match="entry 2 is missing: 3 comes next"):
        catalog.log_signer.sign(lambda _: True, now=clock(), fence=None, head=head)
    assert catalog.log_signer.unsigned() == 2


def logged(catalog: Catalog, clock: Clock, entries: int) -> None:
    begun(catalog, clock)
    one, other = image(catalog, "x"), image(catalog, "x")
    for number in range(entries):
        clock.now += 1
        put(catalog, "x", (one, other)[number % 2], "t")
    signed(catalog, clock)


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        (
            "UPDATE log_entries SET hash = (SELECT public FROM log_keys) WHERE sequence = 2",
            2,
            "not the entry",
        ),
        ("UPDATE log_entries SET secret = hash WHERE sequence = 2", 2, "not the entry that was signed"),
        ("UPDATE log_entries SET sealed = NOT sealed WHERE sequence = 2", 2, "not the entry that was signed"),
        ("DELETE FROM log_entries WHERE sequence = 2", 2, "its leaf is missing"),
        ("DELETE FROM log_entries WHERE sequence = 257", 256, "signed with 257 entries, and has 256"),
        ("UPDATE log_nodes SET hash = (SELECT public FROM log_keys)", 256, "was changed"),
        ("DELETE FROM log_nodes", 256, "hash 0 of level 1 of the signed log is missing"),
        ("UPDATE log_checkpoints SET root = (SELECT public FROM log_keys)", 257, "is not of these entries"),
        ("UPDATE log_checkpoints SET note = 'other'", 257, "is not of these entries"),
        ("UPDATE log_checkpoints SET size = 256", 256, "is not of these entries"),
        ("UPDATE log_checkpoints SET origin = 'other'", 257, "is not of these entries"),
    ],
)
def test_the_proof_of_the_journal_has_the_log_in_it(
    catalog: Catalog, clock: Clock, raw: Raw, case: tuple[str, int, str]
) -> None:
    statement, position, reason = case
    logged(catalog, clock, 257)
    assert catalog.verify_journal() is None
    raw.edit(statement)
    broken = catalog.verify_journal()
    assert broken is not None
    assert broken.sequence == position
    assert reason in broken.reason


def test_a_journal_that_was_rewritten_with_valid_chains(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    """Who owns the database can compute all hashes anew; the signed log has what they were."""
    logged(catalog, clock, 3)
    raw.edit("UPDATE journal SET actor = 'mallory' WHERE number = 2")
    broken = catalog.verify_journal()
    assert broken is not None
    assert "do not match its hash" in broken.reason
    previous = raw.query("SELECT previous_hash FROM journal WHERE number = 1")[0][0]
    for (number,) in raw.query("SELECT number FROM journal ORDER BY number"):
        row = f"journal SET previous_hash = '{previous}' WHERE number = {number}"
        raw.edit(f"UPDATE {row}")
        (fields,) = raw.query(f"SELECT {', '.join(HASHED)} FROM journal WHERE number = {number}")  # noqa: S608
        previous = hash_of(fields)
        raw.edit(f"UPDATE journal SET hash = '{previous}' WHERE number = {number}")  # noqa: S608
    broken = catalog.verify_journal()
    assert broken is not None
    assert (broken.sequence, broken.reason) == (2, "it is not the entry that was signed")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM log_keys", "has no key in the catalog"),
        ("UPDATE log_keys SET retired_at = 1", "has no key that signs"),
        (
            "UPDATE log_keys SET public = (SELECT hash FROM log_entries WHERE sequence = 1)",
            "its two parts are of two keys",
        ),
        ("UPDATE log_keys SET private = (SELECT secret FROM log_entries WHERE sequence = 1)", "is damaged"),
        ("DELETE FROM log_entries WHERE sequence = 2", r"has 2 of the 3 hashes of tile/0/000\.p/3"),
        ("UPDATE log_checkpoints SET note = 'x'", "last checkpoint of .* in the catalog is damaged"),
    ],
)
def test_a_damaged_log_is_not_signed(
    catalog: Catalog, clock: Clock, raw: Raw, statement: str, message: str
) -> None:
    logged(catalog, clock, 3)
    raw.edit(statement)
    clock.now += 1
    pushed(catalog, "y")

    def checked_and_signed() -> None:
        catalog.log_signer.check(None)
        signed(catalog, clock)

    with pytest.raises(LogDamaged, match=message):
        checked_and_signed()


@pytest.mark.long
@pytest.mark.parametrize("condition", ["sequence = 3", "sequence > 0"])
def test_the_last_entry_of_the_journal_was_removed(
    catalog: Catalog, clock: Clock, raw: Raw, condition: str
) -> None:
    """The next one gets its position: it must not pass for what was signed."""
    logged(catalog, clock, 3)
    raw.edit(f"DELETE FROM journal WHERE {condition}")  # noqa: S608
    assert catalog.log_signer.waiting(NAME)
    state = catalog.log.state()
    assert state is not None
    assert state.unsigned == 0
    with pytest.raises(LogContradicted, match="journal entry 3, the last one in the log, is missing"):
        signed(catalog, clock)
    clock.now += 1
    pushed(catalog, "y")
    give_positions(catalog)
    with pytest.raises(LogContradicted, match="journal entry 3, the last one in the log, is"):
        catalog.log_signer.check(None)


@pytest.mark.long
@pytest.mark.parametrize("table", ["journal", "log_entries"])
def test_rows_that_were_removed_are_no_entries_to_come(
    catalog: Catalog, clock: Clock, raw: Raw, table: str
) -> None:
    logged(catalog, clock, 3)
    assert catalog.log.bundle(Tile(None, 0, 4)) is None
    assert catalog.log.tile(Tile(0, 0, 4)) is None
    raw.edit(f"DELETE FROM {table} WHERE sequence = 2")  # noqa: S608
    with pytest.raises(LogDamaged, match=r"has 2 of the 3 rows that tile/entries/000\.p/3"):
        catalog.log.bundle(Tile(None, 0, 3))
    if table == "log_entries":
        with pytest.raises(LogDamaged, match=r"has 2 of the 3 rows that tile/0/000\.p/3"):
            catalog.log.tile(Tile(0, 0, 3))


def test_an_entry_that_cannot_be_read(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    logged(catalog, clock, 3)
    raw.edit("UPDATE journal SET to_digest = 'none' WHERE number = 2")
    with pytest.raises(LogDamaged, match="journal entry 2, which is in the signed log, cannot be read"):
        catalog.log.bundle(Tile(None, 0, 3))
    assert catalog.verify_journal() is not None


def test_a_quorum_is_of_the_keys_that_are_configured(catalog: Catalog, clock: Clock) -> None:
    logged(catalog, clock, 1)
    newest = catalog.log.checkpoint()
    assert newest is not None
    old, new = (
        SignerKey.new("witness.example/w", COSIGNATURE),
        SignerKey.new("witness.example/w", COSIGNATURE),
    )
    made = cosign(newest.checkpoint.text, old, 1)
    catalog.log_signer.cosign(NAME, 1, [made], fence=None)
    assert catalog.log.checkpoint(quorum=1, keys=[old.verifier]) is not None
    # Of the same witness after its key was replaced, and of one that is not asked any more:
    assert catalog.log.checkpoint(quorum=1, keys=[new.verifier]) is None
    assert catalog.log.checkpoint(quorum=1) is None
    assert catalog.log.checkpoint(quorum=2, keys=[old.verifier, new.verifier]) is None


def test_entries_are_compared_in_turn(catalog: Catalog, clock: Clock, raw: Raw) -> None:
    logged(catalog, clock, 5)
    assert catalog.log.compare(0, limit=2) == (2, None)
    assert catalog.log.compare(2, limit=2) == (4, None)
    assert catalog.log.compare(4, limit=2) == (0, None)
    raw.edit(
        "UPDATE journal SET actor = 'mallory' WHERE sequence = 2", "DELETE FROM journal WHERE sequence = 4"
    )
    assert catalog.log.compare(0, limit=2) == (2, 1)
    assert catalog.log.compare(2, limit=2) == (4, 3)
    assert catalog.log.compare(0, limit=5) == (5, 1)
    assert catalog.log.compare(5, limit=5) == (0, None)


def test_a_key_that_is_rotated_after_the_clock_was_set_back_is_the_newest(
    catalog: Catalog, clock: Clock
) -> None:
    """The order of the keys says which one declares which."""
    logged(catalog, clock, 1)
    made = []
    for _ in range(3):
        clock.now -= 3_600_000_000
        made.append(catalog.log_signer.rotate(now=clock(), overlap=1))
    found = catalog.log.keys()
    assert found is not None
    assert [key.signer for key in found.keys[:3]] == made[::-1]
    clock.now += 1
    pushed(catalog, "y")
    signed(catalog, clock)
    newest = catalog.log.checkpoint()
    assert newest is not None
    assert open_checkpoint(newest.served, NAME, [made[-1].verifier]).checkpoint.size == 2


@pytest.mark.long
def test_the_proof_reads_many_checkpoints_of_several_names(
    catalog: Catalog, clock: Clock, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.catalog.transparency.audit._BATCH", 2)
    begun(catalog, clock)
    one, other = image(catalog, "x"), image(catalog, "x")
    for number in range(7):
        clock.now += 1
        put(catalog, "x", (one, other)[number % 2], "t")
        signed(catalog, clock)
        if number == 3:
            catalog.log_signer.begin_again("registry.example.com/log-2", now=clock(), reason="a test")
    assert catalog.verify_journal() is None
    raw.edit(
        "UPDATE log_checkpoints SET root = (SELECT hash FROM log_entries WHERE sequence = 1) WHERE size = 6"
    )
    broken = catalog.verify_journal()
    assert broken is not None
    assert (broken.sequence, "log-2 with 6 entries" in broken.reason) == (6, True)
