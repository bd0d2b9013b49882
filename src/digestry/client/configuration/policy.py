"""Containers' ``policy.json``: which images its ``reject`` rules forbid (containers-policy.json(5))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from digestry.client.configuration.rules import without_port
from digestry.client.configuration.toml_file import read_text
from digestry.errors import Forbidden, InvalidConfiguration

_ACCEPTS: Final = "insecureAcceptAnything"
_REJECTS: Final = "reject"
_SIGNATURES: Final = frozenset({"signedBy", "signedBaseLayer", "sigstoreSigned"})
_TRANSPORTS: Final = (
    "docker",
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "containers-storage",
)


class Policy:
    """The policy in one file. Immutable."""

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self._path = path
        self._default = _requirements(document.get("default"), f"{path}: default")
        transports = document.get("transports", {})
        if not isinstance(transports, dict):
            raise InvalidConfiguration(f"{path}: transports must be an object")
        self._scopes: dict[str, dict[str, tuple[str, ...]]] = {}
        for transport in _TRANSPORTS:
            scopes = transports.get(transport, {})
            where = f"{path}: transports.{transport}"
            if not isinstance(scopes, dict):
                raise InvalidConfiguration(f"{where} must be an object")
            self._scopes[transport] = {
                scope: _requirements(said, f"{where}[{scope!r}]") for scope, said in scopes.items()
            }

    @classmethod
    def read(cls, path: Path) -> Policy | None:
        """Return the policy in a file; None if there is no such file.

        Raises :class:`InvalidConfiguration`.
        """
        text = read_text(path)
        if text is None:
            return None
        try:
            document = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidConfiguration(f"{path} is not valid JSON: {error}") from error
        if not isinstance(document, dict):
            raise InvalidConfiguration(f"{path} must be an object")
        return cls(path, document)

    def requirements(self, transport: str, scopes: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """Return the deciding one of ``scopes``, the narrowest first, and its requirements.

        The transport's own default comes after them; the scope is ``default`` where none decides.
        """
        said = self._scopes.get(transport, {})
        for scope in (*scopes, ""):
            if scope in said:
                return f"transports.{transport}[{scope!r}]", said[scope]
        return "default", self._default

    def has_scopes(self, transport: str) -> bool:
        """Return whether it says anything of a transport but its default."""
        return any(self._scopes.get(transport, {}))

    def check(
        self, image: str, transport: str, scopes: Iterable[str], tell: Callable[[str], None] | None
    ) -> None:
        """Raise :class:`Forbidden` if the policy rejects the image, which is in ``scopes``.

        ``tell`` is called for a signature that the policy demands: digestry verifies none.
        """
        scope, demanded = self.requirements(transport, scopes)
        if _REJECTS in demanded:
            raise Forbidden(
                f"{image} is rejected: {self._path} says reject for {scope}",
                hint="ask who keeps that file, or use an image that it accepts",
            )
        unverified = [kind for kind in demanded if kind != _ACCEPTS]
        if unverified and tell is not None:
            tell(
                f"{self._path} demands a signature of {image} ({', '.join(unverified)} for {scope}), which "
                "digestry does NOT verify"
            )


def _requirements(said: object, where: str) -> tuple[str, ...]:
    if not isinstance(said, list) or not said or not all(isinstance(one, dict) for one in said):
        raise InvalidConfiguration(f"{where} must be a list of requirements that is not empty")
    kinds = tuple(str(one.get("type")) for one in said)
    for kind in kinds:
        if kind not in {_ACCEPTS, _REJECTS, *_SIGNATURES}:
            raise InvalidConfiguration(
                f"{where}: {kind!r} is not a type of requirement",
                hint=f"the types are {', '.join(sorted({_ACCEPTS, _REJECTS, *_SIGNATURES}))}",
            )
    return kinds


def image_scopes(image: str) -> Iterator[str]:
    """Yield the scopes of ``docker`` that the image of a registry is in, the narrowest first."""
    yield image
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = head + slash + last.partition(":")[0]
    while name:
        yield name
        name, slash, _ = name.rpartition("/")
    domain = without_port(image.partition("/")[0])
    while "." in domain:
        domain = domain.partition(".")[2]
        yield f"*.{domain}"


def storage_scopes(driver: str, root: str, name: str) -> Iterator[str]:
    """Yield the scopes of ``containers-storage`` that an image is in, the narrowest first.

    The storage is at ``root``, kept by ``driver``. ``name`` is the image's full name; it may be empty.
    """
    storage = f"[{driver}@{root}]"
    for scope in image_scopes(name):
        if not scope.startswith("*."):
            yield storage + scope
    yield from (storage, f"[{root}]")


def file_scopes(path: Path) -> Iterator[str]:
    """Yield the scopes of ``oci`` and ``oci-archive`` that all images in a file or directory are in."""
    whole = path.resolve()
    yield str(whole)
    yield from map(str, list(whole.parents)[:-1])
