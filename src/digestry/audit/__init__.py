"""The audit of containers: which digest each really runs, and whether it is vulnerable.

:func:`audit_containers` returns an :class:`AuditReport`, which has a :class:`ContainerFinding` for
each container. Inside, ``registry_queries`` asks the registries, ``fact_finding`` gathers the facts of an
image, ``judge`` decides, and ``reports`` writes the findings out.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from digestry.audit.containers import audit_containers
    from digestry.audit.findings import AuditReport, ContainerFinding
    from digestry.inventory.observation import Unseen

__all__ = ["AuditReport", "ContainerFinding", "Unseen", "audit_containers"]

_MODULES: Final = {
    "AuditReport": "digestry.audit.findings",
    "ContainerFinding": "digestry.audit.findings",
    "Unseen": "digestry.inventory.observation",
    "audit_containers": "digestry.audit.containers",
}
"""The module of each public name."""


if not TYPE_CHECKING:  # a type checker must know the names, and no others

    def __getattr__(name: str) -> object:
        """Return a public name, loaded now (PEP 562). Raises :class:`AttributeError` for any other."""
        if name not in _MODULES:
            raise AttributeError(f"module 'digestry.audit' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
