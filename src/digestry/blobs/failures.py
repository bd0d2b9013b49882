"""The errors of a blob store about single pieces of its content."""

from __future__ import annotations

from digestry.errors import StorageError


class BytesLost(StorageError):
    """The store has the content but can no longer read its bytes: they are damaged or unreadable."""


class Unreadable(StorageError):
    """The store cannot look at one piece of content now; whether that is whole is not known."""
