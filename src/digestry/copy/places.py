"""The opening of a place by its location: the one module that knows all transports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from digestry.client.session import Session
from digestry.copy.location import Location
from digestry.copy.protocols import ImageSource, ImageTarget
from digestry.copy.spool import Spool
from digestry.errors import InvalidReference
from digestry.images.name_lookup import look_up
from digestry.images.pull import Check
from digestry.images.store import ImageStore
from digestry.model.reference import Reference


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The resources of places: a session for registries, the local store, a directory for blobs in transit.

    ``read`` completes an image's name to a reference. ``check``, if given, raises unless a name of a
    registry may mean a digest: it is called before an image of a registry is read.
    """

    session: Session
    store: ImageStore
    scratch: Path
    read: Callable[[str], Reference]
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class OpenSource:
    """An open source, and the name in it from its location; ``reference`` is its full name.

    ``remark`` says, as a sentence, which parts of its images are made anew.
    """

    source: ImageSource
    name: str | None
    reference: Reference | None = None
    remark: str = ""


def open_source(location: Location, around: Surroundings, opened: ExitStack) -> OpenSource:
    """Open the place that images are copied from; it is closed with ``opened``.

    Raises :class:`InvalidReference`, :class:`NotFound`, and the place's errors.
    """
    scratch = around.scratch
    _check_policy(location, around)
    match location.transport:
        case "docker":
            from digestry.copy.registry import RegistrySource  # noqa: PLC0415 - each loads its own client

            assert location.reference is not None  # noqa: S101 - a registry's has one
            spool = Spool(scratch)
            spool.sweep()
            remote = around.session.image_source(location.reference)
            check = None
            if around.check is not None:
                own = around.session.repository(location.reference)
                check = functools.partial(around.check, own)
            found = OpenSource(RegistrySource(remote, spool, check), location.name, location.reference)
        case "local":
            from digestry.copy.local import LocalSource  # noqa: PLC0415

            found = _of_store(location, around, LocalSource)
        case "oci":
            from digestry.copy.file_tree import DirectoryTree  # noqa: PLC0415
            from digestry.copy.layout import LayoutSource  # noqa: PLC0415

            tree = DirectoryTree(_path(location))
            found = OpenSource(LayoutSource(tree, f"oci:{tree.path}"), location.name)
        case "oci-archive":
            from digestry.copy.file_tree import ArchiveTree  # noqa: PLC0415
            from digestry.copy.layout import LayoutSource  # noqa: PLC0415

            archive = ArchiveTree(_path(location), scratch=_made(scratch))
            opened.callback(archive.close)
            found = OpenSource(LayoutSource(archive, f"oci-archive:{archive.path}"), location.name)
        case "docker-archive":
            from digestry.copy.docker_archive import open_docker_archive  # noqa: PLC0415
            from digestry.copy.file_tree import ArchiveTree  # noqa: PLC0415
            from digestry.copy.layout import LayoutSource  # noqa: PLC0415

            archive = ArchiveTree(_path(location), scratch=_made(scratch))
            opened.callback(archive.close)
            saved_images = open_docker_archive(archive, f"docker-archive:{archive.path}", scratch=scratch)
            remark = "" if isinstance(saved_images, LayoutSource) else saved_images.remark
            found = OpenSource(saved_images, location.name, location.reference, remark)
        case "docker-daemon":
            from digestry.copy.docker_archive import open_docker_archive  # noqa: PLC0415
            from digestry.copy.docker_engine import save_from_engine  # noqa: PLC0415
            from digestry.copy.file_tree import ArchiveTree  # noqa: PLC0415
            from digestry.copy.layout import LayoutSource  # noqa: PLC0415

            saved = save_from_engine(_familiar(location), scratch)
            opened.callback(saved.unlink, missing_ok=True)
            archive = ArchiveTree(saved)
            opened.callback(archive.close)
            saved_images = open_docker_archive(archive, location.text, scratch=scratch)
            remark = "" if isinstance(saved_images, LayoutSource) else saved_images.remark
            found = OpenSource(saved_images, None, location.reference, remark)
        case "containers-storage":
            from digestry.copy.file_tree import ArchiveTree  # noqa: PLC0415
            from digestry.copy.layout import LayoutSource  # noqa: PLC0415
            from digestry.copy.podman_storage import save_from_podman  # noqa: PLC0415

            saved = save_from_podman(location.name or "", scratch)
            opened.callback(saved.unlink, missing_ok=True)
            archive = ArchiveTree(saved)
            opened.callback(archive.close)
            found = OpenSource(LayoutSource(archive, location.text), None, location.reference)
    opened.callback(found.source.close)
    return found


def _check_policy(location: Location, around: Surroundings) -> None:
    """Raise :class:`Forbidden` if a policy rejects what is not in a registry; a session checks the rest."""
    if location.transport in {"docker", "local"} or (policy := around.session.policy()) is None:
        return
    from digestry.client.configuration.policy import (  # noqa: PLC0415
        file_scopes,
        image_scopes,
        storage_scopes,
    )

    scopes: Iterable[str] = ()
    if location.transport in {"oci", "oci-archive"}:
        scopes = file_scopes(_path(location))
    elif location.transport == "docker-daemon" and location.reference is not None:
        scopes = image_scopes(str(location.reference))
    elif location.transport == "containers-storage" and policy.has_scopes(location.transport):
        from digestry.copy.podman_storage import storage_location  # noqa: PLC0415

        scopes = storage_scopes(*storage_location(), location.name or "")
    policy.check(location.text, location.transport, scopes, around.session.connection.tell_once)


def _of_store(location: Location, around: Surroundings, kind: type) -> OpenSource:
    text = location.name or ""
    found = look_up(around.store, text, around.read)
    reference = found.reference
    source: ImageSource = kind(around.store, reference, found.descriptor)
    name = None if reference is None or reference.tag is None else reference.tag
    if reference is not None and reference.digest is not None:
        name = None
    return OpenSource(source, name, reference)


def _familiar(location: Location) -> str:
    if location.reference is not None:
        return location.reference.familiar
    return location.name or ""


def _path(location: Location) -> Path:
    assert location.path is not None  # noqa: S101 - places in files have one
    return location.path


def _made(directory: Path) -> Path:
    from digestry.fsio import PRIVATE, make_directory  # noqa: PLC0415 - an archive alone needs it

    make_directory(directory, mode=PRIVATE)
    return directory


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A target that is open, and the name in it that its location has."""

    target: ImageTarget
    name: str | None


def open_target(location: Location, around: Surroundings, opened: ExitStack) -> OpenTarget:
    """Open the place that images are copied to; it is closed with ``opened``.

    Raises as :func:`open_source` does.
    """
    if location.reference is None and location.transport in {"docker-daemon", "containers-storage"}:
        raise InvalidReference(f"{location} is a digest", hint="an engine's image needs a name: REPO:TAG")
    scratch, name = around.scratch, location.name
    target: ImageTarget
    match location.transport:
        case "docker":
            from digestry.copy.registry import RegistryTarget  # noqa: PLC0415

            assert location.reference is not None  # noqa: S101 - a registry's has one
            target = RegistryTarget(around.session.repository(location.reference))
        case "local":
            from digestry.copy.local import LocalTarget  # noqa: PLC0415

            reference = around.read(location.name or "")
            target = LocalTarget(around.store, reference)
            bare = reference.tag is None and reference.digest is None
            name = None if bare else reference.target
        case "oci":
            from digestry.copy.layout import LayoutTarget  # noqa: PLC0415

            target = LayoutTarget(_path(location), f"oci:{location.path}")
        case "oci-archive" | "docker-archive":
            from digestry.copy.archive import ArchiveTarget  # noqa: PLC0415

            for_docker = location.transport == "docker-archive"
            target = ArchiveTarget(
                _path(location), f"{location.transport}:{location.path}", for_docker=for_docker
            )
        case "docker-daemon":
            from digestry.copy.docker_engine import DockerEngineTarget  # noqa: PLC0415

            target = DockerEngineTarget(scratch, location.text)
        case "containers-storage":
            from digestry.copy.podman_storage import PodmanTarget  # noqa: PLC0415

            target = PodmanTarget(scratch, location.text)
    opened.callback(target.close)
    return OpenTarget(target, name)
