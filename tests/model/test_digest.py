from __future__ import annotations

import copy
import hashlib
import pickle

import pytest

from digestry.errors import InvalidDigest
from digestry.model.digest import ALGORITHMS, Digest, new_hasher, shown

TEXT = "sha256:" + "0123456789abcdef" * 4


def test_parse_gives_the_parts_and_the_same_text() -> None:
    digest = Digest.parse(TEXT)
    assert (digest.algorithm, digest.encoded) == ("sha256", "0123456789abcdef" * 4)
    assert str(digest) == TEXT
    assert digest.short == "0123456789ab"
    assert digest == Digest("sha256", "0123456789abcdef" * 4)


@pytest.mark.parametrize(("algorithm", "digits"), ALGORITHMS.items())
def test_of_bytes_is_what_hashlib_says(algorithm: str, digits: int) -> None:
    digest = Digest.of(b"abc", algorithm)
    assert digest.encoded == hashlib.new(algorithm, b"abc").hexdigest()
    assert len(digest.encoded) == digits
    assert Digest.of(bytearray(b"abc"), algorithm) == Digest.of(memoryview(b"abc"), algorithm) == digest
    hasher = digest.hasher()
    hasher.update(b"a")
    hasher.update(b"bc")
    assert hasher.hexdigest() == digest.encoded


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no algorithm"),
        ("0123456789ab", "has no algorithm"),
        (":" + "a" * 64, "algorithm '' is not one"),
        ("SHA256:" + "a" * 64, "algorithm 'SHA256' is not one"),
        (" sha256:" + "a" * 64, "algorithm ' sha256' is not one"),
        ("md5:" + "a" * 32, "algorithm 'md5' is not supported"),
        ("sha384:" + "a" * 96, "algorithm 'sha384' is not supported"),
        ("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", "is not supported"),
        ("sha256:", "has 64 hex digits, 'sha256:' has 0"),
        ("sha256:" + "a" * 63, "has 63"),
        ("sha256:" + "a" * 64 + "\n", "has 65"),
        ("sha512:" + "a" * 64, "a sha512 digest has 128 hex digits"),
        ("sha256:" + "A" * 64, "not in lower-case hex"),
        ("sha256:" + "g" * 64, "not in lower-case hex"),
        ("sha256:" + "\N{ARABIC-INDIC DIGIT THREE}" * 64, "not in lower-case hex"),
        ("sha256:" + "a" * 31 + "/../" + "a" * 29, "not in lower-case hex"),
    ],
)
def test_a_bad_digest_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(InvalidDigest) as raised:
        Digest.parse(text)
    assert complaint in raised.value.message
    algorithm, _, encoded = text.partition(":")
    with pytest.raises(InvalidDigest):
        Digest(algorithm, encoded)


@pytest.mark.parametrize("value", [None, 5, b"sha256:", ["sha256"]])
def test_what_is_no_text_is_refused_by_its_type(value: object) -> None:
    with pytest.raises(InvalidDigest, match=type(value).__name__):
        Digest.parse(value)  # type: ignore[arg-type]


def test_an_unknown_algorithm_names_the_known_ones() -> None:
    with pytest.raises(InvalidDigest) as raised:
        new_hasher("md5")
    assert "sha256" in raised.value.hint
    assert "sha512" in raised.value.hint


def test_it_is_a_value() -> None:
    digest, same = Digest.parse(TEXT), Digest.parse(TEXT)
    assert {digest: 1}[same] == 1
    assert digest != TEXT
    assert copy.deepcopy(digest) == pickle.loads(pickle.dumps(digest)) == digest  # noqa: S301
    with pytest.raises(AttributeError, match="cannot be changed"):
        digest.encoded = "b" * 64
    assert [digest.algorithm for digest in sorted([Digest.of(b"2", "sha512"), Digest.of(b"1")])] == [
        "sha256",
        "sha512",
    ]


def test_what_is_shown_is_escaped_and_short() -> None:
    assert shown("\x1b[31m") == r"'\x1b[31m'"
    assert shown("\u202e") == r"'\u202e'"
    long = shown("a" * 10_000)
    assert len(long) < 120
    assert "(10000 characters)" in long
