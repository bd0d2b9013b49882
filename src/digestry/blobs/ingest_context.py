"""Incoming content as a context manager: the end of the ``with`` block discards or closes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class IngestContext(ABC):
    """An ingest that ends with a ``with`` block: closed if its bytes are to be kept, and aborted if not.

    Both do nothing after a commit.
    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep

    @abstractmethod
    def abort(self) -> None:
        """Discard the bytes."""

    @abstractmethod
    def close(self) -> None:
        """Close the content; its bytes stay."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._keep:
            self.close()
        else:
            self.abort()
