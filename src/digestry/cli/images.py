"""``digestry images``: list the images of the local store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from digestry.cli import exit_codes
from digestry.cli.output import complain, format_option, human_size, json_document, say, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from digestry.cli.settings import Settings
    from digestry.images.listing import DamagedImage, StoredImage


@click.command()
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--digests", is_flag=True, help="Show the digests.")
@click.option("--no-trunc", is_flag=True, help="Show image IDs in full.")
@click.option("--quiet", "-q", is_flag=True, help="Print digests only.")
@format_option
@click.pass_context
def images(
    ctx: click.Context, *, reference: str | None, digests: bool, no_trunc: bool, quiet: bool, format_: str
) -> None:
    """List the images of the local store: all, those of a repository, or one.

    An image whose tag has moved on stays, as <none> with its digest. Exit code 5 if one is damaged.

    JSON: a list of objects with repository, tag, digest, image_id, created, size (bytes of content
    that is here), media_type, platforms, absent_platforms; for a damaged image name, digest, problem.
    """
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.images.listing import DamagedImage, list_images

    settings = load()
    wanted = _filter(settings, reference) if reference is not None else None
    rows = list_images(open_store(settings))
    found: list[StoredImage] = []
    broken: list[DamagedImage] = []
    for row in rows:
        if isinstance(row, DamagedImage):
            broken.append(row)
        elif wanted is None or wanted(row):
            found.append(row)
    if format_ == "json":
        json_document([*map(_plain, found), *map(_plain_broken, broken)])
    elif quiet:
        for digest in dict.fromkeys(image.digest for image in found):
            say(str(digest))
    else:
        headings = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]
        table(headings, [_cells(image, digests, no_trunc) for image in found])
    for item in broken:
        complain(
            f"{item.name} ({item.digest}) is damaged: {item.reason}",
            "pull it again, or remove it with digestry rmi",
        )
    if broken:
        ctx.exit(exit_codes.CONTENT)


def _filter(settings: Settings, text: str) -> Callable[[StoredImage], bool]:
    """Return a test of the images that ``text`` means.

    That is a name as it is listed, a repository, one of its images, a digest or an image ID.
    """
    from digestry.errors import InvalidReference
    from digestry.model.digest_prefix import DigestPrefix
    from digestry.model.reference import Reference

    name, at, _ = text.partition("@")
    prefix = DigestPrefix.of_name(text) if at else DigestPrefix.read(text)
    named: Reference | None
    try:
        named = settings.reference(name if prefix is not None and at else text)
    except InvalidReference:
        if prefix is None or at:
            raise
        named = None

    def is_of(image: StoredImage) -> bool:
        begins = prefix is not None and any(
            prefix.begins(digest) for digest in (image.digest, image.image_id) if digest is not None
        )
        of_name = named is not None and image.name == named.name and named.tag in {None, image.tag}
        if at:
            whole = named is not None and named.digest == image.digest
            return of_name and (whole or begins)
        return of_name or begins or (image.tag is None and image.name == text)

    return is_of


def _cells(image: StoredImage, digests: bool, no_trunc: bool) -> list[str]:
    identity = "<none>"
    if image.image_id is not None:
        identity = str(image.image_id) if no_trunc else image.image_id.short
    return [
        image.name,
        image.tag or "<none>",
        *([str(image.digest)] if digests else []),
        identity,
        _created(image.created),
        human_size(image.size),
    ]


def _created(text: str | None) -> str:
    """Return a time to the second; what an image says of itself need not be a time."""
    from digestry.model.timestamps import parse

    try:
        return parse(text).first.strftime("%Y-%m-%dT%H:%M:%SZ") if text else "-"
    except ValueError:
        return text or "-"


def _plain(image: StoredImage) -> dict[str, object]:
    return {
        "repository": image.name,
        "tag": image.tag,
        "digest": image.digest,
        "image_id": image.image_id,
        "created": image.created,
        "size": image.size,
        "media_type": image.media_type,
        "platforms": image.platforms,
        "absent_platforms": image.absent,
    }


def _plain_broken(item: DamagedImage) -> dict[str, object]:
    return {"name": item.name, "digest": item.digest, "problem": item.reason}
