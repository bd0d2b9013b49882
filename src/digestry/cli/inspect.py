"""``digestry inspect``: show an image's manifest and config."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click
import msgspec

from digestry.cli.image_names import IMAGE
from digestry.cli.output import human_size, json_document, printable, say
from digestry.cli.row_template import Format, Row, RowTemplate, text_of
from digestry.cli.timeout_options import timeout_option
from digestry.model.digest import Digest

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.repository import Repository
    from digestry.client.session import Session
    from digestry.model.image_config import ImageConfig
    from digestry.model.manifest import Image, Index, Manifest
    from digestry.model.platform import Platform


class _Child(msgspec.Struct, frozen=True):
    digest: Digest
    media_type: str
    size: int
    platform: str | None


class _Layer(msgspec.Struct, frozen=True):
    digest: Digest
    media_type: str
    size: int
    made_by: str | None


class _Part(msgspec.Struct, frozen=True):
    """A layer or config: ``base`` is the image that a layer came with, ``images`` some that have it."""

    kind: str
    base: str | None
    made_by: str | None
    images: Sequence[str]


class _Image(msgspec.Struct, frozen=True):
    digest: Digest
    image_id: Digest | None
    platform: str | None
    created_at: str | None
    config: Mapping[str, object] | None
    layers: Sequence[_Layer]


class Document(msgspec.Struct, frozen=True):
    """The output of the command; the fields are the JSON's keys."""

    name: str
    digest: Digest
    media_type: str
    size: int
    source: str
    annotations: Mapping[str, str]
    manifests: Sequence[_Child]
    image: _Image | None
    part: _Part | None


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option(
    "--platform", metavar="OS/ARCH", help="The image of an index to show.  [default: this machine's]"
)
@click.option("--remote", is_flag=True, help="Ask the registry, even if it is in the local store.")
@click.option("--raw", is_flag=True, help="The exact bytes of the manifest or index, and nothing else.")
@click.option(
    "--format",
    "format_",
    type=Format("text"),
    default="text",
    metavar="FORMAT",
    help="text, json, or a template: '{{.Digest}}', '{{json .Config.Env}}'.  [default: text]",
)
@timeout_option
def inspect(*, reference: str, platform: str | None, remote: bool, raw: bool, format_: str) -> None:
    """Show an image's manifest and config: from the local store, else from its registry.

    REF is a name as `images` lists it, NAME@DIGEST, or a digest or an image ID of the local store. The
    first 7 or more digits of a digest or an ID are enough. NAME@DIGEST may be a layer or a config in the
    registry.

    JSON: an object with name, digest, media_type, size, source (local, registry), annotations; manifests (of
    an index: a list of digest, media_type, size, platform, which may be null); image (null if an index has
    none for the platform: digest, image_id, platform, created_at, config as it is in the image, and layers, a
    list of digest, media_type, size, made_by: the step of the build, or null); part (of a layer or config of
    images, else null: kind, base, the image that a layer came with, made_by, images, some that have it). A
    template has these keys, and those of the image beside them.
    """
    from digestry.cli.settings import load
    from digestry.model.platform import Platform

    settings = load()
    template = _template(format_)
    place = Platform.chosen(platform) if platform else None
    document = _look(settings, reference, place, remote=remote, raw=raw)
    if isinstance(document, bytes):
        click.echo(document, nl=False)  # bytes go out as they are
    elif template is not None:
        say(template.line(_row(document)))
    elif format_ == "json":
        json_document(document)
    else:
        _print(document)


_NESTED: Final = ("annotations", "config", "image", "part")
_IMAGE_KEYS: Final = ("image_id", "platform", "created_at", "config", "layers")


def _template(text: str) -> RowTemplate | None:
    """Return the template that --format is. Raises :class:`InvalidConfiguration`."""
    if text in {"text", "json"}:
        return None
    keys = (*Document.__struct_fields__, *_IMAGE_KEYS)
    cells = {key: lambda row, key=key: text_of(row[key]) for key in keys}
    return RowTemplate(text, cells, {}, {"id": "image_id", "created": "created_at"}, _NESTED)


def _row(document: Document) -> Row:
    """Return what a template can show."""
    whole: dict[str, object] = msgspec.to_builtins(document, enc_hook=str)
    image = whole["image"]
    inner = image if isinstance(image, dict) else {}
    return {**whole, **{key: inner.get(key) for key in _IMAGE_KEYS}}


def _look(
    settings: Settings, text: str, place: Platform | None, *, remote: bool, raw: bool
) -> bytes | Document:
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.sessions import open_session, open_store
    from digestry.errors import InvalidReference, NotFound, RemoteNotFound
    from digestry.images.name_lookup import look_up
    from digestry.model.digest_prefix import DigestPrefix

    store = open_store(settings)
    found, missing = None, None
    if not remote:
        try:
            found = look_up(store, text, settings.reference)
        except NotFound as error:
            missing = error
    if found is not None:
        descriptor = found.descriptor
        wanted = str(found.reference or text)
        top = store.manifest(descriptor)
        if raw:
            return top.raw
        try:
            image = store.image(descriptor, place)
        except NotFound:
            if place is not None:
                raise
            return _document(wanted, top, "local", None, None)
        config = store.stated_config(image)
        return _document(wanted, top, "local", image, config)
    with open_session(settings) as session:
        try:
            named = complete_reference(settings, session, text).or_latest()
            repository = session.repository(named)
            top = repository.pull_manifest(named.target)
        except (InvalidReference, RemoteNotFound) as error:
            # A digest alone names no repository: that the local store does not have it is the answer.
            if missing is not None and DigestPrefix.read(text) is not None:
                raise missing from error
            part = None if raw or "@" not in text else _find_part(settings, session, text)
            if part is None:
                raise
            return part
        if raw:
            return top.raw
        return _remote(str(named), top, place, repository)


def _find_part(settings: Settings, session: Session, text: str) -> Document | None:
    """Return the layer or config that ``text`` names in its registry; None if there is none."""
    from digestry.advisories.subjects import find_subject
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.layer_images import images_with, made_by
    from digestry.errors import NotFound

    try:
        target = find_subject(session, complete_reference(settings, session, text), hint="")
    except NotFound:
        return None
    if target.part is None:
        return None
    images = images_with(session, target)
    return Document(
        name=str(target.image),
        digest=target.digest,
        media_type=target.descriptor.media_type,
        size=target.descriptor.size,
        source="registry",
        annotations={},
        manifests=[],
        image=None,
        part=_Part(
            target.part,
            str(images[0]) if images and target.part == "layer" else None,
            made_by(session, target, images),
            [str(image) for image in images],
        ),
    )


def _remote(wanted: str, top: Image | Index, place: Platform | None, repository: Repository) -> Document:
    from digestry.errors import InvalidManifest, NotFound, ProtocolViolation
    from digestry.images.pull import manifests_for_platform
    from digestry.model.image_config import ImageConfig
    from digestry.model.platform import Platform

    image = top
    if top.is_index:
        try:
            image = manifests_for_platform(repository, top, place or Platform.of_host())[0]
        except NotFound:
            if place is not None:
                raise
            return _document(wanted, top, "registry", None, None)
    config = None
    if _is_image(image) and image.config is not None:
        try:
            config = ImageConfig.parse(
                repository.read_blob(image.config), algorithm=image.config.digest.algorithm
            )
        except InvalidManifest as error:
            raise ProtocolViolation(f"{wanted}: {error.message}") from error
    return _document(wanted, top, "registry", image, config)


def _is_image(manifest: Manifest) -> bool:
    from digestry.model import media_types

    return manifest.config is not None and manifest.config.media_type in media_types.IMAGE_CONFIGS


def _document(
    wanted: str, top: Manifest, source: str, image: Manifest | None, config: ImageConfig | None
) -> Document:
    return Document(
        name=wanted,
        digest=top.digest,
        media_type=top.media_type,
        size=top.size,
        source=source,
        annotations=top.annotations,
        manifests=[
            _Child(
                child.digest, child.media_type, child.size, str(child.platform) if child.platform else None
            )
            for child in top.manifests
        ],
        image=None
        if image is None
        else _Image(
            digest=image.digest,
            image_id=image.config.digest if image.config else None,
            platform=_platform(config),
            created_at=config.created if config else None,
            config=config.settings if config else None,
            layers=[
                _Layer(layer.digest, layer.media_type, layer.size, _step(config, number))
                for number, layer in enumerate(image.layers)
            ],
        ),
        part=None,
    )


def _step(config: ImageConfig | None, layer: int) -> str | None:
    return (config.step_of(layer) or None) if config is not None else None


def _platform(config: ImageConfig | None) -> str | None:
    if config is None:
        return None
    return "/".join(part for part in (config.os, config.architecture, config.variant) if part)


def _print(document: Document) -> None:
    def line(label: str, value: object) -> None:
        say(f"{label + ':':<12} {printable(str(value))}")

    line("Name", document.name)
    line("Digest", document.digest)
    line("Media type", document.media_type)
    line("Source", "the local store" if document.source == "local" else "the registry")
    for key, annotation in document.annotations.items():
        line("Annotation", f"{key}={annotation}")
    for child in document.manifests:
        line("Manifest", f"{child.digest} {child.platform or child.media_type}")
    if document.part is not None:
        _print_part(document, document.part, line)
        return
    image = document.image
    if image is None:
        line("Image", "none for this machine's platform; choose with --platform")
        return
    if document.manifests:
        line("Image", image.digest)
    line("Image ID", image.image_id)
    if image.platform is not None:
        line("Platform", image.platform)
        line("Created", image.created_at or "-")
    for key, value in (image.config or {}).items():
        line(key, _text(value))
    for layer in image.layers:
        line("Layer", f"{layer.digest} {human_size(layer.size)} {layer.media_type}")
        if layer.made_by:
            line("  made by", layer.made_by)


def _print_part(document: Document, part: _Part, line: Callable[[str, object], None]) -> None:
    line("Kind", f"a {part.kind} of images")
    line("Size", human_size(document.size))
    if part.base is not None:
        line("Came with", part.base)
    if part.made_by is not None:
        line("Made by", part.made_by)
    for image in part.images:
        line("In image", image)


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
