"""The shared state of all uploads and reads of one process: connections, rows, memory, leases and threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from digestry.blobs.failures import BytesLost
from digestry.blobs.protocols import GONE
from digestry.blobs.s3.client import S3Client
from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.documents import UploadedPart
from digestry.blobs.s3.leases import IngestLeases
from digestry.blobs.s3.part_memory import PartMemory
from digestry.blobs.s3.reader import ObjectReader
from digestry.blobs.s3.removal import ObjectRemoval
from digestry.blobs.s3.rows import ObjectRows
from digestry.model.digest import Digest, new_hasher

_MEMORY_PATIENCE: Final = 60.0
"""Seconds after which an upload gives up to wait for memory."""


class S3Session:
    """The shared parts of an open store. Thread-safe."""

    def __init__(self, config: S3Config, client: S3Client, rows: ObjectRows) -> None:
        self.config = config
        self.client = client
        self.rows = rows
        self.leases = IngestLeases(rows, config.lease)
        self.removal = ObjectRemoval(config, client, rows)
        self._senders = ThreadPoolExecutor(config.slots, thread_name_prefix="s3 part")
        self.memory = PartMemory(config.slots, config.part_size, _MEMORY_PATIENCE, self._senders.submit)

    @property
    def location(self) -> str:
        """The store's URL, for messages."""
        return self.config.location

    def where(self, key: str) -> str:
        """Return the URL of an object, for messages."""
        return f"s3://{self.config.bucket}/{key}"

    def new_key(self) -> str:
        """Return a key that no object has."""
        return self.config.new_object_key()

    def send_part(
        self, key: str, upload_id: str, number: int, body: Sequence[bytes | memoryview]
    ) -> Future[UploadedPart]:
        """Send a part in a thread of its own."""
        return self._senders.submit(self.client.upload_part, key, upload_id, number, body)

    def reader(self, key: str, size: int) -> ObjectReader:
        """Open an object of ``size`` bytes for reading."""
        return ObjectReader(self.client, key, size, self.where(key))

    def read(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of an object from ``start`` to before ``end``. Raises :class:`BytesLost`."""
        with self.reader(key, end) as reader:
            content = bytearray()
            while len(content) < end - start:
                part = reader.read_at(start + len(content), end - start - len(content))
                if not part:
                    raise BytesLost(f"{self.where(key)}: {GONE}")
                content += part
        return bytes(content)

    def hash_object(self, key: str, size: int, algorithm: str) -> Digest:
        """Return the digest of an object, read from the store."""
        hasher = new_hasher(algorithm)
        with self.reader(key, size) as reader:
            for piece in reader:
                hasher.update(piece)
        return Digest(algorithm, hasher.hexdigest())
