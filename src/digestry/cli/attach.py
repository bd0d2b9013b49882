"""``digestry attach``: attach an artifact, such as an SBOM or a signature, to an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli.annotation_options import annotation_option, annotations_of
from digestry.cli.blob import file_as_blob
from digestry.cli.image_location import platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import json_document, json_option, note, say
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from digestry.model.descriptor import Descriptor

_BYTES: Final = "application/octet-stream"
_TITLE: Final = "org.opencontainers.image.title"
_EMPTY: Final = b"{}"


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.argument("files", metavar="FILE[:TYPE]...", nargs=-1)
@click.option("--artifact-type", required=True, metavar="TYPE", help="What it is, as a media type.")
@annotation_option
@platform_option
@json_option
@transfer_timeout_option
def attach(
    *,
    reference: str,
    files: tuple[str, ...],
    artifact_type: str,
    annotation: tuple[str, ...],
    platform: str | None,
    as_json: bool,
) -> None:
    """Attach an artifact of files to an image, and print the artifact's digest.

    REF, the subject, is REPO:TAG or REPO@DIGEST; with --platform, that image of an index. TYPE is the media
    type of a file; application/octet-stream without one. The image and its digest stay as they are.
    `digestry referrers` lists what is attached. The same files make the same digest.

    JSON: an object with digest, subject, artifact_type, files (a list of name, digest, size, media_type).
    """
    from digestry.cli.image_location import locate
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidConfiguration
    from digestry.images.store import plain_descriptor
    from digestry.model import manifest_editing, media_types
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest
    from digestry.model.platform import Platform

    settings = load()
    notes = annotations_of(annotation)
    _check_type(artifact_type)
    if not files and not notes:
        raise InvalidConfiguration("nothing to attach", hint="name a file, or give an --annotation")
    place = Platform.chosen(platform) if platform else None
    layers = [_layer(text) for text in files]
    empty = Descriptor(media_types.OCI_EMPTY, Digest.of(_EMPTY), len(_EMPTY), data=_EMPTY)
    with open_session(settings) as session:
        found = locate(settings, session, reference, local=False)
        subject = found.manifest if place is None else found.child(place)
        assert found.reference is not None  # noqa: S101 - a registry's has a name
        repository = session.repository(found.reference)
        repository.push_blob(empty, lambda: _opened(_EMPTY))
        for layer, source in layers:
            repository.push_blob(plain_descriptor(layer), source)
        raw = manifest_editing.new_artifact(
            artifact_type,
            # image-spec, manifest.md: an artifact has one layer at least.
            [layer for layer, _ in layers] or [empty],
            config=empty,
            subject=subject.descriptor(),
            annotations=notes,
        )
        digest = repository.push_manifest(raw, media_types.OCI_MANIFEST)
    if as_json:
        from digestry.cli import documents

        attached = [
            documents.AttachedFile(
                (layer.annotations or {}).get(_TITLE), layer.digest, layer.size, layer.media_type
            )
            for layer, _ in layers
        ]
        json_document(documents.Attach(digest, subject.digest, artifact_type, attached))
        return
    note(f"attached to {found.reference.repository_only().with_digest(subject.digest)}")
    say(str(digest))


def _check_type(media_type: str) -> None:
    """Raise :class:`click.UsageError` for text that is not a media type (RFC 6838, section 4.2)."""
    import re

    name = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
    if not re.fullmatch(rf"{name}/{name}", media_type, re.ASCII):
        raise click.UsageError(f"{media_type!r} is not a media type, such as application/spdx+json.")


def _layer(text: str) -> tuple[Descriptor, Callable[[], BinaryIO]]:
    """Return the layer for ``FILE[:TYPE]``. Raises :class:`click.UsageError` for a file that is not there."""
    import msgspec

    path, media_type = Path(text), _BYTES
    if not path.exists():
        name, colon, kind = text.rpartition(":")
        if colon and "/" in kind and Path(name).exists():
            _check_type(kind)
            path, media_type = Path(name), kind
    if not path.is_file():
        raise click.UsageError(f"There is no file {text!r}.")
    descriptor, source = file_as_blob(path, media_type)
    return msgspec.structs.replace(descriptor, annotations={_TITLE: path.name}), source


def _opened(content: bytes) -> BinaryIO:
    import io

    return io.BytesIO(content)
