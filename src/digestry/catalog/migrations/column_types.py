"""The types of columns that differ between databases, for the migrations."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

IDENTITY: Final[TypeEngine[int]] = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A row's number. SQLite makes only an INTEGER primary key its rowid."""

TEXT: Final[TypeEngine[str]] = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""A text that is compared and ordered by its bytes."""
