"""The names of places that images are copied from and to: ``TRANSPORT:REST``, or a registry's image.

The spellings are those of containers-transports(5), as in skopeo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from digestry.errors import InvalidReference
from digestry.model.digest import Digest, shown
from digestry.model.reference import Reference
from digestry.model.text import did_you_mean

Transport = Literal[
    "docker", "local", "oci", "oci-archive", "docker-archive", "docker-daemon", "containers-storage"
]

TRANSPORTS: Final[dict[Transport, str]] = {
    "docker": "docker://HOST/REPO[:TAG|@DIGEST], or without docker://: an image of a registry",
    "local": "local:NAME: an image of the local store",
    "oci": "oci:DIR[:NAME|@DIGEST]: an image of an OCI layout",
    "oci-archive": "oci-archive:FILE[:NAME|@DIGEST]: an image of an OCI layout in a tar file",
    "docker-archive": "docker-archive:FILE[:REPO:TAG]: an image of a file of `docker save`",
    "docker-daemon": "docker-daemon:NAME: an image of the docker engine",
    "containers-storage": "containers-storage:NAME: an image of podman's storage",
}
"""Each transport and its spelling."""

_OTHERS: Final = frozenset({"dir", "sif", "ostree", "tarball", "atomic"})
"""Transports of skopeo and podman that are no places here, and that would be names of Docker Hub's images."""
_FILES: Final = ("oci", "oci-archive", "docker-archive")


@dataclass(frozen=True, slots=True)
class Location:
    """One image, or the place where images are.

    ``path`` is set for places in files, ``reference`` for images with a full name. ``name`` is the name in
    the place; None if none was given.
    """

    transport: Transport
    text: str
    path: Path | None = None
    reference: Reference | None = None
    name: str | None = None

    def __str__(self) -> str:
        return self.text


def parse_location(text: str, read: Callable[[str], Reference]) -> Location:
    """Return the place that ``text`` names; ``read`` makes a full name of a registry's image.

    The names in engines, and in their files, are read as docker reads them: without a host they are those of
    Docker Hub. Raises :class:`InvalidReference`, which says how places are named.
    """
    head, colon, rest = text.partition(":")
    transport = next((known for known in TRANSPORTS if colon and known == head), None)
    if transport == "docker" and rest.startswith("//"):
        return _of_registry(text, rest[2:], read)
    if transport in _FILES:
        return _in_files(text, transport, rest)
    if transport is not None and transport != "docker":
        return _by_name(text, transport, rest)
    if colon and head in _OTHERS:
        raise InvalidReference(
            f"{shown(head)} is a transport of skopeo, and no place here",
            hint=f"Docker Hub's image of that name is docker://docker.io/library/{head}; {_spellings()}",
        )
    if "://" in text:
        raise InvalidReference(
            f"{shown(head)} is no transport{did_you_mean(head, list(TRANSPORTS))}", hint=_spellings()
        )
    return _of_registry(text, text, read)


def _spellings() -> str:
    return "places are " + "; ".join(TRANSPORTS.values())


def _of_registry(text: str, rest: str, read: Callable[[str], Reference]) -> Location:
    reference = read(rest)
    name = None if reference.tag is None and reference.digest is None else reference.target
    return Location("docker", text, None, reference, name)


def _by_name(text: str, transport: Transport, rest: str) -> Location:
    if not rest or rest.startswith("["):
        raise InvalidReference(
            f"{shown(text)} names no image" if not rest else f"{shown(text)} names a storage of its own",
            hint=TRANSPORTS[transport],
        )
    if transport != "local" and rest.startswith("sha256:"):
        Digest.parse(rest)
        return Location(transport, text, None, None, rest)
    if transport == "local":
        return Location(transport, text, None, None, rest)  # the store knows more names than full ones
    reference = Reference.parse(rest).or_latest()
    return Location(transport, text, None, reference, str(reference))


def _in_files(text: str, transport: Transport, rest: str) -> Location:
    path, at, digest = rest.partition("@")
    if at and digest.startswith(("sha256:", "sha512:")):
        name: str | None = str(Digest.parse(digest))
    else:
        path, _, name = rest.partition(":")
        name = name or None
    if not path or "\0" in path:
        raise InvalidReference(f"{shown(text)} names no file", hint=TRANSPORTS[transport])
    reference = None
    if transport == "docker-archive" and name is not None and not name.startswith("sha256:"):
        reference = Reference.parse(name).or_latest()
        name = str(reference)
    return Location(transport, text, Path(path), reference, name)
