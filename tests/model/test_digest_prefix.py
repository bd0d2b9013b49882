from __future__ import annotations

import pytest

from digestry.errors import InvalidDigest
from digestry.model.digest import Digest
from digestry.model.digest_prefix import DigestPrefix

DIGEST = Digest.of(b"prefix")
LONG = Digest.of(b"prefix", "sha512")


@pytest.mark.parametrize("text", [DIGEST.encoded[:7], DIGEST.encoded, str(DIGEST)[:14], str(DIGEST)])
def test_what_begins_a_digest(text: str) -> None:
    prefix = DigestPrefix.parse(text)
    assert str(prefix) == text
    assert prefix.begins(DIGEST)
    assert not prefix.begins(Digest.of(b"other"))
    assert prefix.whole == (DIGEST if text.endswith(DIGEST.encoded) else None)


def test_the_algorithm_counts_where_it_is_given() -> None:
    assert DigestPrefix.parse(LONG.encoded[:70]).begins(LONG)
    assert DigestPrefix.parse(LONG.encoded[:7]).begins(LONG)
    assert not DigestPrefix.parse(f"sha256:{LONG.encoded[:7]}").begins(LONG)
    assert DigestPrefix.parse(str(LONG)).whole == LONG
    assert DigestPrefix.parse(LONG.encoded[:65]).algorithms == ("sha512",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abcdef",
        "ABCDEF0",
        "sha256:",
        "sha256:abcdef",
        "md5:abcdef01",
        "abcdefg",
        "abcdef0\n",
        "a" * 129,
        f"sha256:{'a' * 65}",
        "latest",
    ],
)
def test_what_begins_none(text: str) -> None:
    assert DigestPrefix.read(text) is None
    with pytest.raises(InvalidDigest, match="neither a digest nor the beginning"):
        DigestPrefix.parse(text)
