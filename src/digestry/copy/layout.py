"""An OCI image layout as a source of copies, in a directory or a tar file, and a directory as a target."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from digestry.blobs.bounded_read import SMALL
from digestry.blobs.disk import open_layout
from digestry.blobs.layout_version import LAYOUT, LAYOUT_FILE, check_version
from digestry.blobs.verify import Verifier
from digestry.copy.protocols import BlobContent, Outcome, Progress, cosign_names, digest_of_name
from digestry.errors import (
    Ambiguous,
    Conflict,
    ContentError,
    InvalidManifest,
    NotFound,
    StorageError,
)
from digestry.file_locks import locked
from digestry.images.blob_fetch import fetch_blob
from digestry.images.layout import INDEX_FILE, NAME, Layout, read_entries
from digestry.images.store import LARGEST_MANIFEST, plain_descriptor
from digestry.model import media_types
from digestry.model.descriptor import Descriptor, decode_hook
from digestry.model.digest import Digest
from digestry.model.json_types import prepared
from digestry.model.manifest import Image, Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from digestry.blobs.ingests import Ingest
    from digestry.copy.file_tree import FileTree

CONTAINERD_NAME: Final = "io.containerd.image.name"
"""Annotation with an image's full name, as containerd and docker write it."""
_LARGEST_INDEX: Final = 64 << 20
_LARGEST_MARK: Final = 1 << 20
_CHUNK: Final = 1 << 20
_LISTED: Final = 10
_LOCK: Final = ".index.lock"


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[Descriptor, ...] | None = ()


class FileContent:
    """A blob in a file that is here."""

    def __init__(self, tree: FileTree, name: str, descriptor: Descriptor) -> None:
        self._tree = tree
        self._name = name
        self._descriptor = descriptor

    def open(self) -> BinaryIO:
        return self._tree.open(self._name)

    def fetch(self, sink: Ingest, progress: Progress) -> None:
        copy_into(self.open(), sink, self._descriptor, progress)

    def forget(self) -> None:
        """Nothing is kept: the bytes are the source's own."""

    close = forget


def copy_into(file: BinaryIO, sink: Ingest, descriptor: Descriptor, progress: Progress) -> None:
    """Write the bytes of ``file`` that ``sink`` lacks into it, and commit it. Closes the file."""
    with file:
        left = sink.offset
        try:
            while left and (part := file.read(min(_CHUNK, left))):
                left -= len(part)
            while chunk := file.read(_CHUNK):
                sink.write(chunk)
                progress(len(chunk))
        except OSError as error:
            raise StorageError(f"cannot read {descriptor.digest}: {error.strerror or error}") from error
    sink.commit(descriptor.digest, descriptor.size)


def blob_name(digest: Digest) -> str:
    """Return the file of a blob in a layout (image-layout.md, "Blobs")."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


class LayoutSource:
    """The images of an OCI image layout, whose ``tree`` it closes."""

    repository: Final = None
    is_far: Final = False

    def __init__(self, tree: FileTree, description: str) -> None:
        self._tree = tree
        self.description = description
        try:
            self._entries = _read_index(tree)
        except BaseException:
            tree.close()
            raise

    def names(self) -> Iterable[str]:
        return list(dict.fromkeys(name for entry in self._entries for name in _names(entry)[:1]))

    def resolve(self, name: str | None, *, read: bool = False) -> Descriptor:
        """Return the descriptor of ``name``; None is the only image. Raises :class:`Ambiguous` too."""
        if name is None:
            attached = {name for entry in self._entries for name in cosign_names(entry.digest)}
            found = [
                entry
                for entry in self._entries
                if not (attached.intersection(_names(entry)) or self._is_referrer(entry))
            ]
            if len({entry.digest for entry in found}) > 1:
                listed = [(_names(entry) or [f"@{entry.digest}"])[0] for entry in found]
                more = ", …" if len(listed) > _LISTED else ""
                raise Ambiguous(
                    f"{self.description} has several images: {', '.join(listed[:_LISTED])}{more}",
                    hint=f"name one: {self.description}:NAME or {self.description}@DIGEST",
                )
            if not found:
                raise NotFound(f"{self.description} has no image")
            return plain_descriptor(found[0])
        digest = digest_of_name(name)
        if digest is not None:
            return self._by_digest(digest)
        named = [entry for entry in self._entries if name in _names(entry)]
        if len({entry.digest for entry in named}) > 1:
            # As `ctr images export` writes app:1 and other:1: both are called "1" as well.
            each = [_names(entry)[0] for entry in named]
            others = each if len(set(each)) == len(each) else [f"@{entry.digest}" for entry in named]
            raise Ambiguous(
                f"{self.description} has several images {name}: {', '.join(others[:_LISTED])}",
                hint=f"name one: {self.description}:NAME or {self.description}@DIGEST",
            )
        if named:
            return plain_descriptor(named[0])
        listed = list(self.names())
        there = f"it has {', '.join(listed[:_LISTED])}" if listed else "its images have no names"
        raise NotFound(f"{self.description} has no image {name}", hint=there)

    def _by_digest(self, digest: Digest) -> Descriptor:
        waiting, seen = list(self._entries), set[Digest]()
        while waiting:
            entry = waiting.pop(0)
            if entry.digest == digest:
                return plain_descriptor(entry)
            if entry.media_type in media_types.INDEXES and entry.digest not in seen:
                seen.add(entry.digest)
                with contextlib.suppress(NotFound):
                    waiting += self.manifest(entry).manifests
        raise NotFound(f"{self.description} has no image {digest}")

    def _is_referrer(self, entry: Descriptor) -> bool:
        with contextlib.suppress(NotFound, ContentError):
            return len(self._entries) > 1 and not _names(entry) and self.manifest(entry).subject is not None
        return False

    def is_whole(self) -> bool:
        """Return whether all content that the layout lists is here."""
        return bool(self._entries) and all(self.has_blob(entry.digest) for entry in self._entries)

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        raw = self._verified(descriptor.digest, LARGEST_MANIFEST)
        try:
            return parse_manifest(raw, descriptor.media_type, algorithm=descriptor.digest.algorithm)
        except InvalidManifest as error:
            raise ContentError(f"{descriptor.digest} of {self.description}: {error.message}") from error

    def read_blob(self, descriptor: Descriptor) -> bytes:
        return self._verified(descriptor.digest, SMALL)

    def _verified(self, digest: Digest, limit: int) -> bytes:
        from digestry.copy.file_tree import read  # noqa: PLC0415 - it reads archives, which few copies do

        raw = read(self._tree, blob_name(digest), limit)
        verifier = Verifier(digest)
        verifier.update(raw)
        verifier.finish()
        return raw

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the layout has a file for a blob."""
        return self._tree.size(blob_name(digest)) is not None

    def blob(self, descriptor: Descriptor) -> BlobContent:
        return FileContent(self._tree, blob_name(descriptor.digest), descriptor)

    def referrers(self, digest: Digest) -> list[Descriptor]:
        found = []
        for entry in self._entries:
            if entry.media_type not in media_types.MANIFESTS:
                continue
            with contextlib.suppress(NotFound):
                subject = self.manifest(entry).subject
                if subject is not None and subject.digest == digest:
                    found.append(plain_descriptor(entry))
        return found

    def attached_names(self, digest: Digest) -> list[str]:
        there = set(self.names())
        return [name for name in cosign_names(digest) if name in there]

    def close(self) -> None:
        self._tree.close()


def _names(entry: Descriptor) -> list[str]:
    annotations = entry.annotations or {}
    names = (annotations.get(CONTAINERD_NAME), annotations.get(NAME))
    return list(dict.fromkeys(name for name in names if name))


def _read_index(tree: FileTree) -> tuple[Descriptor, ...]:
    from digestry.copy.file_tree import read  # noqa: PLC0415 - as above

    with contextlib.suppress(NotFound):  # as some programs leave it out
        stated = read(tree, LAYOUT_FILE, _LARGEST_MARK)
        if stated != LAYOUT:
            check_version(stated, f"{LAYOUT_FILE} of {tree.path}")
    try:
        raw = read(tree, INDEX_FILE, _LARGEST_INDEX)
    except NotFound as error:
        raise ContentError(f"{tree.path} is not an OCI image layout: it has no {INDEX_FILE}") from error
    try:
        found = msgspec.json.decode(raw, type=prepared(_Index), dec_hook=decode_hook)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"{INDEX_FILE} of {tree.path} is not an index: {error}") from error
    return found.manifests or ()


class LayoutTarget:
    """A directory that images are copied into, as an OCI image layout; other images in it stay."""

    repository: Final = None
    is_far: Final = False
    may_lack_images: Final = True
    keeps_index: Final = False
    holds_indexes: Final = True
    doubtful_layers: Final[frozenset[str]] = frozenset()
    is_written_whole: Final = False
    loss: Final = ""

    def __init__(self, path: Path, description: str) -> None:
        if path.exists() and not path.is_dir():
            raise StorageError(f"{path} is not a directory", hint=f"write oci-archive:{path} for a tar file")
        self._root = path
        self._blobs = open_layout(path)
        self.description = description
        self._blobs.prepare()

    def current(self, name: str | None) -> Digest | None:
        if name is None:
            return None
        for entry in read_entries(self._root):
            if entry.name == name:
                return entry.descriptor.digest
        return None

    def has_manifest(self, descriptor: Descriptor) -> bool:
        """Return False: an interrupted copy may have left a manifest whose blobs are not there."""
        return False

    def has_blob(self, descriptor: Descriptor) -> bool:
        return self._blobs.stat(descriptor.digest) == descriptor.size

    def put_blob(
        self, descriptor: Descriptor, content: BlobContent, *, mount_from: str | None, progress: Progress
    ) -> Outcome:
        fetch_blob(content.fetch, self._blobs, descriptor, progress)
        return "sent"

    def put_manifest(self, manifest: Manifest) -> None:
        self._blobs.put(manifest.raw, manifest.digest)
        if manifest.subject is not None:  # referrers are found by the layout's index alone
            with self._index() as layout:
                layout.add_unnamed(manifest.descriptor())

    def point(self, names: Sequence[tuple[str | None, Manifest]]) -> None:
        for _, manifest in names:
            self._blobs.put(manifest.raw, manifest.digest)
        # The index is written once for all of them.
        with self._index() as layout:
            for name, manifest in names:
                if name is None:
                    layout.add_unnamed(manifest.descriptor())
                else:
                    layout.set_name(name, manifest.descriptor())

    @contextlib.contextmanager
    def _index(self) -> Iterator[Layout]:
        with locked(self._root / _LOCK):
            layout = Layout.read(self._root)
            yield layout
            layout.write()

    def finish(self) -> None:
        """Remove the files that only the copy needed."""
        for name in ("ingest", "blobs/sha512"):
            with contextlib.suppress(OSError):
                (self._root / name).rmdir()  # only if it is empty
        # Another copy that has the lock needs the file.
        with contextlib.suppress(OSError, Conflict), locked(self._root / _LOCK, wait=False):
            (self._root / _LOCK).unlink()

    def close(self) -> None:
        """Unfinished content stays in the directory for the next copy."""
