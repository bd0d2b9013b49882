"""The images of a registry that have a layer or a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from digestry.advisories.publish import TargetImage
    from digestry.client.session import Session
    from digestry.model.reference import Reference

MOST_IMAGES: Final = 20
"""Images that are named."""


def images_with(session: Session, part: TargetImage) -> list[Reference]:
    """Return some images that have ``part``, those with the fewest layers first: of all repositories that the
    user may see, or, if the registry cannot say that, of its own. Empty if it cannot say that either."""
    from digestry.errors import RemoteError
    from digestry.model.reference import Reference

    host = part.image.host
    if part.part == "config":
        holders = session.repository(part.image).holders(part.digest)
        found = holders.holders if holders is not None else ()
        return [part.image.with_digest(one.digest) for one in found if one.config == part.digest][
            :MOST_IMAGES
        ]
    try:
        images = session.registry(host).images_with_layer(part.digest, limit=MOST_IMAGES)
    except RemoteError:
        images = None  # a user who may not list repositories
    if images is None:
        images = session.repository(part.image).images_with_layer(part.digest, limit=MOST_IMAGES)
    return [
        Reference(host, image.repository, image.tag or None, (image.tag and image.tag_digest) or image.digest)
        for image in (images.images if images is not None else ())
    ]


def made_by(session: Session, part: TargetImage, images: Sequence[Reference]) -> str | None:
    """Return the step of a build that made a layer, by the config of the first of ``images`` that has it."""
    from digestry.audit.part_advisories import step_of
    from digestry.audit.registry_queries import RegistryQueries
    from digestry.errors import DigestryError

    if part.part != "layer":
        return None
    queries = RegistryQueries(session)
    for image in images:
        try:
            step = step_of(queries, image, part.digest)
        except DigestryError:
            continue
        if step:
            return step
    return None
