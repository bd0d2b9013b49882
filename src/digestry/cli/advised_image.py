"""The image that an advisory is about: found in its registry, with what is stated about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli.digest_completion import complete_reference
from digestry.cli.output import complain, note, printable
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.advisories.advisory import AdvisoryReading
    from digestry.advisories.attestation_forms import Signing
    from digestry.advisories.publish import TargetImage
    from digestry.advisories.statements import Status
    from digestry.advisories.trust import TrustPolicy
    from digestry.cli.settings import Settings
    from digestry.client.session import Session
    from digestry.model.reference import Reference


def find_target(settings: Settings, session: Session, image: str) -> TargetImage:
    """Return the image, layer or config that a name means in its registry, and print the digest of a tag."""
    from digestry.advisories.subjects import find_subject

    target = find_subject(
        session, complete_reference(settings, session, image), hint="check the name and the tag"
    )
    show_resolved(target)
    return target


def show_resolved(target: TargetImage) -> None:
    """Print which digest a tag points to, and that something is a layer or a config."""
    if target.part is not None:
        note(
            printable(
                f"digestry: {target.digest} is a {target.part}: what is stated is of every image with it"
            )
        )
    if target.tag is not None:
        note(printable(f"digestry: {target.image.name}:{target.tag} is {target.digest}"))


def show_objection(trust: TrustPolicy, status: Status, image: Reference, signing: Signing | None) -> None:
    """Print why a statement that was just attached does not count by the settings here, if it does not."""
    from digestry.advisories.signatures import UNSIGNED

    repository, signature = image.repository_only(), UNSIGNED
    if signing is not None and trust.signers:
        signature = trust.identify(b"", [signing.key.sign(b"")], repository)
    objection = trust.objection(signature, status, repository)
    if objection:
        note(printable(f"digestry: by the settings here this does not count: {objection}"))


def read_target(reference: str, *, with_parts: bool = False) -> tuple[TargetImage, AdvisoryReading]:
    """Return the image that a name means in its registry, and what is attached to it; ``with_parts`` also
    what counts for it of what is stated about its layers and config."""
    from digestry.advisories.attachments import read_advisories
    from digestry.audit.image_advisories import ImageAdvisories
    from digestry.audit.registry_queries import RegistryQueries
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.model import media_types

    settings = load()
    with open_session(settings) as session:
        target = find_target(settings, session, reference)
        is_index = target.descriptor.media_type in media_types.INDEXES
        queries = RegistryQueries(session, timeout=60, trust=settings.trust())
        repository, indexes = target.image.repository_only(), frozenset({target.digest} if is_index else ())
        own = read_advisories(queries, repository, [target.digest], indexes=indexes)
        if is_index or target.part is not None:
            return target, own
        whole = ImageAdvisories(queries).read(repository, frozenset({target.digest}))
        _show_parts(whole)
        return target, whole if with_parts else own


def _show_parts(reading: AdvisoryReading) -> None:
    """Print on which layers of an image something is stated that is in force for the image, too."""
    counts: dict[str, int] = {}
    for advisory in reading.current():
        if advisory.part is not None:
            name = f"{advisory.part.kind} {advisory.repository.name}@{advisory.part.digest}"
            counts[name] = counts.get(name, 0) + 1
    for name, count in counts.items():
        verb = "counts" if count == 1 else "count"
        note(printable(f"digestry: {number_of(count, 'statement')} about its {name} {verb} for it, too"))


def finish(reading: AdvisoryReading) -> None:
    """Print the reasons of a reading, and end with 3 if not every advisory could be read."""
    from digestry.cli import exit_codes

    for reason in dict.fromkeys(reading.reasons):  # a manifest has several documents
        note(printable(f"digestry: {reason}"))
    if not reading.complete:
        complain("not every advisory could be read")
        raise click.exceptions.Exit(exit_codes.REMOTE)


def somebody() -> str:
    """Return the user and the host, as the author of statements."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
