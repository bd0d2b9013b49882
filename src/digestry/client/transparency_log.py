"""The transparency log of a registry: its checkpoint, tiles and bundles of entries, as C2SP's ``tlog-tiles``
has them. Nothing is verified here but lengths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlencode

from digestry.client.connection import Connection
from digestry.client.endpoint import RegistryEndpoint, RepositoryEndpoint
from digestry.client.extensions import UNSUPPORTED
from digestry.client.journal import log_in
from digestry.client.paging import next_link, progress_of
from digestry.client.responses import Response
from digestry.errors import AnswerTooLong, ProtocolViolation, RemoteDamaged, RemoteNotFound, Unproven
from digestry.model.reference import Reference
from digestry.translog.entries import Opening, Openings
from digestry.translog.log_keys import LogKeys
from digestry.translog.merkle import HASH_SIZE
from digestry.translog.tiles import LONGEST_ENTRY, Tile

PREFIX: Final = "_digestry/log"
_LARGEST_CHECKPOINT: Final = 256 << 10
_LARGEST_KEYS: Final = 64 << 10
_LARGEST_PAGE: Final = 64 << 20
_PAGE: Final = 1000


class TransparencyLog:
    """The log of the registry ``host[:port]``. Thread-safe.

    Every method may raise :class:`~digestry.errors.Unreachable`, :class:`~digestry.errors.Unauthorized`,
    :class:`~digestry.errors.Refused` and :class:`~digestry.errors.ProtocolViolation`.
    """

    def __init__(self, connection: Connection, host: str) -> None:
        self.host = host
        self._connection = connection
        self._endpoint = RegistryEndpoint(connection, host)

    def checkpoint(self) -> bytes | None:
        """Return the note of the latest checkpoint; None if the registry has no log."""
        with self._endpoint.request("GET", f"{PREFIX}/checkpoint") as response:
            if response.status in UNSUPPORTED:
                return None
            return self._read(response, "get the checkpoint", _LARGEST_CHECKPOINT)

    def keys(self) -> LogKeys:
        """Return the name and the keys that the registry states for its log."""
        with self._endpoint.request("GET", f"{PREFIX}/keys") as response:
            if response.status != 200:
                response.fail(f"get the keys of the log of {self.host}")
            return response.json(LogKeys, _LARGEST_KEYS)

    def fetch(self, tiles: Sequence[Tile]) -> Mapping[Tile, bytes]:
        """Return the contents of tiles and of bundles of entries, several at a time.

        A partial one that is not there any more is taken from the whole one. Raises
        :class:`~digestry.errors.Unproven` for one that is not served: a checkpoint covers each that is asked
        for.
        """
        if len(tiles) == 1:
            return {tiles[0]: self._tile(tiles[0])}
        with ThreadPoolExecutor(self._connection.options.parallel) as threads:
            return dict(zip(tiles, threads.map(self._tile, tiles), strict=True))

    def openings(self, repository: str, *, tag: str | None = None, first: int = 0) -> Iterator[Opening]:
        """Yield the openings of the leaves of a repository, or of a ``tag`` of it, from the index ``first``
        on, by rising index. Raises :class:`~digestry.errors.RemoteNotFound` for an unknown repository."""
        endpoint = RepositoryEndpoint(self._connection, Reference(self.host, repository))
        progress = progress_of(self._connection, self.host)
        logged_in = False
        while True:
            began = time.monotonic()
            query = {"from": str(first), "n": str(_PAGE)} | ({} if tag is None else {"tag": tag})
            with endpoint.request("GET", f"{PREFIX}/openings?{urlencode(query)}") as response:
                if response.status != 200:
                    response.fail(f"get the openings of {endpoint.name} in the log")
                found = response.json(Openings, _LARGEST_PAGE).openings
                more = next_link(response.headers.get("Link")) is not None
            if not logged_in and any(not opening.rest for opening in found):
                logged_in = True
                if log_in(endpoint):
                    continue
            for opening in found:
                if opening.index < first:
                    raise Unproven(
                        f"{self.host} shows entries of {repository} that are not in its log's order",
                        hint="rows of its journal were changed, or it hides some",
                    )
                first = opening.index + 1
                yield opening
            if not more or not found:
                return
            progress.page(len(found), time.monotonic() - began)

    def _tile(self, tile: Tile) -> bytes:
        try:
            return self._served(tile)
        except RemoteNotFound as error:
            raise Unproven(
                f"{self.host} does not serve {tile.path} of its log, which its checkpoint covers:"
                f" {error.message}",
                hint="entries of its log are lost, or withheld",
            ) from error

    def _served(self, tile: Tile) -> bytes:
        with self._endpoint.request("GET", f"{PREFIX}/{tile.path}") as response:
            try:
                return self._read(response, f"get {tile.path} of the log", _longest(tile))
            except RemoteDamaged:
                raise
            except RemoteNotFound as error:
                if tile == tile.whole:
                    raise
                missing = error
        with self._endpoint.request("GET", f"{PREFIX}/{tile.whole.path}") as response:
            try:
                content = self._read(response, f"get {tile.path} of the log", _longest(tile.whole))
            except RemoteNotFound:
                raise missing from None
        return _beginning(tile, content)

    def _read(self, response: Response, action: str, limit: int) -> bytes:
        if response.status != 200:
            response.fail(action)
        try:
            return response.read(limit)
        except AnswerTooLong as error:
            raise ProtocolViolation(
                f"cannot {action} of {self.host}: the answer has more than {limit} bytes"
            ) from error


def _longest(tile: Tile) -> int:
    return tile.width * (HASH_SIZE if tile.level is not None else LONGEST_ENTRY + 2)


def _beginning(tile: Tile, content: bytes) -> bytes:
    """Return the partial tile that is the beginning of a whole one."""
    if tile.level is not None:
        return content[: tile.width * HASH_SIZE]
    place = 0
    for _ in range(tile.width):
        place += 2 + int.from_bytes(content[place : place + 2], "big")
    return content[:place]
