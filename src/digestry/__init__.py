"""digestry: container images by digest, in a registry, in a local store, and in an audit of what runs.

The names below are the public interface; everything else may change without notice. They are loaded when they
are first used. ``docs/library.md`` shows them at work::

    import digestry

    with digestry.Registry("localhost:5000") as registry:
        app = registry.repository("team/app")
        print(app.resolve("1.5").digest)

- :class:`Registry` and :class:`Repository` ask a registry; :class:`Session` shares connections and logins.
- :func:`log_in` asks a registry to take a login, and :class:`CredentialFile` keeps it.
- :class:`LocalStore` keeps images in a directory.
- :class:`Image` and :class:`Index` are manifests: values over exact bytes.
- :class:`Digest`, :class:`Reference`, :class:`Descriptor` and :class:`Platform` are the values that they are
  made of.
- :mod:`digestry.audit` finds out which digest every container runs, and whether it is a bad one.
- :mod:`digestry.errors` has every error that is raised on purpose.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from digestry.version import __version__

if TYPE_CHECKING:
    from digestry import audit, errors
    from digestry.client.credential_file import CredentialFile
    from digestry.client.credentials import Credential, StaticCredentials
    from digestry.client.login import Login, log_in
    from digestry.client.options import ClientOptions
    from digestry.client.registry import Registry
    from digestry.client.repository import Repository
    from digestry.client.session import Session
    from digestry.client.tag_removal import DigestTags
    from digestry.images.listing import DamagedImage, StoredImage
    from digestry.images.local_store import LocalStore
    from digestry.images.pruning import Prunable
    from digestry.images.pull import PullResult
    from digestry.images.push import PushResult
    from digestry.images.validation import Validation
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest
    from digestry.model.history import TagEvent
    from digestry.model.image_config import ImageConfig
    from digestry.model.manifest import Image, Index
    from digestry.model.platform import Platform
    from digestry.model.reference import Reference
    from digestry.verifier.log_view import LogVerifier
    from digestry.verifier.seen_logs import SeenLogs
    from digestry.verifier.trust import LogTrust

__all__ = [
    "ClientOptions",
    "Credential",
    "CredentialFile",
    "DamagedImage",
    "Descriptor",
    "Digest",
    "DigestTags",
    "Image",
    "ImageConfig",
    "Index",
    "LocalStore",
    "LogTrust",
    "LogVerifier",
    "Login",
    "Platform",
    "Prunable",
    "PullResult",
    "PushResult",
    "Reference",
    "Registry",
    "Repository",
    "SeenLogs",
    "Session",
    "StaticCredentials",
    "StoredImage",
    "TagEvent",
    "Validation",
    "__version__",
    "audit",
    "errors",
    "log_in",
]

_MODULES: Final = {
    "ClientOptions": "digestry.client.options",
    "Credential": "digestry.client.credentials",
    "CredentialFile": "digestry.client.credential_file",
    "DamagedImage": "digestry.images.listing",
    "Descriptor": "digestry.model.descriptor",
    "Digest": "digestry.model.digest",
    "DigestTags": "digestry.client.tag_removal",
    "Image": "digestry.model.manifest",
    "ImageConfig": "digestry.model.image_config",
    "Index": "digestry.model.manifest",
    "LocalStore": "digestry.images.local_store",
    "LogTrust": "digestry.verifier.trust",
    "LogVerifier": "digestry.verifier.log_view",
    "Login": "digestry.client.login",
    "Platform": "digestry.model.platform",
    "Prunable": "digestry.images.pruning",
    "PullResult": "digestry.images.pull",
    "PushResult": "digestry.images.push",
    "Reference": "digestry.model.reference",
    "Registry": "digestry.client.registry",
    "Repository": "digestry.client.repository",
    "SeenLogs": "digestry.verifier.seen_logs",
    "Session": "digestry.client.session",
    "StaticCredentials": "digestry.client.credentials",
    "StoredImage": "digestry.images.listing",
    "TagEvent": "digestry.model.history",
    "Validation": "digestry.images.validation",
    "log_in": "digestry.client.login",
}
"""The module of each public class and function."""


if not TYPE_CHECKING:  # a type checker must know the names, and no others

    def __getattr__(name: str) -> object:
        """Return a public name, loaded now (PEP 562). Raises :class:`AttributeError` for any other."""
        if name in _MODULES:
            value: object = getattr(importlib.import_module(_MODULES[name]), name)
        elif name in {"audit", "errors"}:
            value = importlib.import_module(f"digestry.{name}")
        else:
            raise AttributeError(f"module 'digestry' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
