"""The metadata that every table of the catalog belongs to, and the types of its columns."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Integer, MetaData, Text
from sqlalchemy.types import TypeEngine

metadata: Final = MetaData()

IDENTITY: Final[TypeEngine[int]] = BigInteger().with_variant(Integer(), "sqlite")
"""A row's number. SQLite makes only an INTEGER primary key its rowid."""

TEXT: Final[TypeEngine[str]] = Text().with_variant(Text(collation="C"), "postgresql")
"""Text, compared and ordered by its bytes in every database, as SQLite does by default."""
