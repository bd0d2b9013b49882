"""Reading content of a store into memory, up to a limit."""

from __future__ import annotations

import os
from typing import Final

SMALL: Final = 32 << 20
"""Bytes that :meth:`BlobReader.read` takes into memory by default."""
_FURTHER: Final = 1 << 20
"""Bytes that are read at once of a file that turned out longer than it was."""


def read_up_to(descriptor: int, most: int, size: int) -> bytes:
    """Return the first ``most`` bytes of an open file, or all if it has fewer. It had ``size`` bytes."""
    # As much as is asked for is allocated first: of a small file, not the largest that would be read.
    content = os.read(descriptor, min(most, size + 1))
    if len(content) in {most, size, 0}:  # one byte more was asked for: there is none
        return content
    parts = [content]  # a read may return less than there is
    left = most - len(content)
    while left and (part := os.read(descriptor, min(left, _FURTHER))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
