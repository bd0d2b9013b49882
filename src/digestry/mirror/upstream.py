"""One other registry: what its tags point to, its manifests, and its blobs as they come in.

Everything here blocks, and asks once: who calls knows when to ask again, and what to serve meanwhile.
But a connection that the other side gave up while it was idle is no answer: then it is asked on a new one.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

from digestry.client.answers import Answer
from digestry.client.credentials import Credential
from digestry.client.failures import broke_off
from digestry.client.options import ClientOptions
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import InvalidConfiguration, ProtocolViolation, Unreachable
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference

_CONNECT_TIMEOUT: Final = 3.0
_CONNECTIONS: Final = 32
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Where a registry is (``scheme://host[:port]``), and how it is asked.

    ``password_file`` is read whenever a password is wanted, so that it may change. ``authorities``
    is a file of certificates (PEM) that are trusted beside the system's. ``timeout`` is in seconds
    without a byte, ``patience`` for all of an answer, but for a blob's bytes.
    """

    host: str
    url: str
    username: str | None = None
    password_file: Path | None = None
    authorities: Path | None = None
    timeout: float = 10.0
    patience: float = 30.0


class _Login:
    """The one user that this registry is to the other."""

    def __init__(self, options: UpstreamOptions) -> None:
        self._options = options

    def problem(self, host: str) -> str:
        return ""

    def get(self, host: str, repository: str = "") -> Credential | None:
        options = self._options
        if host != options.host or options.username is None or options.password_file is None:
            return None
        try:
            password = options.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InvalidConfiguration(f"cannot read {options.password_file}: {reason}") from error
        return Credential(options.username, password)


class BlobStream:
    """A blob that is coming in, from byte ``start`` on. A context manager.

    ``size`` is of the whole blob, in bytes, as upstream says; None if it does not.
    """

    def __init__(self, answer: Answer, start: int = 0, size: int | None = None) -> None:
        self._answer = answer
        self.start = start
        self.size = size if answer.length is None else start + answer.length

    def read(self, count: int) -> bytes:
        """What has arrived, up to ``count`` bytes; empty at the end. Raises :class:`Unreachable`."""
        return self._answer.read_ready(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answer.close()


class ClientUpstream:
    """A registry, through the client. Thread-safe.

    Every method may raise :class:`Unreachable`, :class:`RemoteNotFound`, :class:`Unauthorized`,
    :class:`Refused` and :class:`ProtocolViolation`.
    """

    def __init__(self, options: UpstreamOptions) -> None:
        self._host = options.host
        address = urlsplit(options.url)
        plain = frozenset({options.host, address.netloc}) if address.scheme == "http" else frozenset()
        client = ClientOptions(
            insecure_hosts=plain,
            timeout=options.timeout,
            connect_timeout=_CONNECT_TIMEOUT,
            retries=0,
            parallel=_CONNECTIONS // 2,
            authorities=options.authorities,
            patience=options.patience,
        )
        self._session = Session(client, credentials=_Login(options))
        self._session.transport.place(options.host, options.url)

    def _repository(self, name: str) -> Repository:
        return self._session.repository(Reference(self._host, name))

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except Unreachable as error:
            # Whatever came between may have ended all that are as old.
            self._session.transport.drop_idle()
            if not broke_off(error):
                raise
        return question()

    def resolve(self, repository: str, target: str) -> Descriptor:
        """What a tag points to. It is asked with HEAD, which Docker Hub does not count as a pull."""
        return self._asked(lambda: self._repository(repository).resolve(target))

    def manifest(self, repository: str, target: str) -> Manifest:
        """A manifest or index, verified. Raises :class:`DigestMismatch`."""
        return self._asked(lambda: self._repository(repository).manifest(target))

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """A blob's size in bytes; None if upstream does not tell."""
        with self._asked(lambda: self._repository(repository).ask("HEAD", f"blobs/{digest}")) as answer:
            if answer.status != 200:
                answer.fail(f"find blob {digest} of {self._host}/{repository}")
            return answer.length

    def blob(self, repository: str, digest: Digest, start: int) -> BlobStream:
        """A blob from byte ``start`` on, or, from an upstream that cannot do that, from 0 on."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._asked(
            lambda: self._repository(repository).ask("GET", f"blobs/{digest}", headers=headers)
        )
        try:
            if answer.status == 206 and start:
                match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
                if match is None or int(match[1]) != start:
                    raise ProtocolViolation(
                        f"{answer.host} was asked for {digest} from byte {start}, and sends another part"
                    )
                return BlobStream(answer, start, None if match[2] == "*" else int(match[2]))
            if answer.status != 200:
                answer.fail(f"get blob {digest} of {self._host}/{repository}")
            return BlobStream(answer)
        except BaseException:
            answer.close()
            raise

    def tags(self, repository: str, most: int) -> list[str]:
        """The first ``most`` tags, in upstream's order."""
        return self._asked(lambda: list(itertools.islice(self._repository(repository).tags(), most)))

    def referrers(self, repository: str, digest: Digest) -> Sequence[Descriptor]:
        """What refers to ``digest``, by the referrers tag where upstream knows no such list."""
        return self._asked(lambda: self._repository(repository).referrers(digest))

    def close(self) -> None:
        """Ends all connections."""
        self._session.close()
