"""Answers that were encoded on their way, though nobody asked for that."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.client.repository import Repository
from digestry.errors import ContentError, ProtocolViolation
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from tests.client.liar import Liar, Reply, Request
from tests.client.test_hostile import DIGEST, IMAGE

LAYER = gzip.compress(bytes(range(256)) * 4000, mtime=0)
ENCODED = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", lambda content: zlib.compress(content)[2:-4]),
    ("gzip", lambda content: content),  # it is called so, and is not
    ("gzip", lambda content: gzip.compress(content[:50]) + gzip.compress(content[50:])),
]


def encoded(body: bytes, encoding: str, *, chunked: bool = False) -> Reply:
    return Reply(
        200,
        body,
        {"Content-Encoding": encoding, "Content-Type": media_types.OCI_MANIFEST},
        chunked=chunked,
    )


@pytest.mark.parametrize(("encoding", "encode"), ENCODED)
def test_a_manifest_is_decoded(liar: Liar, hostile: Repository, encoding: str, encode: object) -> None:
    body = encode(IMAGE)  # type: ignore[operator]
    liar.answer = lambda _: encoded(body, encoding)
    assert hostile.pull_manifest(str(DIGEST)).raw == IMAGE


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("encoding", "encode"), ENCODED)
@pytest.mark.parametrize("content", [b"{}" * 400, LAYER])
def test_a_blob_is_decoded(
    liar: Liar,
    hostile: Repository,
    tmp_path: Path,
    *,
    content: bytes,
    encoding: str,
    encode: object,
    chunked: bool,
) -> None:
    body = encode(content)  # type: ignore[operator]
    kind = media_types.OCI_LAYER_GZIP if content is LAYER else media_types.OCI_CONFIG
    blob = Descriptor(kind, Digest.of(content), len(content))
    liar.answer = lambda _: encoded(body, encoding, chunked=chunked)
    assert hostile.read_blob(blob) == content
    store = DiskBlobs(tmp_path)
    store.prepare()
    with store.begin(blob.digest, blob.size) as sink:
        hostile.pull_blob(blob, sink)
    assert store.read(blob.digest) == content


def test_no_range_of_an_encoded_blob_is_asked_for(liar: Liar, hostile: Repository, tmp_path: Path) -> None:
    body = gzip.compress(LAYER)
    blob = Descriptor(media_types.OCI_LAYER, Digest.of(LAYER), len(LAYER))

    def answer(_: Request) -> Reply:
        reply = encoded(body, "gzip")
        if len(liar.seen) == 1:
            reply.body, reply.length = body[: len(body) // 2], len(body)
        return reply

    liar.answer = answer
    store = DiskBlobs(tmp_path)
    store.prepare()
    with store.begin(blob.digest, blob.size) as sink:
        hostile.pull_blob(blob, sink)
    assert [request.headers.get("Range") for request in liar.seen] == [None, None]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br"])
def test_an_encoding_that_cannot_be_undone(liar: Liar, hostile: Repository, encoding: str) -> None:
    liar.answer = lambda _: encoded(b"anything", encoding)
    with pytest.raises(ProtocolViolation, match=encoding):
        hostile.pull_manifest("1")


def test_one_that_ends_early(liar: Liar, hostile: Repository) -> None:
    liar.answer = lambda _: encoded(gzip.compress(IMAGE)[:-6], "gzip")
    with pytest.raises(ProtocolViolation, match="ends early"):
        hostile.pull_manifest("1")


def test_one_that_never_ends(liar: Liar, hostile: Repository) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    liar.answer = lambda _: encoded(bomb, "gzip")
    with pytest.raises(ProtocolViolation, match="more than"):
        hostile.pull_manifest("1")
    with pytest.raises(ContentError):
        hostile.read_blob(Descriptor(media_types.OCI_CONFIG, DIGEST, 100))
