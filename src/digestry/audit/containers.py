"""The library's function that audits containers, with sources given by their names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from digestry.advisories.trust import TRUST_EVERYBODY, TrustPolicy
from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.registry_queries import RegistryQueries
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.inventory.observation import Source, Unseen
from digestry.inventory.source_selection import engines_here, nothing_found, parse_source

TIMEOUT: Final = 10.0
"""Seconds that each response of an engine or a registry may take, unless a caller says otherwise."""


def audit_containers(
    sources: Sequence[str] = (),
    *,
    options: ClientOptions | None = None,
    session: Session | None = None,
    names: ImageNames = NO_NAMES,
    trust: TrustPolicy = TRUST_EVERYBODY,
    include_stopped: bool = False,
    timeout: float = TIMEOUT,
) -> AuditReport:
    """Find out which digest every container really runs, and judge each of them.

    ``sources`` are named as ``digestry audit --source`` takes them: ``docker``, ``podman:unix:///…``,
    ``kubernetes``, ``file:PATH``; the default is the engines of this machine. Registries are asked with
    ``options`` (by default without a login), or over a ``session``, which its owner closes. ``names`` are
    other names under which images are known. ``trust`` decides which advisories count, as
    :func:`digestry.advisories.trust_settings.read_trust` reads it. ``include_stopped`` adds the containers
    that do not run. ``timeout`` is in seconds, for each response of an engine or a registry.

    A source or a registry that fails raises nothing: it is one of the report's ``problems``, and the states
    that depend on it are ``unknown``. Only an image that was checked is called fixed or current. Raises
    :class:`~digestry.errors.InvalidConfiguration` for an unknown source.
    """
    found: Sequence[Source] = [
        parse_source(text, include_stopped=include_stopped, timeout=timeout)
        for text in dict.fromkeys(sources)
    ]
    silent: Sequence[Unseen] = ()
    if not found:
        found, silent = engines_here(include_stopped=include_stopped, timeout=timeout)
    if not found:
        return AuditReport((), tuple(silent or (nothing_found(),)))
    with _opened(options, session, timeout) as registries:
        report = audit(found, RegistryQueries(registries, timeout=timeout, trust=trust), names=names)
    return replace(report, problems=(*silent, *report.problems))


@contextlib.contextmanager
def _opened(options: ClientOptions | None, session: Session | None, timeout: float) -> Iterator[Session]:
    """Yield ``session``, or a new session that is closed at the end of the block."""
    if session is not None:
        yield session
        return
    client_options = options or ClientOptions(
        timeout=timeout, patience=timeout, longest_pause=timeout / 4, retries=1
    )
    with Session(client_options) as opened:
        yield opened
