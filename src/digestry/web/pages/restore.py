"""Pointing a tag back at a digest that it had: a page that says what will happen, and its form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from digestry.catalog import clock
from digestry.errors import Conflict, Forbidden, NotFound
from digestry.model.digest import Digest
from digestry.web import templates
from digestry.web.page import Page
from digestry.web.visit import SignInNeeded, Visit


@dataclass(frozen=True, slots=True)
class RestoreView:
    """What the page shows: the tag points to ``before`` now, None if it is deleted; it will point to
    ``digest``, which it came to last at the time ``had_at``. ``who`` and ``address`` go into the journal."""

    name: str
    tag: str
    before: Digest | None
    digest: Digest
    had_at: int
    who: str
    address: str


def show(visit: Visit) -> Page:
    """Show what the restoration to the digest ``to`` will do.

    Raises :class:`Forbidden`, :class:`Conflict`, :class:`NotFound`, :class:`InvalidDigest`.
    """
    name, tag = _target(visit)
    digest = Digest.parse(visit.parameter("to"))
    entries = visit.catalog.journal(name, tag=tag, limit=1)
    came = visit.catalog.journal(name, tag=tag, digest=str(digest), limit=1)
    if not came:
        raise NotFound(f"the tag {tag} of {name} never pointed to {digest}")
    if visit.catalog.manifest(name, digest) is None:
        raise NotFound(f"{name} no longer has {digest}", hint="push that image again, by its digest")
    view = RestoreView(
        name,
        tag,
        entries[0].to_digest,
        digest,
        clock.from_datetime(came[0].at),
        visit.visitor.identity.name,
        visit.host.address(visit.scope),
    )
    return Page("restore.html", f"Restore {name}:{tag}", view, section="/", has_form=True)


async def restore(visit: Visit, fields: Mapping[str, str]) -> Response:
    """Point the tag to the digest of the form, if it still points to what the page said; then show it."""
    name, tag = _target(visit)
    before = fields.get("before", "")
    await visit.host.restore_tag(
        visit.scope,
        name,
        tag,
        Digest.parse(fields.get("to", "")),
        before=Digest.parse(before) if before else None,
    )
    return RedirectResponse(templates.address(f"/r/{name}:{tag}"), 303)


def _target(visit: Visit) -> tuple[str, str]:
    """Return the repository and the tag. Raises :class:`Forbidden` for visitors who may not push, and
    :class:`Conflict` where nobody may."""
    name = visit.repository()
    if "push" not in visit.visitor.allowed(name):
        if visit.visitor.identity.anonymous and visit.host.has_logins:
            raise SignInNeeded
        raise Forbidden(f"you may not move tags of {name}")
    reason = visit.host.immovable(name)
    if reason:
        raise Conflict(f"tags of {name} cannot be moved here: {reason}")
    return name, visit.path["tag"]
