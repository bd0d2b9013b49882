"""How much of a store's content is read into memory at once."""

from __future__ import annotations

from typing import Final

SMALL: Final = 32 << 20
"""Bytes that :meth:`BlobReader.read` takes into memory by default."""
