"""The look-ups of a push of a manifest, which share a round trip where each costs one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection, Executable

from digestry.catalog import dialect, manifest_rows, push_statements
from digestry.catalog.tag_moves import RepositoryKey
from digestry.model.manifest import Manifest


def send(
    connection: Connection,
    key: RepositoryKey,
    manifest: Manifest,
    tag_names: Sequence[str],
    *,
    sparse: bool,
    moves: bool,
) -> None:
    """Send the queries that decide whether the manifest may be put under its tags; with ``moves``, also those
    that put it there.

    With ``moves`` the repository is locked: the answers stay true until the transaction ends.
    """
    dialect.of(connection).send_ahead(
        connection, _asked(key, manifest, tag_names, sparse=sparse, moves=moves)
    )


def _asked(
    key: RepositoryKey, manifest: Manifest, tag_names: Sequence[str], *, sparse: bool, moves: bool
) -> Iterator[tuple[Executable, Mapping[str, object]]]:
    yield from manifest_rows.asked(key.row, manifest, sparse=sparse)
    for name in dict.fromkeys(tag_names):
        yield push_statements.POINTED, {"repository": key.row, "tag": name}
    if moves:
        yield push_statements.MANIFEST, {"repository": key.row, "digest": str(manifest.digest)}
        if tag_names:
            yield push_statements.LAST_ENTRY, {"repository": key.name}
            yield push_statements.OBSERVED, {"repository": key.name}
