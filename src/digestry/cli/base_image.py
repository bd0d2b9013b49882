"""The image that another one builds upon: of the local store, or pulled into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from digestry.cli.settings import Settings
    from digestry.images.recipe import BaseImage
    from digestry.images.store import ImageStore
    from digestry.model.platform import Platform


def find_base(
    settings: Settings, store: ImageStore, text: str, platform: Platform | None, *, quiet: bool
) -> BaseImage:
    """Return the image that ``text`` means for ``platform``, or for this machine's; pull what is not here.

    Raises :class:`InvalidReference`, :class:`NotFound`, and what a pull does.
    """
    from digestry.errors import NotFound

    try:
        return _stored(settings, store, text, platform)
    except NotFound as error:
        from digestry.model.digest_prefix import DigestPrefix

        if DigestPrefix.read(text) is not None:
            raise NotFound(error.message, hint="a base that is not here needs its registry's name") from error
    _pull(settings, store, text, platform, quiet=quiet)
    return _stored(settings, store, text, platform)


def _stored(settings: Settings, store: ImageStore, text: str, platform: Platform | None) -> BaseImage:
    from digestry.images.name_lookup import look_up
    from digestry.images.pack import check_layers
    from digestry.images.recipe import BaseImage

    found = look_up(store, text, settings.reference)
    image = store.image(found.descriptor, platform)
    check_layers(image, store.blobs)
    return BaseImage(str(found.reference or ""), image, store.config(image))


def _pull(
    settings: Settings, store: ImageStore, text: str, platform: Platform | None, *, quiet: bool
) -> None:
    from digestry.cli.digest_completion import complete_reference
    from digestry.cli.output import note
    from digestry.cli.progress import watching
    from digestry.cli.sessions import open_session
    from digestry.images.pull import pull

    with open_session(settings) as session, watching(quiet=quiet) as observer:
        wanted = complete_reference(settings, session, text).or_latest()
        if not quiet:
            note(f"{wanted.target}: pulling from {wanted.name}")
        pull(session, wanted, store, platform=platform, observer=observer)
