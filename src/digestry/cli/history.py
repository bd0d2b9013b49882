"""``digestry history``: list the steps that an image was built in, with their layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from digestry.cli.image_location import platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.listing import Column, Listing, View, listing_options
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from digestry.model.image_config import ImageConfig
    from digestry.model.manifest import Image

_LONGEST: Final = 45

LISTING: Final = Listing(
    "history",
    "The steps of an image's build, the newest first.",
    (
        Column("digest", "digest", "Of the step's layer; null if it made none.", nullable=True),
        Column("created_at", "time", "When, as the image says it, or null.", nullable=True),
        Column("created_by", "text", "The command, or null.", nullable=True, longest=_LONGEST),
        Column("size", "size", "Bytes of the layer as it is kept; 0 without a layer."),
        Column("comment", "text", "What the builder noted, or null.", nullable=True, shown=False),
        Column("media_type", "text", "Of the layer, or null.", nullable=True, shown=False),
        Column("diff_id", "digest", "Of the layer's archive, or null.", nullable=True, shown=False),
    ),
)


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@platform_option
@click.option("--remote", is_flag=True, help="Ask the registry, even if it is in the local store.")
@listing_options(LISTING)
@timeout_option
def history(*, reference: str, platform: str | None, remote: bool, view: View) -> None:
    """List the steps of an image's build, newest first: of the local store, else of its registry.

    A table cuts long commands; --no-trunc shows all. `digestry log` lists where a tag has pointed.

    JSON: a list of objects with digest (of the layer; null if the step made none), created_at, created_by,
    size (bytes of the layer as it is kept), comment, media_type, diff_id.
    """
    from digestry.cli.image_location import locate_anywhere
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidManifest, NotFound, ProtocolViolation
    from digestry.model import media_types
    from digestry.model.image_config import ImageConfig
    from digestry.model.manifest import Image
    from digestry.model.platform import Platform

    settings = load()
    place = Platform.chosen(platform) if platform else Platform.of_host()
    with open_session(settings) as session:
        found = locate_anywhere(settings, session, reference, remote=remote)
        image = found.manifest if isinstance(found.manifest, Image) else found.child(place)
        if image.config.media_type not in media_types.IMAGE_CONFIGS:
            raise NotFound(f"{found.name} is an artifact ({image.artifact_type}), which has no history")
        try:
            raw = found.read_blob(image.config)
            config = ImageConfig.parse(raw, algorithm=image.config.digest.algorithm)
        except InvalidManifest as error:
            raise ProtocolViolation(f"{found.name}: {error.message}") from error
    view.show(_rows(image, config))


def _rows(image: Image, config: ImageConfig) -> list[dict[str, object]]:
    """Return a row for each step, and for each layer that no step names."""
    layers = list(image.layers)
    diff_ids = [*config.diff_ids, *[None] * len(layers)][: len(layers)]
    left = list(zip(layers, diff_ids, strict=True))
    rows: list[dict[str, object]] = []
    for step in config.history:
        layer, diff_id = (None, None) if step.empty_layer or not left else left.pop(0)
        rows.append({
            "digest": layer.digest if layer else None,
            "created_at": step.created,
            "created_by": step.created_by,
            "size": layer.size if layer else 0,
            "comment": step.comment or None,
            "media_type": layer.media_type if layer else None,
            "diff_id": diff_id,
        })  # fmt: skip
    for layer, diff_id in left:
        rows.append({
            "digest": layer.digest,
            "created_at": None,
            "created_by": None,
            "size": layer.size,
            "comment": None,
            "media_type": layer.media_type,
            "diff_id": diff_id,
        })  # fmt: skip
    return rows[::-1]
