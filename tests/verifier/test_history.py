"""The verification of a history: what an honest log proves, and what each lie looks like."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from msgspec import structs

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import ContentError, DigestryError, LogContradiction, RemoteError, Unproven
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from digestry.translog.entries import Leaf, make_leaf
from digestry.translog.log_keys import declare
from digestry.translog.notes import Note, SignerKey
from digestry.verifier.trust import LogTrust
from tests.client.liar import Reply
from tests.verifier.conftest import Client
from tests.verifier.log_server import BEGAN, ORIGIN, LogServer, log_server, tile_path, witness

OTHER = Digest.of(b"another")


def story(server: LogServer, before: int = 300, after: int = 20) -> None:
    server.fill(before)
    server.move("team/app", "1.5", 1)
    server.move("team/app", "1.6", 2)
    server.fill(after)
    server.move("team/app", "1.5", 3)


@pytest.mark.parametrize("audits", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_an_honest_log(server: LogServer, client: Client, sealed: bool, audits: bool) -> None:
    server.audits = audits
    server.sealed = {"team/app"} if sealed else set()
    story(server)
    report = client.verify("team/app")
    assert report.problems == []
    assert [entry.state for entry in report.entries] == ["included"] * 3
    assert [entry.index for entry in report.entries] == [322, 301, 300]
    assert report.completeness.known
    assert [opened.rest is not None for opened in report.opened] == [audits] * 3
    assert client.told == [
        f"the key of the log of {server.host} is trusted from now on: {server.key.verifier}"
    ]
    server.fill(700)
    server.move("team/app", "1.6", 4)
    later = client.verify("team/app", "1.6")
    assert later.problems == []
    assert [entry.index for entry in later.entries] == [1023, 301]
    assert later.view.before is not None
    assert later.view.before.size == 323


def test_sealed_entries_after_the_last_may_be_of_it(server: LogServer, client: Client) -> None:
    story(server)
    server.sealed = {"others/1"}
    server.fill(10)
    report = client.verify("team/app")
    assert report.problems == []
    assert not report.completeness.known
    assert "sealed" in report.completeness.reason
    assert not client.verify("team/app").completeness.known  # nothing new was read, and it is still not known


def test_a_long_log_is_read_in_parts(server: LogServer, client: Client) -> None:
    story(server, before=900)
    first = client.verify("team/app", most=500)
    assert not first.completeness.known
    assert "were not read yet" in first.completeness.reason
    server.liar.seen.clear()
    assert client.verify("team/app", most=500).completeness.known
    assert f"GET /v2/_digestry/log/{tile_path(None, 0)}" not in server.liar.paths()


def moved_to_another(event: TagEvent) -> TagEvent:
    return structs.replace(event, to_digest=OTHER)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_changed_entry(server: LogServer, client: Client, sealed: bool) -> None:
    server.sealed = {"team/app"} if sealed else set()
    story(server)
    server.shown = lambda events: [moved_to_another(events[0]), *events[1:]]
    report = client.verify("team/app")
    assert report.entries[0].state == "different"
    assert report.entries[0].reason == "to_digest"
    assert len(report.problems) == 1


def test_an_entry_that_the_history_leaves_out(server: LogServer, client: Client) -> None:
    story(server)
    server.shown = lambda events: events[1:]
    (problem,) = client.verify("team/app").problems
    assert "entry 322 of the log (1.5 moved" in problem
    (problem,) = client.verify("team/app", "1.5").problems
    assert "entry 322" in problem


def test_an_entry_that_history_and_openings_leave_out(server: LogServer, client: Client) -> None:
    story(server)
    server.hidden = {322}
    server.shown = lambda events: [event for event in events if event.sequence != 323]
    for tag in (None, "1.5"):
        problems = client.verify("team/app", tag).problems
        assert any("does not show entry 322 of its log" in problem for problem in problems), problems


def test_a_sealed_entry_that_is_left_out_shows_by_its_number(server: LogServer, client: Client) -> None:
    server.sealed = {"team/app"}
    story(server)
    server.hidden = {301}
    server.shown = lambda events: [event for event in events if event.sequence != 302]
    (problem,) = client.verify("team/app").problems
    assert "does not show entry 2 of team/app" in problem


def test_a_sealed_entry_that_was_shown_before(server: LogServer, client: Client) -> None:
    server.sealed = {"team/app"}
    story(server)
    assert client.verify("team/app").problems == []
    server.hidden = {322}
    server.shown = lambda events: [event for event in events if event.sequence != 323]
    for tag in (None, "1.5"):
        (problem,) = client.verify("team/app", tag).problems
        assert "showed entry 322 of its log as the last one of team/app:1.5" in problem


def test_an_entry_that_the_log_does_not_have(server: LogServer, client: Client) -> None:
    story(server)
    added = structs.replace(server.events[-1], tag="2.0", at=BEGAN + datetime.timedelta(days=1), number=4)
    server.shown = lambda events: [added, *events]
    report = client.verify("team/app")
    assert report.entries[0].state == "missing"
    assert "the log does not have it" in report.problems[0]
    client.now = lambda: added.at + datetime.timedelta(seconds=2)
    fresh = client.verify("team/app")
    assert (fresh.entries[0].state, fresh.problems) == ("pending", [])


def test_an_opening_of_another_entry(server: LogServer, client: Client) -> None:
    story(server)
    server.sealed = {"team/app"}
    client.verify("team/app")
    leaf = server.leaf(322)
    event = server.events[322]
    real = server.leaf

    def other(index: int) -> Leaf:
        if index != 322 or not server.liar.seen[-1].path.endswith("openings"):
            return real(index)
        return make_leaf(moved_to_another(event), leaf.secret, sealed=True)

    server.leaf = other  # type: ignore[method-assign]
    problems = client.verify("team/app").problems
    assert any("entry 322 of the log is another one than" in problem for problem in problems)


# -- the log itself ----------------------------------------------------------------------------


def test_a_fork_is_found_by_who_saw_the_log_before(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    seen = client.seen.of(server.host).read()
    server.events[100] = moved_to_another(server.events[100])
    server.fill(30)
    for _ in range(2):  # and again: the evidence is kept once, and what was seen stays
        with pytest.raises(LogContradiction, match="was forked: its first 323 entries") as raised:
            client.verify("team/app")
    assert client.seen.of(server.host).read() == seen
    (kept,) = client.seen.of(server.host).evidence()
    assert raised.value.evidence == str(kept)
    names = {"seen.checkpoint", "shown.checkpoint", "consistency.proof", "log.keys", "reason.json"}
    assert {path.name for path in kept.iterdir()} == names
    assert (kept / "shown.checkpoint").read_bytes().startswith(f"{ORIGIN}\n353\n".encode())
    assert seen is not None
    assert (kept / "seen.checkpoint").read_text() == seen.checkpoint


def test_a_fork_of_the_same_size(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    server.events[-1] = moved_to_another(server.events[-1])
    with pytest.raises(LogContradiction, match="was forked"):
        client.verify("team/app")


@pytest.mark.long
@pytest.mark.parametrize("damaged", [False, True])
def test_a_tile_that_is_not_served(server: LogServer, client: Client, damaged: bool) -> None:
    """The checkpoint covers it: that it is not there is no answer of a registry without it."""
    story(server)
    detail = ', "detail": {"damaged": true}' if damaged else ""
    body = f'{{"errors": [{{"code": "UNKNOWN", "message": "it is lost"{detail}}}]}}'
    server.answers["tile/entries/001.p/67"] = Reply(404, body.encode())
    server.answers["tile/entries/001"] = Reply(404, b'{"errors": []}')
    with pytest.raises(Unproven, match=r"does not serve tile/entries/001\.p/67 of its log.* it is lost"):
        client.verify("team/app")
    whole = [request.path for request in server.liar.seen if request.path.endswith("entries/001")]
    assert bool(whole) is not damaged


def test_two_registries_that_sign_two_histories(server: LogServer, client: Client, tmp_path: Path) -> None:
    """Two copies of a registry, each with the key: whoever sees both has the evidence."""
    server.move("team/app", "1.5", 1)
    server.fill(20)
    with log_server() as copy:
        copy.key, copy.events, copy.tags = server.key, list(server.events), dict(server.tags)
        with Session(ClientOptions(timeout=20.0, retries=0, patience=20.0)) as session:
            other = Client(tmp_path, copy, session)
            assert client.verify("team/app").problems == []
            assert other.verify("team/app").problems == []  # it is the same log, and goes on
            copy.fill(3)
            assert other.verify("team/app").problems == []
            server.move("team/app", "1.5", 2)
            assert client.verify("team/app").problems == []  # it is shorter, and continues what it was
            server.fill(9)
            with pytest.raises(
                LogContradiction, match=r"was forked: .* showed other first 24 entries"
            ) as found:
                client.verify("team/app")
            assert (Path(found.value.evidence) / "seen.checkpoint").exists()
            with log_server() as stranger:  # its key is its own: somebody else, and no fork
                stranger.key = SignerKey.new(ORIGIN)
                stranger.move("team/app", "1.5", 1)
                assert Client(tmp_path, stranger, session).verify("team/app").problems == []


@pytest.mark.long
def test_a_log_that_was_rolled_back(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    del server.events[310:]
    with pytest.raises(LogContradiction, match=r"was rolled back: it has 310 entries, and at .* it had 323"):
        client.verify("team/app")
    assert len(client.seen.of(server.host).evidence()) == 1


@pytest.mark.long
def test_a_node_that_is_behind_is_waited_for(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    real, server.size = server.note, 300
    looks = iter([300, 300, None])

    def late() -> Note:
        server.size = next(looks)
        return real()

    server.note = late  # type: ignore[method-assign]
    assert client.verify("team/app").problems == []


def test_another_key(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    server.key = SignerKey.new(ORIGIN)
    with pytest.raises(LogContradiction, match="no signature of a trusted key"):
        client.verify("team/app")


def test_a_key_that_the_old_one_declares(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    second, third = SignerKey.new(ORIGIN), SignerKey.new(ORIGIN)
    server.declarations = [declare(second, third.verifier), declare(server.key, second.verifier)]
    server.keys = [third]
    assert client.verify("team/app").problems == []
    assert any("was replaced" in text for text in client.told)
    seen = client.seen.of(server.host).read()
    assert seen is not None
    assert [(key.vkey, key.why) for key in seen.keys] == [
        (str(server.key.verifier), "first use"),
        (str(second.verifier), "rotated"),
        (str(third.verifier), "rotated"),
    ]


def test_a_key_that_declares_itself(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    stranger = SignerKey.new(ORIGIN)
    server.declarations = [
        declare(stranger, stranger.verifier),
        "nothing",
        declare(stranger, server.key.verifier),
    ]
    server.keys = [stranger, server.key][:1]
    with pytest.raises(LogContradiction, match="no signature of a trusted key"):
        client.verify("team/app")


def test_a_given_key_counts_alone(server: LogServer, client: Client) -> None:
    story(server)
    client.trust = LogTrust(keys=(SignerKey.new(ORIGIN).verifier,))
    with pytest.raises(Unproven, match="no signature of a trusted key"):
        client.verify("team/app")
    client.trust = LogTrust(keys=(server.key.verifier,))
    report = client.verify("team/app")
    assert [key.why for key in report.view.keys] == ["given"]


def test_witnesses(server: LogServer, client: Client) -> None:
    story(server)
    one, two = witness("w1.test"), witness("w2.test")
    client.trust = LogTrust(witnesses=(one.verifier, two.verifier), quorum=2)
    server.witnesses = [one, witness("w2.test")]
    with pytest.raises(Unproven, match=r"cosignatures of 1 of the 2 witnesses \(w1.test\), and 2 are"):
        client.verify("team/app")
    server.witnesses = [one, two]
    report = client.verify("team/app")
    assert [each.key.name for each in report.view.cosignatures] == ["w1.test", "w2.test"]
    client.trust = LogTrust((), (one.verifier,), 1, datetime.timedelta(hours=1))
    server.cosigned_at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=2)
    with pytest.raises(Unproven, match="longer ago than is allowed"):
        client.verify("team/app")
    server.cosigned_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    with pytest.raises(Unproven, match="of a time to come"):
        client.verify("team/app")


def test_a_registry_without_a_log(server: LogServer, client: Client) -> None:
    with pytest.raises(RemoteError, match="has no transparency log, or has not signed it yet"):
        client.verify("team/app")
    story(server)
    client.verify("team/app")
    server.events.clear()
    with pytest.raises(LogContradiction, match="has no log any more"):
        client.verify("team/app")


def test_a_log_of_another_name(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    server.origin = "registry.test/other"
    server.key = SignerKey.new(server.origin)
    with pytest.raises(LogContradiction):
        client.verify("team/app")
    assert client.seen.of(server.host).put_aside(BEGAN) is not None
    assert client.verify("team/app").problems == []


HOSTILE = {
    "no note": ("checkpoint", Reply(200, b"hello")),
    "no text": ("checkpoint", Reply(200, b"\xff\xfe\x00")),
    "an empty checkpoint": ("checkpoint", Reply(200, b"")),
    "an endless checkpoint": ("checkpoint", Reply(200, b"x" * 100_000, endless=True)),
    "a short tile": ("log/tile/0/", Reply(200, b"x" * 31)),
    "a long tile": ("log/tile/0/", Reply(200, b"x" * 10_000)),
    "an endless tile": ("log/tile/0/", Reply(200, b"x" * 100_000, endless=True)),
    "a cut tile": ("log/tile/0/", Reply(200, b"x" * 100, length=8192, cut=True)),
    "another tile": ("log/tile/0/000", Reply(200, b"x" * 8192)),
    "another edge": ("log/tile/1/000", Reply(200, b"x" * 32)),
    "no bundle": ("tile/entries", Reply(404, b"")),
    "other entries": ("tile/entries", Reply(200, b"\x00\x01x" * 256)),
    "a broken bundle": ("tile/entries", Reply(200, b"\xff\xff")),
    "an endless bundle": ("tile/entries", Reply(200, b"\x00" * (1 << 20), endless=True)),
    "no openings": ("openings", Reply(200, b"[]")),
    "an opening that is none": (
        "openings",
        Reply(200, b'{"repository":"team/app","openings":[{"index":300,"entry":"\\u0000","salt":"zz"}]}'),
    ),
    "keys that are none": ("log/keys", Reply(200, b'{"origin":"registry.test/log","keys":[{"key":"x+y"}]}')),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_log(server: LogServer, client: Client, case: str) -> None:
    story(server)
    path, reply = HOSTILE[case]
    server.answers[path] = reply
    try:
        problems = client.verify("team/app").problems
    except (ContentError, RemoteError) as error:
        problems = [error.message]
    assert problems
    assert all(len(problem) < 600 for problem in problems)


def test_a_hostile_log_that_was_seen_before(server: LogServer, client: Client) -> None:
    story(server)
    client.verify("team/app")
    server.fill(5)
    server.answers["log/tile/1/000"] = Reply(200, b"x" * 32)
    with pytest.raises(DigestryError, match="does not prove that its 328 entries continue the 323"):
        client.verify("team/app")
    assert len(client.seen.of(server.host).evidence()) == 1
