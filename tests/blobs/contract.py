"""What every content store must pass: subclass :class:`StoreContract` and give it a ``store``."""

from __future__ import annotations

import threading

import pytest

from digestry.blobs.protocols import BlobStore
from digestry.errors import DigestMismatch, NotFound, SizeMismatch, TooLarge
from digestry.model.digest import Digest
from tests.support import PATIENCE

HELLO = b"hello, digest"
HELLO_DIGEST = Digest.of(HELLO)


class StoreContract:
    """The tests; a subclass has a fixture ``store``, empty for each of them."""

    def test_absent_content(self, store: BlobStore) -> None:
        assert store.stat(HELLO_DIGEST) is None
        with pytest.raises(NotFound):
            store.open(HELLO_DIGEST)
        with pytest.raises(NotFound):
            store.read(HELLO_DIGEST)
        assert store.delete(HELLO_DIGEST) is False
        assert list(store.digests()) == []

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_streamed_content_comes_back(self, store: BlobStore, algorithm: str) -> None:
        content = bytes(range(256)) * 5000
        digest = Digest.of(content, algorithm)
        with store.begin(digest, len(content)) as ingest:
            for start in range(0, len(content), 100_000):
                ingest.write(memoryview(content)[start : start + 100_000])
                assert store.stat(digest) is None
            assert ingest.offset == len(content)
            ingest.commit(digest, len(content))
        assert store.stat(digest) == len(content)
        assert store.read(digest) == content
        with store.open(digest) as file:
            file.seek(255)
            assert file.read(2) == b"\xff\x00"
        assert list(store.digests()) == [digest]

    def test_a_digest_that_is_only_known_at_the_end(self, store: BlobStore) -> None:
        digest = Digest.of(HELLO, "sha512")
        with store.begin() as ingest:
            ingest.write(HELLO)
            ingest.commit(digest)
        assert store.read(digest) == HELLO

    def test_the_caller_may_reuse_its_buffer(self, store: BlobStore) -> None:
        buffer = bytearray(b"first")
        with store.begin() as ingest:
            ingest.write(buffer)
            buffer[:] = b"later"
            ingest.write(buffer)
            ingest.commit(Digest.of(b"firstlater"))
        assert store.read(Digest.of(b"firstlater")) == b"firstlater"

    def test_empty_content(self, store: BlobStore) -> None:
        digest = store.put(b"")
        assert store.stat(digest) == 0
        assert store.read(digest) == b""

    def test_put(self, store: BlobStore) -> None:
        assert store.put(HELLO) == HELLO_DIGEST
        assert store.put(HELLO, Digest.of(HELLO, "sha512")) == Digest.of(HELLO, "sha512")
        assert set(store.digests()) == {HELLO_DIGEST, Digest.of(HELLO, "sha512")}

    def test_put_of_the_wrong_bytes_leaves_nothing(self, store: BlobStore) -> None:
        with pytest.raises(DigestMismatch):
            store.put(b"something else", HELLO_DIGEST)
        assert list(store.digests()) == []

    def test_the_wrong_digest_leaves_nothing(self, store: BlobStore) -> None:
        with store.begin(HELLO_DIGEST) as ingest:
            ingest.write(b"something else")
            with pytest.raises(DigestMismatch, match=str(HELLO_DIGEST)):
                ingest.commit(HELLO_DIGEST)
        assert list(store.digests()) == []
        assert store.stat(Digest.of(b"something else")) is None

    def test_the_wrong_size_leaves_nothing(self, store: BlobStore) -> None:
        for size in (len(HELLO) - 1, len(HELLO) + 1):
            with store.begin(HELLO_DIGEST) as ingest:
                ingest.write(HELLO)
                with pytest.raises(SizeMismatch):
                    ingest.commit(HELLO_DIGEST, size)
        assert list(store.digests()) == []

    def test_a_stream_stops_at_its_declared_size(self, store: BlobStore) -> None:
        with store.begin(HELLO_DIGEST, 5) as ingest:
            ingest.write(b"hell")
            with pytest.raises(SizeMismatch):
                ingest.write(b"o, there")
            assert ingest.offset == 4

    def test_abort_leaves_nothing_and_may_be_repeated(self, store: BlobStore) -> None:
        ingest = store.begin()
        ingest.write(HELLO)
        ingest.abort()
        ingest.abort()
        second = store.begin()
        second.write(HELLO)
        with pytest.raises(ZeroDivisionError), second:
            raise ZeroDivisionError
        assert list(store.digests()) == []

    def test_read_has_a_limit(self, store: BlobStore) -> None:
        store.put(HELLO)
        assert store.read(HELLO_DIGEST, limit=len(HELLO)) == HELLO
        with pytest.raises(TooLarge) as caught:
            store.read(HELLO_DIGEST, limit=len(HELLO) - 1)
        assert caught.value.limit == len(HELLO) - 1

    def test_delete(self, store: BlobStore) -> None:
        store.put(HELLO)
        with store.open(HELLO_DIGEST) as file:
            assert store.delete(HELLO_DIGEST) is True
            assert file.read() == HELLO  # a reader that has begun is not disturbed
        assert store.stat(HELLO_DIGEST) is None
        assert store.delete(HELLO_DIGEST) is False

    def test_the_same_content_at_once(self, store: BlobStore) -> None:
        content = HELLO * 10_000
        digest = Digest.of(content)
        barrier = threading.Barrier(8)
        failures: list[BaseException] = []

        def write() -> None:
            try:
                with store.begin(digest, len(content)) as ingest:
                    barrier.wait(PATIENCE)
                    ingest.write(content)
                    ingest.commit(digest, len(content))
                assert store.read(digest) == content
            except BaseException as error:  # noqa: BLE001 - told below, in the main thread
                failures.append(error)

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert list(store.digests()) == [digest]
