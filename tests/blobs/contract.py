"""What every content store must pass: subclass :class:`StoreContract`; give it a ``store`` and ``damage``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from digestry.blobs.protocols import GONE, BlobStore, FullSpeed, StoreMark
from digestry.errors import Conflict, DigestMismatch, NotFound, SizeMismatch, StorageError, TooLarge
from digestry.model.digest import Digest
from tests.support import PATIENCE

HELLO = b"hello, digest"
HELLO_DIGEST = Digest.of(HELLO)
MARK = StoreMark("0123456789abcdef" * 2, 7)
Damage = Callable[[Digest, bytes], object]


def ranges(store: BlobStore, digest: Digest, *wanted: tuple[int, int]) -> tuple[int, list[bytes]]:
    """The size of some content, and ranges of it: each a position and a count."""

    async def read() -> tuple[int, list[bytes]]:
        content = await store.open_ranges(digest, asyncio.to_thread)
        try:
            return content.size, [await content.read(*one) for one in wanted]
        finally:
            content.close()

    return asyncio.run(read())


class Counting:
    """A throttle that notes what it was asked for."""

    chunk = 1 << 16

    def __init__(self) -> None:
        self.asked: list[int] = []

    def take(self, count: int) -> None:
        self.asked.append(count)


class StoreContract:
    """The tests; a subclass has two fixtures: ``store``, empty for each of them, and ``damage``, which puts
    other bytes in the place of some content's."""

    def test_absent_content(self, store: BlobStore) -> None:
        assert store.stat(HELLO_DIGEST) is None
        with pytest.raises(NotFound):
            store.open(HELLO_DIGEST)
        with pytest.raises(NotFound):
            store.read(HELLO_DIGEST)
        with pytest.raises(NotFound):
            ranges(store, HELLO_DIGEST)
        assert store.revision(HELLO_DIGEST) is None
        assert store.stored_at(HELLO_DIGEST) is None
        assert store.verify(HELLO_DIGEST, None, FullSpeed()).problem == GONE
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

    def test_of_several_puts_at_once_each_stands_or_falls_by_itself(self, store: BlobStore) -> None:
        contents = [b"%d" % number * 1000 for number in range(12)]
        named = [(content, Digest.of(content)) for content in contents]
        named[5] = (b"something else", HELLO_DIGEST)
        named[7] = (contents[7], Digest.of(contents[7], "sha512"))
        named.append(named[0])
        problems = store.put_all(named)
        assert isinstance(problems[5], DigestMismatch)
        assert [problem for number, problem in enumerate(problems) if number != 5] == [None] * 12
        assert set(store.digests()) == {digest for _, digest in named} - {HELLO_DIGEST}
        for number, (content, digest) in enumerate(named):
            assert number == 5 or store.read(digest) == content
        assert list(store.ingests()) == []
        assert store.put_all([]) == []

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

    # -- ranges, and where the content is -----------------------------------------------------

    def test_ranges(self, store: BlobStore) -> None:
        content = bytes(range(256)) * 5000
        digest = store.put(content)
        size, (first, middle, rest, beyond) = ranges(
            store, digest, (0, 1), (1000, 100_000), (len(content) - 3, 10), (len(content), 10)
        )
        assert size == len(content)
        assert first == content[:1]
        assert middle == content[1000 : 1000 + len(middle)]
        assert middle
        assert rest == content[-3:]
        assert beyond == b""

    def test_ranges_of_content_that_is_deleted_meanwhile(self, store: BlobStore) -> None:
        store.put(HELLO)

        async def read() -> bytes:
            content = await store.open_ranges(HELLO_DIGEST, asyncio.to_thread)
            try:
                await asyncio.to_thread(store.delete, HELLO_DIGEST)
                return await content.read(0, len(HELLO))
            finally:
                content.close()

        assert asyncio.run(read()) == HELLO

    def test_small_content_is_read_inline_or_not_at_all(self, store: BlobStore) -> None:
        assert 0 <= store.inline_limit <= 1 << 20

    def test_a_local_file_has_the_content(self, store: BlobStore) -> None:
        store.put(HELLO)
        path = store.local_path(HELLO_DIGEST)
        assert path is None or path.read_bytes() == HELLO

    def test_a_redirect_is_a_url(self, store: BlobStore) -> None:
        store.put(HELLO)
        url = store.redirect(HELLO_DIGEST)
        assert url is None or url.startswith(("http://", "https://"))

    def test_a_store_says_where_it_is(self, store: BlobStore) -> None:
        assert store.location
        assert store.mark_location
        assert store.instance() == store.instance()

    def test_when_content_was_stored(self, store: BlobStore) -> None:
        before = time.time() - 2  # a clock may be coarser than another
        store.put(HELLO)
        stored_at = store.stored_at(HELLO_DIGEST)
        assert stored_at is None or before <= stored_at <= time.time() + 2

    def test_a_copy_that_is_stored_anew_is_another_revision(self, store: BlobStore) -> None:
        store.put(HELLO)
        first = store.revision(HELLO_DIGEST)
        assert first is not None
        assert store.revision(HELLO_DIGEST) == first
        store.put(HELLO)
        assert store.revision(HELLO_DIGEST) not in {None, first}

    # -- content that several requests, or processes, carry on --------------------------------

    def test_an_ingest_goes_on_in_another_opening(self, store: BlobStore) -> None:
        with store.ingest("upload-1") as first:
            first.write_all([b"hel", b"", b"lo"])
        assert list(store.ingests()) == ["upload-1"]
        with store.ingest("upload-1", create=False) as second:
            assert second.offset == 5
            second.write(HELLO[5:])
            assert second.digest() == HELLO_DIGEST
            second.commit(HELLO_DIGEST, len(HELLO))
        assert store.read(HELLO_DIGEST) == HELLO
        assert list(store.ingests()) == []

    def test_a_buffer_is_the_callers_again_once_the_store_says_so(self, store: BlobStore) -> None:
        parts = [bytes([number]) * (600 << 10) for number in range(4)]  # enough to hash in a thread
        whole = Digest.of(b"".join(parts))
        buffer = bytearray(len(parts[0]))
        free = threading.Semaphore()
        with store.begin(whole) as ingest:
            for part in parts:
                assert free.acquire(timeout=10)
                buffer[:] = part
                ingest.write(memoryview(buffer), free.release)
            ingest.commit(whole)
        assert store.read(whole) == b"".join(parts)

    def test_bytes_after_the_offset_are_dropped(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(b"hello and what was never acknowledged")
        with store.ingest("u") as ingest:
            ingest.resume(5)
            assert ingest.offset == 5
            ingest.write(HELLO[5:])
            ingest.commit(HELLO_DIGEST)
        assert store.read(HELLO_DIGEST) == HELLO

    def test_a_known_digest_holds_for_the_bytes_before(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(HELLO[:5])
            known = ingest.digest()
        with store.ingest("u") as ingest:
            ingest.resume(5, known)
            assert ingest.digest() == known
            ingest.write(HELLO[5:])
            assert ingest.digest() == HELLO_DIGEST

    def test_lost_bytes_are_told(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(b"hello")
            with pytest.raises(StorageError, match="5 bytes, but 9"):
                ingest.resume(9)

    def test_a_digest_in_another_algorithm(self, store: BlobStore) -> None:
        with store.ingest("u", algorithm="sha512") as ingest:
            ingest.write(HELLO)
            assert ingest.digest() == Digest.of(HELLO, "sha512")
            assert ingest.digest("sha256") == HELLO_DIGEST
            ingest.commit(HELLO_DIGEST)

    def test_two_writers_exclude_each_other(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(HELLO)
            with pytest.raises(Conflict):
                store.ingest("u")
            with pytest.raises(Conflict):
                store.discard("u")
            assert store.sweep_ingests(older_than=-1) == []
        assert store.discard("u") is True
        assert store.discard("u") is False

    def test_an_ingest_that_must_exist(self, store: BlobStore) -> None:
        with pytest.raises(NotFound):
            store.ingest("never-begun", create=False)
        assert list(store.ingests()) == []

    def test_an_aborted_ingest_is_gone(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(HELLO)
            ingest.abort()
            ingest.close()
        assert list(store.ingests()) == []

    def test_a_failed_commit_keeps_nothing(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(b"something else")
            with pytest.raises(DigestMismatch):
                ingest.commit(HELLO_DIGEST)
        assert list(store.ingests()) == []
        assert list(store.digests()) == []

    @pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a/b", "a\n", "a" * 200])
    def test_a_name_that_no_ingest_has(self, store: BlobStore, name: str) -> None:
        with pytest.raises(StorageError):
            store.ingest(name)

    def test_abandoned_ingests_are_swept(self, store: BlobStore) -> None:
        for name in ("old", "kept"):
            with store.ingest(name) as ingest:
                ingest.write(HELLO)
        assert store.sweep_ingests(older_than=3600) == []
        assert store.sweep_ingests(older_than=-1, keep=["kept"]) == ["old"]
        assert list(store.ingests()) == ["kept"]

    # -- content that is read while it comes in -----------------------------------------------

    def test_content_is_followed_to_its_commit(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(HELLO[:5])
            growing = store.follow("u")
            assert growing is not None
            assert (growing.size(), growing.read(1, 100)) == (5, b"ello")
            ingest.write(HELLO[5:])
            assert (growing.size(), growing.read(5, 4)) == (len(HELLO), HELLO[5:9])
            assert growing.is_arriving()
            assert not growing.is_stored_as(HELLO_DIGEST)
            ingest.commit(HELLO_DIGEST)
            assert not growing.is_arriving()
            assert growing.is_stored_as(HELLO_DIGEST)
            store.put(HELLO)
            assert not growing.is_stored_as(HELLO_DIGEST)
            growing.close()

    def test_content_that_was_begun_anew_is_not_what_was_followed(self, store: BlobStore) -> None:
        with store.ingest("u") as ingest:
            ingest.write(b"wrong")
            growing = store.follow("u")
            assert growing is not None
            ingest.abort()
        with store.ingest("u"):
            assert not growing.is_arriving()
            growing.close()
        with contextlib.suppress(NotFound):
            assert store.follow("never-begun") is None

    # -- damage and quarantine ----------------------------------------------------------------

    def test_whole_content_is_verified(self, store: BlobStore) -> None:
        content = bytes(range(256)) * 5000
        digest = store.put(content, Digest.of(content, "sha512"))
        for size in (len(content), None):
            throttle = Counting()
            found = store.verify(digest, size, throttle)
            assert (found.digest, found.revision, found.problem) == (digest, store.revision(digest), None)
            assert sum(throttle.asked) == len(content)
        assert "bytes, not 5" in (store.verify(digest, 5, FullSpeed()).problem or "")

    def test_damage_is_told_and_healed(self, store: BlobStore, damage: Damage) -> None:
        store.put(HELLO)
        damage(HELLO_DIGEST, b"hello, damage")
        with pytest.raises(DigestMismatch):
            store.read(HELLO_DIGEST)
        for uncached in (False, True):
            found = store.verify(HELLO_DIGEST, len(HELLO), FullSpeed(), uncached=uncached)
            assert "hash to" in (found.problem or "")
            assert found.revision == store.revision(HELLO_DIGEST)
        store.put(HELLO)
        assert store.read(HELLO_DIGEST) == HELLO
        assert store.verify(HELLO_DIGEST, len(HELLO), FullSpeed()).problem is None

    def test_quarantine(self, store: BlobStore, damage: Damage) -> None:
        other = store.put(b"other")
        moved = []
        for _ in range(2):  # at one time: both are kept
            store.put(HELLO)
            damage(HELLO_DIGEST, b"damaged")
            moved.append(store.quarantine(HELLO_DIGEST, 7))
            assert store.stat(HELLO_DIGEST) is None
        store.put(HELLO)
        damage(other, b"another")
        moved.append(store.quarantine(other, 8))
        assert [(blob.digest, blob.size) for blob in moved] == [
            (HELLO_DIGEST, 7),
            (HELLO_DIGEST, 7),
            (other, 7),
        ]
        assert len({blob.name for blob in moved}) == 3
        assert list(store.quarantined(HELLO_DIGEST)) == moved[:2]
        assert sorted(blob.name for blob in store.quarantined()) == sorted(blob.name for blob in moved)
        assert store.read(HELLO_DIGEST) == HELLO
        store.delete_quarantined(moved[0])
        assert list(store.quarantined(HELLO_DIGEST)) == [moved[1]]

    def test_the_mark(self, store: BlobStore) -> None:
        assert store.mark() is None
        store.set_mark(MARK)
        store.set_mark(MARK)
        assert store.mark() == MARK
        assert list(store.digests()) == []

    def test_to_prepare_again_changes_nothing(self, store: BlobStore) -> None:
        store.put(HELLO)
        store.set_mark(MARK)
        with store.ingest("u") as ingest:
            ingest.write(HELLO)
        store.prepare()
        assert (list(store.digests()), list(store.ingests()), store.mark()) == ([HELLO_DIGEST], ["u"], MARK)
