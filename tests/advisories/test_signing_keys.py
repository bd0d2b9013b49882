"""Private and public keys: the formats that are read, and what they sign and verify."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, x25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from digestry.advisories.public_keys import PublicKey
from digestry.advisories.secret_box import open_box
from digestry.advisories.signing_keys import read_signing_key
from digestry.errors import InvalidConfiguration
from tests.advisories.signed import PASSWORD, RECORDED, pem, private_key

KINDS = ("P-256", "P-384", "P-521", "Ed25519", "RSA-2048")


def test_a_secret_box_is_opened_as_nacl_makes_it() -> None:
    """The example of "Cryptography in NaCl"."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
        "e355a5"
    )
    assert open_box(key, nonce, box) == message
    for changed in (bytes([box[0] ^ 1]) + box[1:], box[:-1], box[:15], b""):
        with pytest.raises(ValueError, match="secret box"):
            open_box(key, nonce, changed)


def test_a_key_of_cosign_is_opened_with_its_password() -> None:
    content = (RECORDED / "cosign.key").read_bytes()
    key = read_signing_key(content, "cosign.key", lambda: PASSWORD)
    assert key.public_pem == (RECORDED / "cosign.pub").read_bytes()
    assert (
        key.hint
        == json.loads((RECORDED / "bundle.json").read_bytes())["verificationMaterial"]["publicKey"]["hint"]
    )
    assert PASSWORD.decode() not in repr(key)
    with pytest.raises(InvalidConfiguration, match=r"cosign\.key: the password is wrong"):
        read_signing_key(content, "cosign.key", lambda: b"")
    older = content.replace(b"SIGSTORE", b"COSIGN")
    assert read_signing_key(older, "cosign.key", lambda: PASSWORD).hint == key.hint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("password", [None, b"secret"])
def test_a_key_in_pem_signs(kind: str, form: PrivateFormat, password: bytes | None) -> None:
    if kind == "Ed25519" and form is not PrivateFormat.PKCS8:
        return
    content = pem(kind, form=form, password=password)
    asked: list[int] = []

    def answer() -> bytes:
        asked.append(1)
        return b"secret"

    key = read_signing_key(content, "key", answer)
    assert bool(asked) == (password is not None)
    signature = key.sign(b"message")
    assert PublicKey(key.public_pem).verifies(signature, b"message")
    assert not PublicKey(key.public_pem).verifies(signature, b"another")
    if password is not None:
        with pytest.raises(InvalidConfiguration, match="the password is wrong"):
            read_signing_key(content, "key", lambda: b"wrong")


def sealed(**changes: object) -> bytes:
    """cosign's key with other parameters of its encryption."""
    lines = (RECORDED / "cosign.key").read_text().splitlines()
    value = json.loads(base64.b64decode("".join(lines[1:-1])))
    for path, change in changes.items():
        target = value
        *steps, last = path.split("__")
        for step in steps:
            target = target[step]
        target[last] = change
    body = base64.b64encode(json.dumps(value).encode()).decode()
    return f"{lines[0]}\n{body}\n{lines[-1]}\n".encode()


def block(kind: str, body: str) -> bytes:
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n".encode()


def x25519_key() -> bytes:
    key = x25519.X25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


NO_KEYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not a private key"),
    "bytes": (lambda: b"\xff\x00" * 100, "not a private key"),
    "no DER": (lambda: block("PRIVATE KEY", "QUJD"), "not a private key"),
    "public": ((RECORDED / "cosign.pub").read_bytes, "not a private key"),
    "half a block": (lambda: b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "not cosign's"),
    "no base64": (lambda: block("ENCRYPTED SIGSTORE PRIVATE KEY", "!"), "not cosign's"),
    "much memory": (lambda: sealed(kdf__params={"N": 1 << 30, "r": 8, "p": 1}), "out of range"),
    "no power of two": (lambda: sealed(kdf__params={"N": 65537, "r": 8, "p": 1}), "out of range"),
    "large blocks": (lambda: sealed(kdf__params={"N": 65536, "r": 1 << 20, "p": 1}), "out of range"),
    "slow": (lambda: sealed(kdf__params={"N": 65536, "r": 8, "p": 1000}), "not those of cosign"),
    "text": (lambda: sealed(kdf__params={"N": "65536", "r": 8, "p": 1}), "not those of cosign"),
    "no parameters": (lambda: sealed(kdf__params=None), "not those of cosign"),
    "another derivation": (lambda: sealed(kdf__name="argon2"), "not cosign's"),
    "no nonce": (lambda: sealed(cipher__nonce=""), "not those of cosign"),
    "a list": (lambda: sealed(cipher=[]), "not cosign's"),
    "another content": (lambda: sealed(ciphertext="AAAA"), "the password is wrong"),
    "X25519": (x25519_key, "not an ECDSA, Ed25519 or RSA key"),
    "small": (lambda: pem("RSA-1024"), "2048 are the least"),
    "P-224": (lambda: pem("P-224"), "P-256, P-384 or P-521"),
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_is_no_key_is_refused(name: str) -> None:
    make, why = NO_KEYS[name]
    with pytest.raises(InvalidConfiguration, match=why) as raised:
        read_signing_key(make(), "team.key", lambda: PASSWORD)
    assert raised.value.message.startswith("team.key: ")
    assert PASSWORD.decode() not in str(raised.value)


def public(kind: str) -> PublicKey:
    content = private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(content)


def test_a_curve_has_its_own_hash_or_sha256() -> None:
    for kind, own, other in (("P-384", SHA384(), SHA512()), ("P-521", SHA512(), SHA384())):
        for algorithm in (SHA256(), own):
            assert public(kind).verifies(private_key(kind).sign(b"m", ec.ECDSA(algorithm)), b"m")
        assert not public(kind).verifies(private_key(kind).sign(b"m", ec.ECDSA(other)), b"m")


def test_rsa_has_both_paddings_and_sha256() -> None:
    key = private_key("RSA-2048")
    for padded in (
        padding.PKCS1v15(),
        padding.PSS(padding.MGF1(SHA256()), padding.PSS.MAX_LENGTH),
        padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH),
    ):
        assert public("RSA-2048").verifies(key.sign(b"m", padded, SHA256()), b"m")
    assert not public("RSA-2048").verifies(key.sign(b"m", padding.PKCS1v15(), SHA384()), b"m")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_signature_verifies_nothing(kind: str) -> None:
    for other in KINDS:
        signature = read_signing_key(pem(other), other, lambda: b"").sign(b"m")
        assert public(kind).verifies(signature, b"m") == (kind == other)
        assert not public(kind).verifies(signature[:-1], b"m")
    for signature in (b"", b"\0" * 64, b"\x30\x06\x02\x01\x00\x02\x01\x00", b"x" * 100_000):
        assert not public(kind).verifies(signature, b"m")


def test_what_is_no_public_key_is_refused() -> None:
    for content, why in (
        (b"", "not a public key"),
        (block("PUBLIC KEY", "QUJD"), "not a public key"),
        (pem("P-256"), "a private key"),
        (block("CERTIFICATE", "QUJD"), "a certificate"),
    ):
        with pytest.raises(ValueError, match=why):
            PublicKey(content)
    for kind, why in (("RSA-1024", "2048 are the least"), ("P-224", "P-256, P-384 or P-521")):
        with pytest.raises(ValueError, match=why):
            public(kind)
