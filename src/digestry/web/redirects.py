"""Where a form leads back to: a page of this registry, and nowhere else."""

from __future__ import annotations

import re
from typing import Final

_OWN: Final = re.compile(r"/(?![/\\])[\x21-\x7e]{0,2000}", re.ASCII)


def back(address: str) -> str:
    """Return ``address`` if it is the path of a page here, else the first page's."""
    return address if _OWN.fullmatch(address) and "\\" not in address else "/"
