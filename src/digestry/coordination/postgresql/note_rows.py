"""Notes that the nodes of a registry leave each other, in rows."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from digestry.coordination.postgresql.connections import Connections

_READ: Final = text("SELECT content FROM notes WHERE name = :name")
_WRITE: Final = text(
    "INSERT INTO notes (name, content) VALUES (:name, :content)"
    " ON CONFLICT (name) DO UPDATE SET content = excluded.content"
)


class NoteRows:
    """The notes in the table ``notes``."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def read(self, name: str) -> bytes | None:
        """Return a note; see :meth:`Notes.read`."""
        with self._connections.statements() as connection:
            content = connection.execute(_READ, {"name": name}).scalar()
        return None if content is None else bytes(content)

    def write(self, name: str, content: bytes) -> None:
        """Store a note; see :meth:`Notes.write`."""
        with self._connections.statements() as connection:
            connection.execute(_WRITE, {"name": name, "content": content})

    def location(self, name: str) -> str:
        """Return the note's table and name."""
        return f"the note {name} in the table notes"
