"""What this user has seen of logs: keys, the last checkpoint of each, and evidence of contradictions.

A directory for each registry:

=================  =======================================================================================
``seen.json``      The keys that are trusted, and the last checkpoint that was verified.
``repositories/``  For each repository that was verified: how far, and what it showed.
``evidence/``      A directory for each contradiction, with both checkpoints. It is never changed.
``.lock``          Held while ``seen.json`` is read and written: two processes at once are serialised.
=================  =======================================================================================
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import quote, unquote

import msgspec

from digestry.errors import StorageError
from digestry.file_locks import locked
from digestry.fsio import make_directory, move, read_file, storage_errors, sweep_temporaries, write_file
from digestry.model.json_types import prepared
from digestry.translog.notes import VerifierKey, parse_verifier_key

_LARGEST: Final = 16 << 20
_MOST_EVIDENCE: Final = 100
_PRIVATE: Final = 0o700
_READABLE: Final = 0o600
_T = TypeVar("_T")


class TrustedKey(msgspec.Struct, frozen=True):
    """A log's key, as C2SP signed-note writes verifier keys, and why it is trusted."""

    vkey: str
    since: datetime.datetime
    why: Literal["first use", "given", "rotated"]


class SeenLog(msgspec.Struct, frozen=True):
    """The last checkpoint of a log that was verified. ``at`` is when."""

    origin: str
    keys: tuple[TrustedKey, ...]
    size: int
    root: str
    checkpoint: str
    at: datetime.datetime


class SeenRepository(msgspec.Struct, frozen=True):
    """What was verified of a repository's entries.

    All entries of the log up to ``scanned`` were read: ``positions`` are the indices of those in clear that
    are of this repository, with their tags, and ``last_sealed`` is the last one that may be of any. ``last``
    is the index of the last entry that the registry showed of each tag.
    """

    repository: str
    origin: str
    scanned: int = 0
    positions: dict[int, str] = {}
    last_sealed: int = -1
    last: dict[str, int] = {}


class Evidence(msgspec.Struct, frozen=True):
    """What is in ``reason.json`` of a contradiction."""

    registry: str
    reason: str
    at: datetime.datetime


class SeenLogs:
    """The directory of all logs that this user has seen. Nothing is made before something is written.

    Every method raises :class:`StorageError`, also for a file that is damaged: what it said cannot be known
    any more, and to begin anew would trust whatever is shown now.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def of(self, host: str) -> HostRecords:
        """Return what was seen of the log of the registry ``host[:port]``."""
        return HostRecords(self.directory / quote(host, safe=".:[]-"), host)

    def keys_of(self, origin: str) -> list[VerifierKey]:
        """Return the keys that are trusted of the log with this origin."""
        found = [key for seen in self.with_origin(origin).values() for key in seen.keys]
        return list(dict.fromkeys(parse_verifier_key(key.vkey) for key in found))

    def with_origin(self, origin: str, *, skip_damaged: bool = False) -> dict[str, SeenLog]:
        """Return what was seen of the log with this origin, by the ``host[:port]`` that showed it."""
        with storage_errors("list", self.directory):
            try:
                directories = sorted(self.directory.iterdir())
            except FileNotFoundError:
                return {}
        found = {}
        for path in directories:
            try:
                seen = HostRecords(path, path.name).read()
            except StorageError:
                if not skip_damaged:
                    raise
                continue
            if seen is not None and seen.origin == origin:
                found[unquote(path.name)] = seen
        return found


class HostRecords:
    """What was seen of one registry's log."""

    def __init__(self, directory: Path, host: str) -> None:
        self.directory = directory
        self.host = host

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other processes of this user while the block compares and writes."""
        make_directory(self.directory, mode=_PRIVATE)
        with locked(self.directory / ".lock", mode=_READABLE):
            yield

    def read(self) -> SeenLog | None:
        """Return what was seen last; None if nothing was."""
        return _read(self.directory / "seen.json", SeenLog)

    def write(self, seen: SeenLog) -> None:
        """Set what was seen last, durably. The caller holds the lock."""
        write_file(self.directory / "seen.json", _encoded(seen), mode=_READABLE)

    def put_aside(self, at: datetime.datetime) -> Path | None:
        """Move what was seen to a directory of its own, and return that; None if nothing was seen.

        Evidence stays where it is.
        """
        if self.read() is None:
            return None
        with self.locked():
            place = self.directory / "former" / at.strftime("%Y%m%dT%H%M%S%fZ")
            make_directory(place, mode=_PRIVATE)
            # The repositories first: without seen.json they mean nothing.
            for name in ("repositories", "seen.json"):
                if (self.directory / name).exists():
                    move(self.directory / name, place / name)
            return place

    def read_repository(self, repository: str) -> SeenRepository | None:
        """Return what was verified of a repository; None if nothing was."""
        return _read(self._repository_file(repository), SeenRepository)

    def write_repository(self, seen: SeenRepository) -> None:
        """Set what was verified of a repository, durably. The caller holds the lock."""
        path = self._repository_file(seen.repository)
        make_directory(path.parent, mode=_PRIVATE)
        write_file(path, _encoded(seen), mode=_READABLE)

    def keep_evidence(self, reason: str, files: Mapping[str, bytes], at: datetime.datetime) -> Path:
        """Keep ``files`` as evidence of a contradiction, and return their directory.

        Evidence that is there stays as it is: the same files are kept once. Of more than a hundred
        contradictions the first ones are kept, and one of those is returned: no registry is to fill the disk.
        """
        digest = hashlib.sha256()
        for name, content in sorted(files.items()):
            digest.update(b"%s %d\n%s" % (name.encode(), len(content), content))
        place = self.directory / "evidence" / digest.hexdigest()[:32]
        if (place / "reason.json").exists():
            return place
        if len(found := self.evidence()) >= _MOST_EVIDENCE:
            return found[0]
        unfinished = place.with_name(f".{place.name}.new")
        make_directory(unfinished, mode=_PRIVATE)
        sweep_temporaries(unfinished)
        for name, content in files.items():
            write_file(unfinished / name, content, mode=_READABLE)
        write_file(unfinished / "reason.json", _encoded(Evidence(self.host, reason, at)), mode=_READABLE)
        try:
            move(unfinished, place)
        except StorageError:
            if not (place / "reason.json").exists():  # another process kept the same
                raise
        return place

    def evidence(self) -> list[Path]:
        """Return the directories of all evidence."""
        try:
            return sorted(
                path for path in (self.directory / "evidence").iterdir() if not path.name.startswith(".")
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"cannot list {self.directory / 'evidence'}: {error.strerror}") from error

    def _repository_file(self, repository: str) -> Path:
        name = quote(repository, safe=".-_")
        if len(name) > 200:
            name = hashlib.sha256(repository.encode()).hexdigest()
        return self.directory / "repositories" / f"{name}.json"


def _encoded(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        with storage_errors("read", path):
            raw = read_file(path, _LARGEST)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        return msgspec.json.decode(raw, type=prepared(kind))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path} is damaged: {error}",
            hint="it says which log was trusted and seen; look at it, and remove it only if you are sure that"
            " the log may be trusted anew",
        ) from error
