"""The cookies of the pages: their names."""

from __future__ import annotations

from typing import Final

THEME: Final = "digestry-theme"
"""The theme that a visitor chose. The script sets it as well."""
THEMES: Final = frozenset(("light", "dark"))
