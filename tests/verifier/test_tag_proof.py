"""The proof of what a tag points to, pulls that need it, and proofs in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from digestry.errors import ContentError, InvalidConfiguration, LogContradiction, NotFound, Unproven
from digestry.images.local_store import LocalStore
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.translog.notes import SignerKey
from digestry.translog.proofs import parse_proof
from digestry.verifier.bundles import make_bundle, verify_bundle
from digestry.verifier.seen_logs import SeenLogs
from digestry.verifier.tag_proof import ProvenTag, TagProver
from digestry.verifier.trust import LogTrust
from tests.verifier.conftest import Client
from tests.verifier.log_server import ORIGIN, LogServer, image, witness

NOBODY = LogTrust()
Prove = Callable[..., ProvenTag]


def digest_of(number: int) -> Digest:
    return Digest.of(image(number))


@pytest.fixture
def prove(client: Client, server: LogServer) -> Prove:
    def run(tag: str = "1.5", *, most: int = 200_000) -> ProvenTag:
        repository = client.session.repository(Reference(server.host, "team/app"))
        prover = TagProver(client.verifier, most=most, sleep=lambda _: None)
        return prover.prove(repository, tag, repository.resolve(tag).digest)

    return run


@pytest.mark.parametrize("sealed", [False, True])
def test_the_last_entry_of_the_tag(server: LogServer, prove: Prove, sealed: bool) -> None:
    server.sealed = {"team/app"} if sealed else set()
    server.move("team/app", "1.5", 1)
    server.move("team/app", "1.6", 2)
    assert prove().digest == digest_of(1)
    server.fill(300)
    server.move("team/app", "1.5", 3)
    server.fill(20)
    for _ in range(2):
        proven = prove()
        assert (proven.digest, proven.entry.index) == (digest_of(3), 302)
    assert prove("1.6").entry.index == 1


def test_a_tag_that_points_elsewhere_than_the_log_says(server: LogServer, prove: Prove) -> None:
    server.move("team/app", "1.5", 1)
    server.manifests[digest_of(2)] = server.tags["team/app", "1.5"] = image(2)
    with pytest.raises(LogContradiction, match=f"points to {digest_of(2)}, and its log that it points to"):
        prove()


def test_an_old_digest_with_its_old_entry(server: LogServer, prove: Prove) -> None:
    """The later entry is in the log in clear: hiding its opening does not help."""
    server.move("team/app", "1.5", 1)
    server.fill(10)
    server.move("team/app", "1.5", 2)
    server.tags["team/app", "1.5"] = image(1)
    server.hidden = {11}
    with pytest.raises(LogContradiction, match="does not show entry 11 of its log"):
        prove()


def test_an_old_digest_that_is_sealed_and_was_seen_newer(server: LogServer, prove: Prove) -> None:
    server.sealed = {"team/app"}
    server.move("team/app", "1.5", 1)
    server.move("team/app", "1.5", 2)
    prove()
    server.tags["team/app", "1.5"] = image(1)
    server.hidden = {1}
    with pytest.raises(LogContradiction, match="showed entry 1 of its log as the last one"):
        prove()


def test_a_tag_that_the_log_does_not_have(server: LogServer, prove: Prove) -> None:
    server.fill(5)
    server.manifests[digest_of(2)] = server.tags["team/app", "1.5"] = image(2)
    with pytest.raises(Unproven, match=r"has no entry about .*team/app:1.5"):
        prove()


def test_a_move_that_is_not_signed_yet_is_waited_for(server: LogServer, client: Client) -> None:
    server.move("team/app", "1.5", 1)
    server.size = 1
    server.move("team/app", "1.5", 2)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        server.size = None

    repository = client.session.repository(Reference(server.host, "team/app"))
    TagProver(client.verifier, sleep=sleep).prove(repository, "1.5", digest_of(2))
    assert len(waits) == 1


def test_a_log_that_is_too_long_to_be_read_at_once(server: LogServer, prove: Prove, client: Client) -> None:
    server.move("team/app", "1.5", 1)
    server.fill(600)
    with pytest.raises(Unproven, match="entries 301 to 600 of the log were not read yet"):
        prove(most=300)
    client.verify("team/app")
    assert prove(most=300).digest == digest_of(1)


@pytest.mark.long
def test_a_pull_stores_nothing_that_is_not_proven(server: LogServer, client: Client, tmp_path: Path) -> None:
    server.move("team/app", "1.5", 1)
    server.manifests[digest_of(2)] = server.tags["team/app", "1.5"] = image(2)
    store = LocalStore(tmp_path / "images", session=client.session)
    name = f"{server.host}/team/app"
    with pytest.raises(LogContradiction):
        store.pull(f"{name}:1.5", verify_log=client.verifier)
    with pytest.raises(Unproven, match=r"no tag of .* ever pointed to"):
        store.pull(f"{name}@{digest_of(2)}", verify_log=client.verifier)
    with pytest.raises(NotFound):
        store.resolve(f"{name}:1.5")
    assert not any((tmp_path / "images").rglob(str(digest_of(2)).partition(":")[2]))


# -- proofs in files ---------------------------------------------------------------------------


@pytest.mark.parametrize("audits", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_proof(server: LogServer, client: Client, prove: Prove, sealed: bool, audits: bool) -> None:
    server.sealed = {"team/app"} if sealed else set()
    server.audits = audits
    server.witnesses = [witness()]
    server.fill(300)
    server.move("team/app", "1.5", 1)
    server.fill(40)
    proven = prove()
    content = make_bundle(proven.view, proven.entry)
    assert b"10.0.0.1" not in (parse_proof(content).extra or b"")  # an address is for auditors
    server.liar.seen.clear()
    trust = LogTrust(witnesses=(server.witnesses[0].verifier,), quorum=1)
    wanted = Reference(server.host, "team/app", "1.5", digest_of(1))
    found = verify_bundle(content, client.verifier, trust, wanted=wanted)
    assert (found.entry.index, found.entry.entry.to_digest) == (300, digest_of(1))
    assert [each.key.name for each in found.cosignatures] == ["witness.test"]
    assert not server.liar.seen


def test_what_is_wrong_with_a_proof(server: LogServer, client: Client, prove: Prove, tmp_path: Path) -> None:
    server.fill(300)
    server.move("team/app", "1.5", 1)
    proven = prove()
    content = make_bundle(proven.view, proven.entry)
    own = client.verifier

    def refused(message: str, changed: bytes = content, trust: LogTrust = NOBODY, **wanted: str) -> None:
        name = Reference(
            wanted.pop("host", server.host), wanted.pop("name", "team/app"), wanted.pop("tag", None)
        )
        with pytest.raises(ContentError, match=message):
            verify_bundle(changed, own, trust, wanted=name)

    refused("of the tag 1.5, not of 1.6", tag="1.6")
    refused("of team/app, not of team/other", name="team/other")
    refused("of the registry", host="elsewhere.test")
    refused("opens entry 300", content.replace(b"index 300", b"index 299"))
    refused("does not begin with", b"c2sp.org/tlog-proof@v2" + content[22:])
    refused("no empty line", content.replace(b"\n\n", b"\n"))
    refused("signature of a trusted key", trust=LogTrust(keys=(SignerKey.new(ORIGIN).verifier,)))
    refused("is of the log", trust=LogTrust(keys=(SignerKey.new("other.test").verifier,)))
    refused("has cosignatures of 0 of the 1", trust=LogTrust(witnesses=(witness().verifier,), quorum=1))
    proof = parse_proof(content)
    extra = (proof.extra or b"").replace(b"1.5", b"1.6")
    refused("not in the tree", structs_replaced(proof, extra=extra))
    refused("no opening", structs_replaced(proof, extra=b"[1]"))
    refused("not in the tree|only", structs_replaced(proof, path=proof.path[:-1]))
    client.verifier.seen = SeenLogs(tmp_path / "nothing")
    with pytest.raises(InvalidConfiguration, match=r"no key of the log registry.test/log is known here"):
        verify_bundle(content, own, LogTrust())


def structs_replaced(proof: object, **changes: object) -> bytes:
    import dataclasses

    changed = dataclasses.replace(proof, **changes)  # type: ignore[type-var]
    return changed.encode()  # type: ignore[attr-defined,no-any-return]


def test_a_move_of_another_digest_is_no_proof(server: LogServer, client: Client, prove: Prove) -> None:
    server.move("team/app", "1.5", 1)
    content = make_bundle((proven := prove()).view, proven.entry)
    wanted = Reference(server.host, "team/app", "1.5", digest_of(9))
    with pytest.raises(ContentError, match="says sha256:"):
        verify_bundle(content, client.verifier, LogTrust(), wanted=wanted)
    server.events[0] = structs.replace(server.events[0], to_digest=digest_of(9))
    with pytest.raises(LogContradiction, match="forked"):
        prove()
