"""``digestry rm``: delete tags of a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import click

from digestry.cli.confirmation import confirmed
from digestry.cli.image_names import IMAGE
from digestry.cli.output import json_document, json_option, note, printable, say
from digestry.cli.timeout_options import timeout_option
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.cli import documents
    from digestry.client.repository import Repository
    from digestry.client.session import Session
    from digestry.model.digest import Digest
    from digestry.model.reference import Reference

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class _Target:
    """A tag, or a digest, to delete, and the other tags that point to the digest."""

    reference: Reference
    digest: Digest
    other_tags: tuple[str, ...]
    all_known: bool
    indexes: int | None
    referrers: int | None

    @property
    def name(self) -> str:
        return self.reference.familiar


@click.command()
@click.argument("references", metavar="REPO:TAG...", nargs=-1, required=True, type=IMAGE)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--all-tags",
    is_flag=True,
    help="Delete the digest itself, and so every tag that points to it, where a tag cannot be deleted alone.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and what else points there.")
@json_option
@timeout_option
def rm(*, references: tuple[str, ...], yes: bool, all_tags: bool, dry_run: bool, as_json: bool) -> None:
    """Delete tags of a registry, after listing what else points to their digests.

    The digest stays in the registry, without this tag, until garbage collection removes it. Some
    registries can only delete a digest, with all its tags: then --all-tags is required.
    REPO@DIGEST deletes the digest, and requires --all-tags too if tags point to it. Images of the local
    store stay: digestry rmi removes those.

    JSON: a list of objects with name, tag (null for a digest), digest, other_tags, indexes and referrers (the
    number of those that need the digest, or null), deleted (tag, digest, or null).
    """
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference

    settings = load()
    with open_session(settings) as session:
        wanted = [complete_reference(settings, session, text) for text in references]
        for reference in wanted:
            if (reference.tag is None) == (reference.digest is None):
                raise InvalidReference(
                    f"{reference} is not a tag of a registry",
                    hint="write REPO:TAG, or REPO@DIGEST for a digest with all its tags",
                )
        targets = [_look(session, reference) for reference in wanted]
        for target in targets:
            _describe(target)
        _check(targets, all_tags=all_tags)
        if not (dry_run or yes or confirmed(_question(targets))):
            return
        done = [(target, None if dry_run else _delete(session, target, all_tags)) for target in targets]
    if as_json:
        json_document([_document(target, deleted) for target, deleted in done])
        return
    for target, deleted in done:
        if deleted is not None:
            say(printable(f"Deleted: {target.name}" + (f" ({target.digest})" if deleted == "digest" else "")))


def _look(session: Session, reference: Reference) -> _Target:
    from digestry.errors import RemoteError

    remote = session.repository(reference)
    digest = remote.resolve(reference.target).digest
    found = remote.tags_now(digest)
    indexes = referrers = None
    try:
        holders = remote.holders(digest)
        indexes = (
            None
            if holders is None
            else sum(holder.present and holder.digest != digest for holder in holders.holders)
        )
        referrers = len(remote.referrers(digest))
    except RemoteError as error:
        note(printable(f"digestry: what refers to {digest} is not known: {error.message}"))
    others = tuple(tag for tag in found.tags if tag != reference.tag)
    return _Target(reference, digest, others, found.complete and not found.unread, indexes, referrers)


def _describe(target: _Target) -> None:
    note(printable(f"{target.name} is {target.digest}"))
    if target.other_tags:
        note(printable(f"  other tags that point to it: {_listed(target.other_tags)}"))
    elif target.all_known:
        note("  no other tag points to it")
    if not target.all_known:
        note("  what some tags point to is not known")
    if target.indexes:
        listing = "lists it" if target.indexes == 1 else "list it"
        note(f"  {number_of(target.indexes, 'index', 'indexes')} in the repository {listing}")
    if target.referrers:
        referring = "refers to it" if target.referrers == 1 else "refer to it"
        note(f"  {number_of(target.referrers, 'referrer')} (signatures, SBOMs, advisories) {referring}")


def _listed(tags: tuple[str, ...]) -> str:
    more = f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else ""
    return ", ".join(tags[:_SHOWN]) + more


def _check(targets: list[_Target], *, all_tags: bool) -> None:
    """Raise :class:`Conflict` for a digest that tags point to, unless the caller allows that."""
    from digestry.errors import Conflict

    for target in targets:
        if target.reference.tag is None and not all_tags and (target.other_tags or not target.all_known):
            raise Conflict(
                f"{target.name}: deleting the digest deletes its tags too: "
                f"{_listed(target.other_tags) or 'not all are known'}",
                hint="nothing was deleted; --all-tags does that",
            )


def _question(targets: list[_Target]) -> str:
    names = targets[0].name if len(targets) == 1 else f"these {len(targets)}"
    return f"Delete {names}?"


def _delete(session: Session, target: _Target, all_tags: bool) -> Literal["tag", "digest"]:
    """Delete a tag, or its digest, and return which. Raises :class:`Conflict` without ``all_tags``."""
    from digestry.errors import Conflict

    remote = session.repository(target.reference)
    tag = target.reference.tag
    if tag is None:
        remote.delete(str(target.digest))
        return "digest"
    if remote.delete_tag(tag):
        _check_others(remote, target)
        return "tag"
    if not all_tags:
        others = _listed(target.other_tags) or ("none" if target.all_known else "not all are known")
        raise Conflict(
            f"{target.reference.host} cannot delete a tag alone, only a digest with all its tags; "
            f"{target.digest} has, beside {tag}, these: {others}",
            hint="nothing was deleted; --all-tags deletes the digest and all of them",
        )
    remote.delete(str(target.digest))
    return "digest"


def _check_others(remote: Repository, target: _Target) -> None:
    """Raise :class:`ProtocolViolation` if the registry deleted more than the tag."""
    from digestry.errors import ProtocolViolation, RemoteNotFound

    if not target.other_tags:
        return
    try:
        remote.resolve(target.other_tags[0])
    except RemoteNotFound as error:
        raise ProtocolViolation(
            f"{target.reference.host} was asked to delete the tag {target.reference.tag} alone, and deleted "
            f"{target.digest} with all its tags: {_listed(target.other_tags)}",
            hint="push the image again by a copy of it, under these tags",
        ) from error


def _document(target: _Target, deleted: Literal["tag", "digest"] | None) -> documents.DeletedTag:
    from digestry.cli import documents

    return documents.DeletedTag(
        name=str(target.reference),
        tag=target.reference.tag,
        digest=target.digest,
        other_tags=target.other_tags,
        indexes=target.indexes,
        referrers=target.referrers,
        deleted=deleted,
    )
