"""``digestry images``: list the images of the local store."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.image_names import LOCAL_IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.output import complain, say
from digestry.cli.row_template import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from digestry.cli.settings import Settings
    from digestry.images.listing import DamagedImage, StoredImage


def _created(row: Row, _: bool) -> str:
    """Return a time to the second; an image's own value need not be a time."""
    text = row["created_at"]
    if not isinstance(text, str):
        return "-"
    fraction = text[19:-1]
    if (
        text[10:11] == "T"
        and text.endswith("Z")
        and (not fraction or (fraction[1:].isdecimal() and fraction[0] == "."))
    ):
        try:
            datetime.datetime.fromisoformat(text[:19])  # as docker and buildkit write it
        except ValueError:
            pass
        else:
            return f"{text[:19]}Z"
    from digestry.model.timestamps import parse

    try:
        return parse(text).first.strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return text


LISTING: Final = Listing(
    "images",
    "The images of the local store, one row for each name.",
    (
        Column("repository", "text", "The name without its tag; <none> for content without a name."),
        Column("tag", "text", "The tag, or null.", nullable=True, nothing="<none>"),
        Column("digest", "digest", "Of the manifest or index.", shown=False, whole=True),
        Column(
            "image_id",
            "id",
            "Digest of the config, or null.",
            nullable=True,
            nothing="<none>",
            aliases=("id",),
        ),
        Column(
            "created_at",
            "time",
            "As the image says it, or null.",
            nullable=True,
            heading="CREATED",
            show=_created,
        ),
        Column("size", "size", "Bytes of the content in the local store, or null.", nullable=True),
        Column("media_type", "text", "Of the manifest or index, or null.", nullable=True, shown=False),
        Column("platforms", "texts", "Those in the local store.", shown=False),
        Column("absent_platforms", "texts", "Those of an index that are not.", shown=False),
        Column("problem", "text", "Why the image is damaged, or null.", nullable=True, shown=False),
    ),
)


@click.command()
@click.argument("reference", metavar="[REF]", required=False, type=LOCAL_IMAGE)
@click.option("--digests", is_flag=True, help="Show the digests.")
@click.option("--quiet", "-q", is_flag=True, help="Print digests only.")
@listing_options(LISTING)
@click.pass_context
def images(ctx: click.Context, *, reference: str | None, digests: bool, quiet: bool, view: View) -> None:
    """List the images of the local store: all, those of a repository, or one.

    An image whose tag has moved is still listed, as <none> with its digest. Exit code 5 if one is damaged.

    JSON: a list of objects with repository, tag, digest, image_id, created_at, size (bytes of content
    that is here), media_type, platforms, absent_platforms, problem (null, or why the image is damaged).
    """
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load
    from digestry.images.listing import DamagedImage, list_images

    settings = load()
    wanted = _filter(settings, reference) if reference is not None else None
    found: list[StoredImage] = []
    broken: list[DamagedImage] = []
    for row in list_images(open_store(settings)):
        if isinstance(row, DamagedImage):
            broken.append(row)
        elif wanted is None or wanted(row):
            found.append(row)
    rows = list(map(_plain, found))
    if quiet and not view.is_json:
        for digest in dict.fromkeys(row["digest"] for row in view.selected(rows)):
            say(str(digest))
    else:
        shown = ("repository", "tag", *(["digest"] if digests else []), "image_id", "created_at", "size")
        view.show([*rows, *(map(_plain_broken, broken) if view.is_json else [])], default=shown)
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


def _plain(image: StoredImage) -> Row:
    return {
        "repository": image.name,
        "tag": image.tag,
        "digest": image.digest,
        "image_id": image.image_id,
        "created_at": image.created,
        "size": image.size,
        "media_type": image.media_type,
        "platforms": image.platforms,
        "absent_platforms": image.absent,
        "problem": None,
    }


def _plain_broken(item: DamagedImage) -> Row:
    nothing = dict.fromkeys(column.key for column in LISTING.columns)
    return {
        **nothing,
        "repository": item.name,
        "digest": item.digest,
        "platforms": (),
        "absent_platforms": (),
        "problem": item.reason,
    }
