"""The local store for programs: images in a directory, pulled and pushed by name."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from digestry.images.listing import DamagedImage, StoredImage, list_images
from digestry.images.removal import Removal, remove_images
from digestry.images.store import ImageStore
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_config import ImageConfig
from digestry.model.manifest import Image, Index
from digestry.model.platform import Platform
from digestry.model.reference import Reference

if TYPE_CHECKING:
    from digestry.client.options import ClientOptions
    from digestry.client.session import Session
    from digestry.images.limits import Limits
    from digestry.images.pack import Packed
    from digestry.images.pruning import Prunable
    from digestry.images.pull import PullResult
    from digestry.images.push import PushResult
    from digestry.images.recipe import Recipe
    from digestry.images.transfer import TransferObserver
    from digestry.images.unpack import Unpacked
    from digestry.images.validation import Validation
    from digestry.verifier.log_view import LogVerifier


class LocalStore:
    """The images in the directory ``path``, an OCI image layout that other tools read as ``oci:PATH``.

    Safe to use from many threads and processes at once. The directory is made when something is first put
    into it. A context manager: registries are asked over connections that :meth:`close` ends. ``options`` say
    how registries are spoken to, and where credentials are: by default nobody logs in. With a ``session``,
    which its owner closes, they are not used.

    A name is a :class:`~digestry.Reference` or its text, such as ``localhost:5000/team/app:1.5``. Without a
    tag and a digest it means the tag ``latest``. Every method that takes one raises
    :class:`~digestry.errors.InvalidReference` for what is not a name. Every method raises
    :class:`~digestry.errors.ContentError` for content that is damaged, and
    :class:`~digestry.errors.StorageError` for a disk that fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        options: ClientOptions | None = None,
        session: Session | None = None,
    ) -> None:
        self.path = Path(path)
        self._store = ImageStore(self.path)
        self._options = options
        self._session = session
        self._owned: Session | None = None
        self._lock = threading.Lock()

    # -- what is here -------------------------------------------------------------------------

    def images(self) -> list[StoredImage | DamagedImage]:
        """Return a row for each tag, and for each digest that no tag of its repository points to any more.

        An image that cannot be read is a :class:`~digestry.DamagedImage`.
        """
        return list_images(self._store)

    def resolve(self, name: Reference | str) -> Descriptor:
        """Return what ``name`` points to: an image or an index. Raises :class:`~digestry.errors.NotFound`."""
        return self._store.find(_reference(name))

    def manifest(self, name: Reference | str) -> Image | Index:
        """Return the image or index that ``name`` points to, verified.

        Raises :class:`~digestry.errors.NotFound`.
        """
        return self._store.manifest(self.resolve(name))

    def image(self, name: Reference | str, *, platform: Platform | str | None = None) -> Image:
        """Return the image that ``name`` has for ``platform``, by default this machine's.

        Raises :class:`~digestry.errors.NotFound`, also for a platform that was not pulled.
        """
        return self._store.image(self.resolve(name), _platform(platform))

    def config(self, image: Image) -> ImageConfig:
        """Return the config of ``image``, verified. Raises :class:`~digestry.errors.NotFound`."""
        return self._store.config(image)

    # -- names --------------------------------------------------------------------------------

    def tag(self, source: Reference | str, name: Reference | str) -> Digest | None:
        """Give ``source``'s image the name ``name`` too, and return the digest that it had before.

        Raises :class:`~digestry.errors.NotFound`.
        """
        return self._store.tag(_reference(source), _reference(name))[1]

    def remove(self, *names: Reference | str) -> Removal:
        """Remove names, and then the content that no name holds any more. Registries are not touched.

        Raises :class:`~digestry.errors.NotFound` if one of them is not here, and then removes nothing.
        """
        return remove_images(self._store, [_reference(name) for name in names])

    def prune(self, *, keep_untagged: bool = False, dry_run: bool = False) -> Prunable:
        """Remove what nothing here needs any more, and return it; with ``dry_run`` nothing is removed.

        That is images that no tag points to (unless ``keep_untagged``), content that no name holds, and
        downloads that were cut off. Raises :class:`~digestry.errors.Conflict` while somebody adds content.
        """
        from digestry.images import pruning  # noqa: PLC0415 - few users need it

        work = pruning.prunable if dry_run else pruning.prune
        return work(self._store, keep_untagged=keep_untagged)

    def validate(self, name: Reference | str) -> Validation:
        """Read every byte of an image or index, and return what is wrong with it.

        Raises :class:`~digestry.errors.NotFound`.
        """
        from digestry.images.validation import StoredContent, validate  # noqa: PLC0415 - few users need it

        return validate(StoredContent(self._store), self.resolve(name))

    # -- registries ---------------------------------------------------------------------------

    def pull(
        self,
        name: Reference | str,
        *,
        platform: Platform | str | None = None,
        all_platforms: bool = False,
        observer: TransferObserver | None = None,
        verify_log: LogVerifier | None = None,
    ) -> PullResult:
        """Pull an image from its registry, every byte of it verified, and name it ``name``.

        Of an index, pull the image for ``platform`` (by default this machine's), or ``all_platforms``. A
        digest decides over a tag. ``observer`` hears how the transfer goes on. With ``verify_log``, the
        registry's log must have that the tag points there now, as its last entry of the tag, before anything
        is stored. Raises :class:`~digestry.errors.NotFound` for a platform that there is no image for,
        :class:`~digestry.errors.LogContradiction` and :class:`~digestry.errors.Unproven` for what the log
        does not have, and what :class:`~digestry.Repository` does.
        """
        from digestry.images.pull import pull  # noqa: PLC0415 - it loads the HTTP client

        check = None
        if verify_log is not None:
            from digestry.verifier.tag_proof import TagProver  # noqa: PLC0415 - few users need it

            check = TagProver(verify_log)
        return pull(
            self._registries(),
            _reference(name),
            self._store,
            platform=_platform(platform),
            all_platforms=all_platforms,
            observer=observer,
            check=check,
        )

    def push(self, name: Reference | str, *, observer: TransferObserver | None = None) -> PushResult:
        """Push an image to its registry, or an index with those of its images that are here.

        Every byte is verified while it is sent. ``observer`` hears how the transfer goes on. Raises
        :class:`~digestry.errors.NotFound` for what is neither here nor in the registry, and what
        :class:`~digestry.Repository` does.
        """
        from digestry.images.push import push  # noqa: PLC0415 - it loads the HTTP client

        return push(self._registries(), _reference(name), self._store, observer=observer)

    # -- directories --------------------------------------------------------------------------

    def pack(
        self,
        directory: str | os.PathLike[str],
        name: Reference | str,
        *,
        recipe: Recipe | None = None,
        base: Reference | str | None = None,
    ) -> Packed:
        """Make an image of the files of ``directory``, or of a tar archive, and name it ``name``.

        The same files make the same digest, on any machine. ``recipe`` is what the image says about itself,
        by default this machine's platform only. ``base`` is an image of this store that it builds upon.
        Raises :class:`~digestry.errors.NotFound` for what is not there,
        :class:`~digestry.errors.InvalidConfiguration` for what an image cannot hold, and
        :class:`~digestry.errors.Conflict` for a file that changes meanwhile.
        """
        from digestry.images import pack  # noqa: PLC0415 - few users need it
        from digestry.images import recipe as recipes  # noqa: PLC0415

        reference = _reference(name)
        made_of = recipe or recipes.Recipe(Platform.of_host())
        with self._store.adding():
            below = None
            if base is not None:
                image = self.image(base, platform=made_of.platform)
                pack.check_layers(image, self._store.blobs)
                below = recipes.BaseImage(str(_reference(base)), image, self.config(image))
            packed = pack.pack(Path(directory), made_of, self._store.blobs, base=below)
            self._store.point(reference, packed.manifest)
        return packed

    def unpack(
        self,
        name: Reference | str,
        destination: str | os.PathLike[str],
        *,
        platform: Platform | str | None = None,
        limits: Limits | None = None,
        same_owner: bool = False,
    ) -> Unpacked:
        """Make ``destination`` the root file system of an image; it must not exist, or be empty.

        Nothing is there before everything was unpacked and verified. ``limits`` bound how much an image may
        unpack to. ``same_owner``, which needs root, keeps owners, set-uid bits, extended attributes and
        devices. Raises :class:`~digestry.errors.Conflict`, :class:`~digestry.errors.NotFound` and
        :class:`~digestry.errors.TooLarge`.
        """
        from digestry.images.unpack import unpack  # noqa: PLC0415 - few users need it

        image = self.image(name, platform=platform)
        return unpack(self._store, image, Path(destination), limits, same_owner=same_owner)

    def export(self, name: Reference | str, *, platform: Platform | str | None = None) -> Iterator[bytes]:
        """Yield the root file system of an image as a tar archive.

        Entries are those of the layers, byte for byte; what a later layer deletes is not among them. Every
        byte was verified before the first one comes. Raises :class:`~digestry.errors.NotFound` and
        :class:`~digestry.errors.TooLarge`.
        """
        from digestry.images.export import export  # noqa: PLC0415 - few users need it

        return export(self._store, self.image(name, platform=platform))

    # -- connections --------------------------------------------------------------------------

    def _registries(self) -> Session:
        """Return the session that registries are asked by, opened when it is first needed."""
        from digestry.client.session import Session  # noqa: PLC0415 - it loads the HTTP client

        with self._lock:
            if self._session is None:
                self._session = self._owned = Session(self._options)
            return self._session

    def close(self) -> None:
        """Close the connections, unless a session was given. The store can be used again."""
        with self._lock:
            if self._owned is not None:
                self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"


def _reference(name: Reference | str) -> Reference:
    return (Reference.parse(name) if isinstance(name, str) else name).or_latest()


def _platform(platform: Platform | str | None) -> Platform | None:
    return Platform.chosen(platform) if isinstance(platform, str) else platform
