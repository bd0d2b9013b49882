"""The registry's signing keys: files in ``ROOT/keys``, named by key ID.

The newest one signs, all of them verify: so a key is replaced while tokens of the old one are still
about. A file is written once, readable by its owner alone, and never changed.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Final

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from digestry import fsio
from digestry.errors import StorageError

log: Final = logging.getLogger("digestry.registry")

DIRECTORY: Final = "keys"
_SUFFIX: Final = ".json"
_CURVE: Final = "Ed25519"


class KeyRing:
    """The signing keys of one root. :meth:`refresh` reads them from the disk; all else is in memory."""

    def __init__(self, root: Path) -> None:
        self._directory = root / DIRECTORY
        self._keys: dict[str, OKPKey] = {}
        self._seen = -1
        self._signing = ""

    def ensure(self) -> None:
        """Create the first key if there is none. Raises :class:`StorageError`."""
        if not self._files():
            self.rotate()

    def rotate(self, *, retire: bool = False) -> str:
        """Create a new key, which signs from now on, and return its ID.

        With ``retire`` the others go: what they signed ends at once.
        """
        fsio.make_directory(self._directory)
        with fsio.storage_errors("protect", self._directory):
            self._directory.chmod(0o700)
        before = self._files()
        # Names in the order of time: the last one signs.
        kid = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
        key = OKPKey.generate_key(_CURVE, {"kid": kid, "use": "sig"}, private=True)
        content = json.dumps(key.as_dict(private=True)).encode()
        fsio.write_file(self._directory / f"{kid}{_SUFFIX}", content, mode=0o600)
        if retire:
            for file in before:
                fsio.remove_file(file)
        return kid

    def refresh(self) -> bool:
        """Read the keys again if the files changed, and return whether they did. Raises
        :class:`StorageError`."""
        with fsio.storage_errors("read", self._directory):
            stamp = self._directory.stat().st_mtime_ns
        if stamp == self._seen:
            return False
        keys = {}
        for file in self._files():
            kid = file.name.removesuffix(_SUFFIX)
            try:
                if file.stat().st_mode & 0o077:
                    raise StorageError(
                        f"{file} can be read by others", hint=f"make a new key if it was; chmod 600 {file}"
                    )
                keys[kid] = self._keys.get(kid) or OKPKey.import_key(json.loads(fsio.read_file(file)))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageError(f"cannot read the key {file}: {error.strerror}") from error
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, JoseError):
                # Not what is wrong with it, which may be a part of it.
                raise StorageError(
                    f"{file} holds no key", hint="remove it, or restore it from a backup"
                ) from None
        self._keys, self._seen = keys, stamp
        self._signing = max(keys, default="")
        return True

    def signing(self) -> tuple[str, OKPKey]:
        """Return the key that signs, and its ID. Raises :class:`StorageError`."""
        if not self._signing:
            raise StorageError("there is no key to sign tokens with", hint="digestry token rotate-key")
        return self._signing, self._keys[self._signing]

    def get(self, kid: object) -> OKPKey | None:
        """Return the key of this ID, also one that was just added."""
        if not isinstance(kid, str):
            return None
        if kid not in self._keys:
            try:
                self.refresh()
            except StorageError as error:
                log.error("%s", error.message)
        return self._keys.get(kid)

    def _files(self) -> list[Path]:
        with fsio.storage_errors("read", self._directory):
            if not self._directory.is_dir():
                return []
            return sorted(
                file
                for file in self._directory.iterdir()
                if file.name.endswith(_SUFFIX) and not file.name.startswith(".")
            )
