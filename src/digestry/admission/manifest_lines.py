"""The lines of a manifest's fields, for messages about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class DocumentLines:
    """The lines of one object: ``node`` is the composed document, ``prefix`` the path of the object in it.

    Any: the library's nodes have no types.
    """

    node: Any
    prefix: str = ""

    def inside(self, path: str) -> DocumentLines:
        """Return the lines of what is at ``path`` in this."""
        return DocumentLines(self.node, f"{self.prefix}.{path}".lstrip("."))

    def line(self, field: str = "") -> int:
        """Return the line of ``field``, such as ``spec.containers[0].image``, or of what it should be in."""
        node, line = self.node, self.node.start_mark.line + 1
        for step in _STEP.finditer(f"{self.prefix}.{field}"):
            found = _item(node, int(step[1])) if step[1] is not None else _value(node, step[2])
            if found is None:
                break
            node, line = found
        return int(line)


def _item(node: Any, position: int) -> tuple[Any, int] | None:
    if node.id != "sequence" or position >= len(node.value):
        return None
    item = node.value[position]
    return item, item.start_mark.line + 1


def _value(node: Any, name: str, depth: int = 0) -> tuple[Any, int] | None:
    """Return the value of a key, also of one that was merged (``<<``), and the key's line."""
    if node.id != "mapping":
        return None
    for key, value in node.value:
        if str(key.value) == name:
            return value, key.start_mark.line + 1
    for key, value in node.value if depth < 8 else ():
        if str(key.value) == "<<":
            for one in value.value if value.id == "sequence" else [value]:
                found = _value(one, name, depth + 1)
                if found is not None:
                    return found
    return None
