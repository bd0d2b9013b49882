"""The version of digestry, as `digestry version` prints it."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
