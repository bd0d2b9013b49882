"""What is raised where rows of the log are missing, or cannot be what was signed."""

from __future__ import annotations

from typing import Final

from digestry.errors import StorageError

RESTORE: Final = "restore the catalog from a backup (docs/transparency.md)"


class LogDamaged(StorageError):
    """Rows of the log in the catalog are missing or changed: nothing can be signed over them."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=RESTORE)
