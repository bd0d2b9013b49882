"""The policy file while the webhook runs: read again when it changes, and kept as it was if it is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from digestry.admission.configuration import AdmissionConfiguration, parse, read
from digestry.errors import InvalidConfiguration

log: Final = logging.getLogger("digestry.admission")

SECONDS: Final = 1.0
"""How often the file is looked at."""


class PolicyWatch:
    """The configuration in force, from ``path``. ``changed`` is called with each new one, and ``failed`` when
    a changed file cannot be used."""

    def __init__(
        self,
        path: Path,
        changed: Callable[[AdmissionConfiguration], None],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Read the file. Raises :class:`InvalidConfiguration`."""
        self._path = path
        self._changed = changed
        self._failed = failed
        self._content = read(path)
        self.current = parse(self._content, path)
        self._last_error = ""

    def reload(self, *, asked: bool = False) -> bool:
        """Read the file if its content changed, and return whether a new configuration is in force.

        ``asked`` is whether somebody asked for it (SIGHUP), and is told even if nothing changed.
        """
        try:
            # By content: a ConfigMap is a link that is replaced, and its times mean nothing.
            content = read(self._path)
            if content == self._content:
                self._unchanged(asked)
                return False
            found = parse(content, self._path)
        except InvalidConfiguration as error:
            if asked or error.message != self._last_error:
                hint = f" ({error.hint})" if error.hint else ""
                log.error("%s%s: THE POLICY BEFORE STAYS IN FORCE", error.message, hint)
                self._failed()
            self._last_error = error.message
            return False
        self._last_error = ""
        self._content = content
        for name in ("listen", "metrics", "certificate", "fleet"):
            if getattr(found, name) != getattr(self.current, name):
                log.warning("%s: %s changed, which takes effect at the next start alone", self._path, name)
        self.current = replace(
            found,
            listen=self.current.listen,
            metrics=self.current.metrics,
            certificate=self.current.certificate,
            fleet=self.current.fleet,
        )
        log.info("%s was read: %s", self._path, _summary(self.current))
        self._changed(self.current)
        return True

    def _unchanged(self, asked: bool) -> None:
        if self._last_error:
            log.info("%s is again what is in force", self._path)
            self._last_error = ""
            self._changed(self.current)
        elif asked:
            log.info("%s is unchanged", self._path)


def _summary(configuration: AdmissionConfiguration) -> str:
    policy = configuration.policy
    return (
        f"mode {policy.mode}, {len(policy.rules)} rules and the default,"
        f" {len(policy.exemptions)} exemptions, registries {', '.join(policy.registries)}"
    )
