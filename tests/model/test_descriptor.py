from __future__ import annotations

import msgspec
import pytest

from digestry.model.descriptor import LARGEST_SIZE, Descriptor, decode_hook, encode_hook
from digestry.model.digest import Digest
from digestry.model.platform import Platform

CONTENT = b"some content"
DIGEST = Digest.of(CONTENT)


def test_json_there_and_back() -> None:
    full = Descriptor(
        "a/b",
        DIGEST,
        len(CONTENT),
        urls=("https://example.com/a",),
        annotations={"k": "v"},
        data=CONTENT,
        platform=Platform("arm64", "linux", "v8"),
        artifact_type="c/d",
    )
    for descriptor in (full, Descriptor("a/b", DIGEST, LARGEST_SIZE)):
        text = msgspec.json.encode(descriptor, enc_hook=encode_hook)
        assert msgspec.json.decode(text, type=Descriptor, dec_hook=decode_hook) == descriptor
    assert text == b'{"mediaType":"a/b","digest":"%s","size":%d}' % (str(DIGEST).encode(), LARGEST_SIZE)


def test_data_is_checked_here_too() -> None:
    with pytest.raises(ValueError, match="does not match the digest"):
        Descriptor("a/b", Digest.of(b"else"), len(CONTENT), data=CONTENT)
    with pytest.raises(ValueError, match="has 12 bytes"):
        Descriptor("a/b", DIGEST, 1, data=CONTENT)


def test_equal_ones_hash_alike() -> None:
    one = Descriptor("a/b", DIGEST, 1, annotations={"k": "v"})
    same = Descriptor("a/b", DIGEST, 1, annotations={"k": "v"})
    assert {one: 1}[same] == 1
    assert one != Descriptor("a/b", DIGEST, 1)


def test_the_hooks_know_no_other_types() -> None:
    with pytest.raises(NotImplementedError):
        decode_hook(complex, "1")
    with pytest.raises(NotImplementedError):
        encode_hook(1j)
