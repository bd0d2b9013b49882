"""Completion of a digest that is given by its beginning, in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from digestry.cli.output import note
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.digest import Digest
    from digestry.model.digest_prefix import DigestPrefix


def complete_reference(settings: Settings, session: Session, text: str) -> Reference:
    """Return the reference of ``text``, with the whole digest; print a completed digest.

    No request is sent unless the digest is short. Raises :class:`InvalidReference`, :class:`NotFound`,
    :class:`Ambiguous`, and as :class:`Repository` does.
    """
    if "@" not in text:
        return settings.reference(text)
    from digestry.model.digest_prefix import DigestPrefix

    prefix = DigestPrefix.of_name(text)
    assert prefix is not None  # noqa: S101 - it has an "@"
    named = settings.reference(text.partition("@")[0])
    return Reference(named.host, named.repository, named.tag, complete_digest(session, named, prefix))


def complete_digest(session: Session, repository: Reference, prefix: DigestPrefix) -> Digest:
    """Return the repository's one digest that begins so. Raises as :func:`complete_reference` does."""
    digest = session.repository(repository).find_digest(prefix)
    if str(prefix) != str(digest):
        note(f"{prefix} is {digest}")
    return digest
