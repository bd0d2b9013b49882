"""What failures left behind in a registry's stores, once the time for which it may be there is over."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from digestry.blobs.s3.client import S3Client
from digestry.blobs.s3.config import parse_s3_url
from digestry.blobs.s3.credentials import FixedCredentials
from digestry.blobs.s3.removal import ObjectRemoval
from digestry.catalog.postgresql.address import parse_address
from digestry.catalog.postgresql.store import PostgresqlStore
from digestry.catalog.schema import uploads
from digestry.catalog.stored_objects import StoredObjects
from tests import seaweed
from tests.cluster.nodes import Nodes


class Remains:
    """The stores of a registry, as they are behind its nodes."""

    def __init__(self, nodes: Nodes) -> None:
        self._database = PostgresqlStore(parse_address(nodes.database)).open()
        self._rows = StoredObjects(self._database)
        self._config = parse_s3_url(nodes.blobs, {}, endpoint=nodes.endpoint)
        self._client = S3Client(self._config, FixedCredentials(seaweed.credentials()))

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def uploads(self) -> list[str]:
        """Return the uploads that the catalog, the store's rows and the store itself still have."""
        with self._database.read() as connection:
            known = connection.execute(select(uploads.c.id)).scalars().all()
        prefix = self._config.objects_prefix
        return [
            *(f"upload {name}" for name in known),
            *(f"ingest {name}" for name in self._rows.ingests()),
            *(f"multipart upload of {upload.key}" for upload in self._client.uploads(prefix)),
        ]

    def unnamed_objects(self) -> list[str]:
        """Return the keys of objects that no row names."""
        keys = [found.key for found in self._client.objects(self._config.objects_prefix)]
        named = self._rows.named(keys)
        return [key for key in keys if key not in named]

    def remove_orphans(self) -> int:
        """Remove what a day later would be removed. Nobody may push meanwhile."""
        return ObjectRemoval(replace(self._config, grace=0.0), self._client, self._rows).remove_orphans()
