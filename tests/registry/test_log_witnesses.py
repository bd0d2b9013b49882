"""Witnesses of a registry's log, and a registry as one: over HTTP, with forks and restored catalogs."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.translog.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from digestry.translog.cosignatures import AddCheckpoint, cosignatures, origin_hash
from digestry.translog.merkle import (
    EMPTY_ROOT,
    Subtree,
    consistency_proof,
    leaf_hash,
    root_of,
)
from digestry.translog.notes import Note, Signature, SignerKey, VerifierKey, parse_note, parse_verifier_key
from tests.registry.support import edit_catalog, rewrite_past
from tests.registry.test_transparency import LOG, checkpoint, keys_of
from tests.stores import needs_disk
from tests.support import RegistryServer, Response, start_registry, wait_until
from tests.translog import second_opinion

ADD = f"{LOG}/witness/add-checkpoint"
LEAVES = [leaf_hash(b"%d" % number) for number in range(20)]


def read(subtrees: list[Subtree] | tuple[Subtree, ...]) -> dict[Subtree, bytes]:
    return {each: root_of(LEAVES[each.first : each.end]) for each in subtrees}


def signed(key: SignerKey, size: int, root: bytes | None = None) -> Note:
    return Checkpoint(key.name, size, root_of(LEAVES[:size]) if root is None else root).sign([key])


def request(note: Note, old: int, proof: list[bytes] | None = None) -> bytes:
    size = parse_checkpoint(note.text).size
    if proof is None:
        proof = list(consistency_proof(old, size, read))  # type: ignore[arg-type]
    return AddCheckpoint(old, tuple(proof), note.encode()).encode()


@contextlib.contextmanager
def started(root: Path, configuration: str) -> Iterator[RegistryServer]:
    root.parent.mkdir(exist_ok=True, parents=True)
    file = root.parent / "registry.toml"
    file.write_text(configuration)
    server = start_registry(root, "--config", str(file))
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def witness_of(*logs: tuple[str, VerifierKey]) -> str:
    return '[transparency]\nwitness-name = "witness.example/w"\n' + "".join(
        f'[[transparency.witnessed]]\norigin = "{origin}"\nkey = "{key}"\n' for origin, key in logs
    )


def logging_to(*witnesses: tuple[str, str], quorum: int = 0) -> str:
    return f'[transparency]\norigin = "registry.example/log"\nquorum = {quorum}\n' + "".join(
        f'[[transparency.witness]]\nurl = "{url}"\nkey = "{key}"\n' for url, key in witnesses
    )


def witness_key(server: RegistryServer) -> VerifierKey:
    keys_of(server)
    return parse_verifier_key(server.request("GET", f"{LOG}/keys").json()["witness"])


@pytest.mark.long
def test_the_protocol_of_a_witness(tmp_path: Path) -> None:
    key, other = SignerKey.new("log.example/a"), SignerKey.new("log.example/a")
    with started(tmp_path / "w" / "root", witness_of((key.name, key.verifier))) as server:
        witness = witness_key(server)

        def add(body: bytes) -> Response:
            return server.request("POST", ADD, body)

        seen = f"{LOG}/witness/{origin_hash(key.name)}/checkpoint"
        assert server.request("GET", seen).status == 404
        assert add(b"old 0\n").status == 400
        assert add(b"old 00\n\n" + signed(key, 1).encode()).status == 400
        assert add(request(signed(SignerKey.new("log.example/b"), 1), 0)).status == 404
        assert add(request(signed(other, 1), 0)).status == 403
        wrong = signed(key, 1)
        forged = Note(signed(key, 2).text, wrong.signatures)
        assert add(request(forged, 0)).status == 403
        assert add(AddCheckpoint(3, (), signed(key, 2).encode()).encode()).status == 400
        assert add(request(signed(key, 5), 3)).status == 409
        assert add(request(signed(key, 5), 0, [bytes(32)])).status == 422
        assert add(request(signed(key, 0, bytes(32)), 0, [])).status == 422
        assert server.request("GET", seen).status == 404  # nothing of this was taken

        answer = add(request(signed(key, 5), 0))
        assert answer.status == 200, answer.body
        assert answer.body.startswith("\u2014 witness.example/w ".encode())
        note = parse_note(signed(key, 5).encode() + answer.body)
        assert len(cosignatures(note, [witness])) == 1
        answer = add(request(signed(key, 9), 0))
        assert (answer.status, answer.body) == (409, b"5\n")
        assert answer.headers["content-type"] == "text/x.tlog.size"
        assert add(request(signed(key, 9), 5, [bytes(32)] * 3)).status == 422
        assert add(request(signed(key, 5, b"\1" * 32), 5, [])).status == 422
        assert add(request(signed(key, 5), 5)).status == 200
        assert add(request(signed(key, 9), 5)).status == 200
        assert add(request(signed(key, 7), 5, [])).status == 409

        answer = server.request("GET", seen)
        kept = parse_note(answer.body)
        assert open_checkpoint(answer.body, key.name, [key.verifier]).checkpoint.size == 9
        assert len(cosignatures(kept, [witness])) == 1
        assert server.request("GET", f"{LOG}/witness/x/checkpoint").status == 404
        assert server.request("GET", ADD).status == 405


@pytest.mark.long
def test_a_log_that_sends_too_many_checkpoints_is_told_to_wait(tmp_path: Path) -> None:
    key, other = SignerKey.new("log.example/a"), SignerKey.new("log.example/b")
    logs = [(one.name, one.verifier) for one in (key, other)]
    with started(tmp_path / "w" / "root", witness_of(*logs)) as server:
        assert server.request("POST", ADD, request(signed(key, 5), 0)).status == 200

        def add(number: int) -> Response:
            text = Checkpoint(key.name, 5, root_of(LEAVES[:5]), (f"the text {number}",)).sign([key])
            return server.request("POST", ADD, request(text, 5))

        answer = next(found for number in range(1000) if (found := add(number)).status != 200)
        assert (answer.status, answer.json()["errors"][0]["code"]) == (429, "TOOMANYREQUESTS")
        assert answer.headers["retry-after"] == "1"
        # What is refused or repeated is not counted: nobody can spend what a log has by sending it again.
        assert server.request("POST", ADD, request(signed(key, 3), 0)).status == 409
        assert server.request("POST", ADD, request(signed(other, 5), 0)).status == 200
        wait_until(lambda: add(1000).status == 200, what="its turn")


def test_a_contradiction_is_logged_a_few_times(tmp_path: Path) -> None:
    """Anybody who has a newer checkpoint of the log can send it with a wrong proof."""
    key = SignerKey.new("log.example/a")
    with started(tmp_path / "w" / "root", witness_of((key.name, key.verifier))) as server:
        assert server.request("POST", ADD, request(signed(key, 5), 0)).status == 200
        for _ in range(20):
            assert server.request("POST", ADD, request(signed(key, 9), 5, [bytes(32)])).status == 422
        words = "does not continue what was cosigned before"
        wait_until(lambda: words in server.log.read_text(), what="the line", log=server.log)
        assert server.request("POST", ADD, request(signed(key, 9), 5)).status == 200
        assert 1 <= server.log.read_text().count(words) <= 4


def test_a_registry_that_is_no_witness(registry: RegistryServer) -> None:
    assert registry.request("POST", ADD, b"").status == 404
    assert registry.request("GET", f"{LOG}/witness/x/checkpoint").status == 404


@pytest.mark.long
def test_a_log_is_cosigned(tmp_path: Path) -> None:
    with started(tmp_path / "a" / "root", logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        origin, (key, *_) = keys_of(log)
        checkpoint(log, least=1)
    with started(tmp_path / "w" / "root", witness_of((origin, key))) as first:
        witness = witness_key(first)
        away = SignerKey.new("witness.example/away", 4).verifier
        urls = (f"http://{first.host}{LOG}/witness", str(witness)), ("http://127.0.0.1:9/w", str(away))
        with started(tmp_path / "a" / "root", logging_to(*urls, quorum=1)) as log:
            wait_until(lambda: log.request("GET", f"{LOG}/checkpoint").status == 200, what="a cosignature")
            for number in range(3):
                log.push_image("x", f"t{number}", os.urandom(8))
            note = checkpoint(log, least=4).note
            assert len(cosignatures(note, [witness])) == 1
            metrics = log.request("GET", "/metrics").body.decode()
            assert 'digestry_log_witness_failures_total{witness="witness.example/away"} ' in metrics
            # A quorum that cannot be had is said, and the checkpoint is not served.
        with started(tmp_path / "a" / "root", logging_to(*urls, quorum=2)) as log:
            answer = log.request("GET", f"{LOG}/checkpoint")
            assert answer.status == 503
            assert b"2 witnesses" in answer.body


def _copied(root: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    shutil.copytree(root, target)


@pytest.mark.long
def test_a_catalog_of_yesterday_signs_nothing(tmp_path: Path) -> None:
    """Restored beside the note of what was signed; and without it, where a witness remembers."""
    root = tmp_path / "a" / "root"
    with started(root, logging_to()) as log:
        log.push_image("x", "t", os.urandom(8))
        origin, (key, *_) = keys_of(log)
        checkpoint(log, least=1)
    needs_disk(root)  # a store elsewhere knows that the catalog beside it is older
    _copied(root, tmp_path / "old" / "root")
    with started(tmp_path / "w" / "root", witness_of((origin, key))) as other:
        witnesses = logging_to((f"http://{other.host}{LOG}/witness", str(witness_key(other))))
        with started(root, witnesses) as log:
            log.push_image("x", "u", os.urandom(8))
            wait_until(lambda: checkpoint(log, least=2).note.signatures[1:], what="a cosignature")
        old = tmp_path / "old" / "root"
        for forgotten in (False, True):
            # The catalog of yesterday, beside the directory of today; or all of yesterday.
            if forgotten:
                (old / "log-head.json").unlink(missing_ok=True)
            else:
                shutil.copy(root / "log-head.json", old / "log-head.json")
            with started(old, witnesses) as log:
                log.push_image("x", f"v{forgotten}", os.urandom(8))
                wait_until(
                    lambda log=log: "the log is not signed" in log.log.read_text(),
                    what="the refusal",
                )
                assert checkpoint(log).checkpoint.size == 1
                wait_until(
                    lambda log=log: b"digestry_log_refused 1.0" in log.request("GET", "/metrics").body,
                    what="the metric",
                )
                text = log.log.read_text()
                assert "with 2 entries, and this catalog has signed 1" in text
                assert "digestry log begin" in text


@pytest.mark.long
def test_a_fork_is_found_by_the_witness(tmp_path: Path) -> None:
    """Whoever has the database rewrites the past, with the key that is in it."""
    root = tmp_path / "a" / "root"
    with started(root, logging_to()) as log:
        for tag in ("t", "u"):
            log.push_image("x", tag, os.urandom(8))
        origin, (key, *_) = keys_of(log)
        checkpoint(log, least=2)
    with started(tmp_path / "w" / "root", witness_of((origin, key))) as other:
        witnesses = logging_to((f"http://{other.host}{LOG}/witness", str(witness_key(other))))
        with started(root, witnesses) as log:
            wait_until(lambda: checkpoint(log).note.signatures[1:], what="a cosignature")
        rewrite_past(root)
        with started(root, logging_to()) as log:
            checkpoint(log, least=2)  # signed where no witness is asked
        with started(root, witnesses) as log:
            wait_until(lambda: "another history of this log" in log.log.read_text(), what="the discovery")
            line = 'digestry_log_witness_refuses{witness="witness.example/w"} 1.0'
            wait_until(
                lambda: line in log.request("GET", "/metrics").body.decode(), what="the metric of the refusal"
            )
            assert len(checkpoint(log).note.signatures) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quorum = 1", "1 witnesses are required, and there are 0"),
        ('origin = "a b"', "is not the name of a key"),
        ('[[transparency.witnessed]]\norigin = "x"\nkey = "x"', "a key is NAME"),
        ('[[transparency.witness]]\nurl = "ftp://x"\nkey = "x"', "https://HOST/PATH is required"),
        ("witness = 1", "list of tables"),
        ("nothing = 1", "unknown key"),
    ],
)
def test_a_configuration_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    from digestry.errors import InvalidConfiguration
    from digestry.registry.config import load

    file = tmp_path / "registry.toml"
    file.write_text(f"[transparency]\n{text}\n")
    with pytest.raises(InvalidConfiguration, match=message):
        load(file, {"root": tmp_path})


@pytest.mark.long
def test_the_empty_log_is_cosigned(tmp_path: Path) -> None:
    key = SignerKey.new("log.example/a")
    with started(tmp_path / "w" / "root", witness_of((key.name, key.verifier))) as server:
        answer = server.request("POST", ADD, request(signed(key, 0, EMPTY_ROOT), 0))
        assert answer.status == 200, answer.body
        assert server.request("POST", ADD, request(signed(key, 3), 0)).status == 200


@pytest.mark.long
def test_a_cosignature_is_renewed_while_nothing_is_signed(tmp_path: Path) -> None:
    with started(tmp_path / "a" / "root", logging_to()) as log:
        origin, (key, *_) = keys_of(log)
        log.push_image("x", "t", os.urandom(8))
        checkpoint(log, least=1)
    with started(tmp_path / "w" / "root", witness_of((origin, key))) as other:
        witness = witness_key(other)
        text = logging_to((f"http://{other.host}{LOG}/witness", str(witness)))
        text = text.replace("quorum = 0", 'quorum = 0\ncosign-interval = "1s"')
        with started(tmp_path / "a" / "root", text) as log:
            opinions: set[int] = set()

            def renewed() -> bool:
                note = log.request("GET", f"{LOG}/checkpoint").body
                found = second_opinion.opened(note, [str(key)], [str(witness)])
                assert found.size == 1
                opinions.update(found.cosigned.values())
                return len(opinions) > 2

            wait_until(renewed, what="two renewals")


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "message", "status"),
    [
        ("DELETE FROM log_keys", "has no key in the catalog", 200),
        ("DELETE FROM log_entries WHERE sequence = 1", "hashes of tile/0/000.p/2", 404),
        ("DELETE FROM journal WHERE sequence = 1", "", 404),
        (
            "DELETE FROM journal WHERE sequence = 2",
            "journal entry 2, the last one in the log, is missing",
            404,
        ),
        ("UPDATE journal SET tag = 'x' WHERE sequence = 1", "", 200),
        ("UPDATE log_checkpoints SET cosignatures = 'x'", "", 200),
    ],
)
def test_damage_of_the_log_is_said(tmp_path: Path, statement: str, message: str, status: int) -> None:
    root = tmp_path / "a" / "root"
    with started(root, logging_to()) as log:
        for tag in ("t", "u"):
            log.push_image("x", tag, os.urandom(8))
        checkpoint(log, least=2)
    edit_catalog(root, statement)
    with started(root, logging_to()) as log:
        if message:
            wait_until(lambda: b"digestry_log_refused 1.0" in log.request("GET", "/metrics").body, what="it")
            assert message in log.log.read_text()
        answer = log.request("GET", f"{LOG}/tile/entries/000.p/2")
        assert answer.status == status, answer.body
        if status == 404:
            assert answer.json()["errors"][0]["detail"] == {"damaged": True}
        changed = "SET tag" in statement
        if changed or "FROM journal" in statement:
            line = b"digestry_log_changed 1.0"
            wait_until(lambda: line in log.request("GET", "/metrics").body, what="the metric of the change")
        assert ("no-store" in answer.headers.get("cache-control", "")) is changed
        if "cosignatures" in statement:
            answer = log.request("GET", f"{LOG}/checkpoint")
            assert answer.status == 200, answer.body


@pytest.mark.long
def test_a_note_with_many_large_signatures_and_extensions(tmp_path: Path) -> None:
    """Sixteen of 5 kB are to be taken (signed-note); those of unknown keys are ignored."""
    key = SignerKey.new("log.example/a")
    with started(tmp_path / "w" / "root", witness_of((key.name, key.verifier))) as server:
        witness = witness_key(server)
        text = Checkpoint(key.name, 5, root_of(LEAVES[:5]), ("an extension", "another one")).text
        others = [Signature(f"pq{number}.example/w", number, os.urandom(5000)) for number in range(15)]
        note = Note(text, (*others, key.sign(text)))
        answer = server.request("POST", ADD, request(note, 0))
        assert answer.status == 200, answer.body
        assert len(cosignatures(parse_note(note.encode() + answer.body), [witness])) == 1
        kept = server.request("GET", f"{LOG}/witness/{origin_hash(key.name)}/checkpoint").body
        assert parse_note(kept).text == text
        assert server.request("POST", ADD, b"old 0\n\n" + bytes(300 << 10)).status in {400, 413}
        for body in (
            b"",
            b"\xff\n\n",
            b"old 5\r\n\r\n" + note.encode(),
            b"old 9223372036854775808\n\n" + note.encode(),
            b"old -1\n\n" + note.encode(),
            b"old 5\n" + b"A" * 43 + b"=\n" * 64 + b"\n" + note.encode(),
            b"old 5\n\n" + note.encode()[:-1],
            b"old 5\nnot base64\n\n" + note.encode(),
        ):
            assert server.request("POST", ADD, body).status == 400, body[:40]
