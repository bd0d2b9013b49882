"""Where a command finds an image: in its registry, or in the local store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.client.repository import Repository
    from digestry.client.session import Session
    from digestry.images.store import ImageStore
    from digestry.model.descriptor import Descriptor
    from digestry.model.manifest import Image, Index
    from digestry.model.platform import Platform
    from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class LocatedImage:
    """The image of a name: a manifest or index, and the repository, or the local store, that has it.

    ``reference`` is the whole name; None for a digest alone in the local store.
    """

    name: str
    reference: Reference | None
    manifest: Image | Index
    source: Repository | ImageStore

    def child(self, platform: Platform) -> Image:
        """Return the image of an index for ``platform``. Raises :class:`NotFound`."""
        from digestry.errors import ProtocolViolation
        from digestry.images.pull import manifests_for_platform
        from digestry.images.store import ImageStore
        from digestry.model.manifest import Image

        if isinstance(self.source, ImageStore):
            return self.source.image(self.manifest.descriptor(), platform)
        found = manifests_for_platform(self.source, self.manifest, platform)[0]
        if not isinstance(found, Image):
            raise ProtocolViolation(f"{found.digest} is an index, and {self.name} lists it as an image")
        return found

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """Return the bytes of a small blob, verified."""
        from digestry.images.store import ImageStore

        if isinstance(self.source, ImageStore):
            return self.source.blobs.read(descriptor.digest)
        return self.source.read_blob(descriptor)


@contextlib.contextmanager
def stored_image(
    settings: Settings, reference: str, platform: str | None, *, remote: bool, scratch: Path | None = None
) -> Iterator[tuple[ImageStore, Image]]:
    """Yield an image for a platform, and a store that has its layers: the local one, or one for the block.

    An image that only the registry has is pulled into a directory below ``scratch``, by default that for
    temporary files. Raises as :func:`locate_anywhere` and a pull do.
    """
    import tempfile

    from digestry.cli.sessions import open_session
    from digestry.images.pull import pull
    from digestry.images.store import ImageStore
    from digestry.model.manifest import Image
    from digestry.model.platform import Platform

    place = Platform.chosen(platform) if platform else Platform.of_host()
    with contextlib.ExitStack() as opened:
        session = opened.enter_context(open_session(settings))
        found = locate_anywhere(settings, session, reference, remote=remote, content=True)
        image = found.manifest if isinstance(found.manifest, Image) else found.child(place)
        store = found.source
        if not isinstance(store, ImageStore):
            directory = tempfile.TemporaryDirectory(prefix="digestry-", dir=scratch)
            store = ImageStore(Path(opened.enter_context(directory)))
            assert found.reference is not None  # noqa: S101 - a registry's has a name
            pull(session, found.reference.repository_only().with_digest(image.digest), store)
        yield store, image


def local_option(function: Callable[..., object]) -> Callable[..., object]:
    """Add the option ``--local``."""
    return click.option("--local", is_flag=True, help="The image of the local store, not the registry's.")(
        function
    )


def platform_option(function: Callable[..., object]) -> Callable[..., object]:
    """Add the option ``--platform``."""
    return click.option("--platform", metavar="OS/ARCH", help="The image of an index for this platform.")(
        function
    )


def locate(
    settings: Settings, session: Session, text: str, *, local: bool, content: bool = False
) -> LocatedImage:
    """Return the manifest of a name, in its registry or in the local store.

    ``content`` is for an image that is used: it may come from a mirror, and a policy may reject it. Raises
    :class:`InvalidReference`, :class:`NotFound`, and as a registry's repository does.
    """
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.sessions import open_store
    from digestry.images.name_lookup import look_up

    if local:
        store = open_store(settings)
        found = look_up(store, text, settings.reference)
        name = str(found.reference or text)
        return LocatedImage(name, found.reference, store.manifest(found.descriptor), store)
    reference = complete_reference(settings, session, text).or_latest()
    repository = session.image_source(reference) if content else session.repository(reference)
    return LocatedImage(str(reference), reference, repository.pull_manifest(reference.target), repository)


def locate_anywhere(
    settings: Settings, session: Session, text: str, *, remote: bool, content: bool = False
) -> LocatedImage:
    """Return the manifest of a name: from the local store, else from its registry.

    With ``remote`` the registry alone is asked. ``content`` is as in :func:`locate`, which says what is
    raised.
    """
    from digestry.errors import InvalidReference, NotFound, RemoteNotFound
    from digestry.model.digest_prefix import DigestPrefix

    missing: NotFound | None = None
    if not remote:
        try:
            return locate(settings, session, text, local=True)
        except NotFound as error:
            missing = error
    try:
        return locate(settings, session, text, local=False, content=content)
    except (InvalidReference, RemoteNotFound) as error:
        # A digest alone names no repository: that the local store does not have it is the answer.
        if missing is not None and DigestPrefix.read(text) is not None:
            raise missing from error
        raise
