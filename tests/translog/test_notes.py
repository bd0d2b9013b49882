"""Signed notes, checkpoints, cosignatures and proofs, by the specifications' examples, and malformed."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.translog.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from digestry.translog.cosignatures import (
    AddCheckpoint,
    cosign,
    cosignatures,
    parse_add_checkpoint,
    parse_answer,
)
from digestry.translog.merkle import EMPTY_ROOT, InvalidProof, leaf_hash, root_of
from digestry.translog.notes import (
    COSIGNATURE,
    ED25519,
    InvalidNote,
    Note,
    Signature,
    SignerKey,
    UnsignedNote,
    VerifierKey,
    open_note,
    parse_note,
    parse_signer_key,
    parse_verifier_key,
)
from digestry.translog.proofs import Proof, parse_proof

# The example of C2SP's signed-note.
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72I"
    "neyaQM=\n"
).encode()
# The keys of the tests of golang.org/x/mod/sumdb/note.
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJn"
    "AM=\n"
).encode()


def test_the_example_of_the_specification() -> None:
    key = parse_verifier_key(VKEY)
    assert str(key) == VKEY
    note, found = open_note(NOTE, [key])
    assert note.text == "This is an example message.\n"
    assert [signature.name for signature in found.values()] == ["example.com/foo"]
    assert note.encode() == NOTE


def test_the_keys_and_the_note_of_go() -> None:
    signer = parse_signer_key(GO_SKEY)
    assert str(signer) == GO_SKEY
    assert str(signer.verifier) == GO_VKEY
    assert "AYEK" not in repr(signer)
    text, _ = GO_NOTE.decode().split("\n\n")
    assert Note(text + "\n", (signer.sign(text + "\n"),)).encode() == GO_NOTE
    open_note(GO_NOTE, [parse_verifier_key(GO_VKEY)])


def test_an_unknown_key_is_ignored_and_a_wrong_signature_is_not() -> None:
    key, other = SignerKey.new("a.example/log"), SignerKey.new("a.example/log")
    text = "hello\n"
    note = Note(text, (other.sign(text), key.sign(text)))
    _, found = open_note(note.encode(), [key.verifier])
    assert list(found) == [key.verifier]
    with pytest.raises(UnsignedNote, match=r"no signature of a trusted key: a.example/log is trusted"):
        open_note(Note(text, (other.sign(text),)).encode(), [key.verifier])
    with pytest.raises(InvalidNote, match=r"the signature of a.example/log is wrong"):
        open_note(Note("other\n", (key.sign(text),)).encode(), [key.verifier])
    # A right one and a wrong one by the same key.
    with pytest.raises(InvalidNote, match="is wrong"):
        open_note(Note(text, (key.sign(text), key.sign("other\n"))).encode(), [key.verifier])


_LINE = base64.b64encode(bytes(68)).decode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\n\xe2\x80\x94 name",
        f"text\n\n- name {_LINE}\n".encode(),
        f"text\n\n—name {_LINE}\n".encode(),
        f"text\n\n—  {_LINE}\n".encode(),
        f"text\n\n— name  {_LINE}\n".encode(),
        f"text\n\n— name {_LINE}".encode(),
        f"text\n\n— name {_LINE}\nmore\n".encode(),
        f"text\n\n— na+me {_LINE}\n".encode(),
        f"text\n\n— na\u2003me {_LINE}\n".encode(),
        f"text\n\n— name {_LINE[:-4]}AB==\n".encode(),  # bits that are ignored
        f"text\n\n— name {_LINE} \n".encode(),
        "text\n\n— name AAAAAA==\n".encode(),  # no bytes after the ID
        f"te\rxt\n\n— name {_LINE}\n".encode(),
        f"te\txt\n\n— name {_LINE}\n".encode(),
        f"te\0xt\n\n— name {_LINE}\n".encode(),
        b"te\xffxt\n\n" + f"— name {_LINE}\n".encode(),
        b"text\n\n" + f"— name {_LINE}\n".encode() * 65,
        b"text" * 300_000 + f"\n\n— name {_LINE}\n".encode(),
    ],
)
def test_a_malformed_note_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidNote):
        parse_note(content)


def test_a_text_may_have_empty_lines() -> None:
    note = parse_note(f"one\n\ntwo\n\n— name {_LINE}\n".encode())
    assert note.text == "one\n\ntwo\n"
    assert len(parse_note(b"text\n\n" + f"— name {_LINE}\n".encode() * 16).signatures) == 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("530d903a", "530D903A"),
        VKEY.replace("+Aeky", "+Aek"),
        VKEY + "AAAA",
        VKEY.replace("example.com/foo", "example com"),
        "name+00000000+AA==",
    ],
)
def test_a_malformed_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_verifier_key(text)


def test_a_key_of_another_type_is_kept_and_verifies_nothing() -> None:
    content = base64.b64encode(bytes([6]) + bytes(1312)).decode()
    key = parse_verifier_key(f"name+01020304+{content}")
    assert not key.is_known
    with pytest.raises(InvalidNote, match="of another type"):
        key.verify("text\n", Signature("name", key.key_id, bytes(70)))


def test_checkpoint() -> None:
    root = root_of([leaf_hash(b"one")])
    made = Checkpoint("registry.example.com/log", 1, root)
    key, old = SignerKey.new(made.origin), SignerKey.new(made.origin)
    note = made.sign([key, old])
    for trusted in ([key], [old], [old, key]):
        signed = open_checkpoint(note.encode(), made.origin, [each.verifier for each in trusted])
        assert signed.checkpoint == made
        assert len(signed.signatures) == len(trusted)
    with pytest.raises(InvalidNote, match=r"is of the log registry.example.com/log, not of other"):
        open_checkpoint(note.encode(), "other", [key.verifier])
    assert parse_checkpoint(made.text + "extension\n").extensions == ("extension",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n1\n",
        "\n1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n01\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n-1\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n1\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "origin\n1\n" + base64.b64encode(bytes(32)).decode(),
        "origin\n1\n" + base64.b64encode(bytes(32)).decode() + "\n\nmore\n",
        "origin\n9223372036854775808\n" + base64.b64encode(bytes(32)).decode() + "\n",
        "origin\n\uff11\n" + base64.b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_checkpoint(text)


def test_the_root_of_no_leaves() -> None:
    key = SignerKey.new("log.example")
    note = Checkpoint("log.example", 0, bytes(32)).sign([key])
    with pytest.raises(InvalidNote, match="without leaves has another root"):
        open_checkpoint(note.encode(), "log.example", [key.verifier])


def test_cosignature() -> None:
    log, witness = SignerKey.new("log.example"), SignerKey.new("witness.example/w1", COSIGNATURE)
    checkpoint = Checkpoint("log.example", 0, EMPTY_ROOT)
    note = checkpoint.sign([log])
    signed = Note(note.text, (*note.signatures, cosign(note.text, witness, 1_679_315_147)))
    (found,) = cosignatures(parse_note(signed.encode()), [witness.verifier])
    assert found.seconds == 1_679_315_147
    assert found.key == parse_verifier_key(str(witness.verifier))
    open_checkpoint(signed.encode(), "log.example", [log.verifier])
    with pytest.raises(InvalidNote, match="is of a time to come"):
        cosignatures(signed, [witness.verifier], latest=1_679_315_146)
    later = Signature(found.key.name, found.key.key_id, b"\0" * 7 + b"\1" + found.signature.signature[8:])
    with pytest.raises(InvalidNote, match="is wrong"):
        cosignatures(Note(note.text, (later,)), [witness.verifier])
    assert cosignatures(signed, [SignerKey.new("witness.example/w1", COSIGNATURE).verifier]) == []
    # The same bytes of a key have another ID as the key of a log.
    assert VerifierKey(witness.name, ED25519, witness.verifier.public).key_id != witness.verifier.key_id


def test_request_to_a_witness() -> None:
    witness, text = SignerKey.new("w", COSIGNATURE), Checkpoint("log", 2, bytes(32)).text
    note = Note(text, (SignerKey.new("log").sign(text),)).encode()
    request = AddCheckpoint(1, (bytes(32), b"\1" * 32), note)
    assert parse_add_checkpoint(request.encode()) == request
    line = cosign(text, witness, 5).line.encode()
    assert [found.seconds for found in parse_answer(line, text, [witness.verifier])] == [5]
    with pytest.raises(InvalidNote, match="no cosignature of its key"):
        parse_answer(line, text, [SignerKey.new("w", COSIGNATURE).verifier])


@pytest.mark.parametrize(
    "head",
    [
        "old 01",
        "old -1",
        "size 1",
        "old 1\n" + "A" * 44,
        "old 1\nAAAA",
        "old 1" + ("\n" + base64.b64encode(bytes(32)).decode()) * 64,
        "old \uff11",
    ],
)
def test_a_malformed_request_is_refused(head: str) -> None:
    with pytest.raises(InvalidNote):
        parse_add_checkpoint(f"{head}\n\nlog\n".encode())


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(content: bytes) -> None:
    for parse in (parse_note, parse_add_checkpoint, parse_proof):
        try:
            parse(content)
        except InvalidNote:
            continue


def test_proof() -> None:
    key = SignerKey.new("log.example")
    leaves = [leaf_hash(b"one"), leaf_hash(b"two")]
    note = Checkpoint("log.example", 2, root_of(leaves)).sign([key]).encode()
    proof = Proof(1, (leaves[0],), note, b"extra")
    again = parse_proof(proof.encode())
    assert again == proof
    assert again.verify(b"two", "log.example", [key.verifier]).checkpoint.size == 2
    with pytest.raises(InvalidProof):
        again.verify(b"one", "log.example", [key.verifier])
    assert proof.encode().startswith(b"c2sp.org/tlog-proof@v1\nextra ZXh0cmE=\nindex 1\n")
    for wrong in (
        proof.encode().replace(b"index 1", b"index 01"),
        proof.encode().replace(b"@v1", b"@v2"),
        proof.encode().replace(b"extra Z", b"extra !"),
        proof.encode().replace(b"index 1\n", b""),
    ):
        with pytest.raises(InvalidNote):
            parse_proof(wrong)
