"""Queries about the fleet, as agents reported it to a registry: who ran what, where and when."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlencode

from digestry.client.connection import Connection
from digestry.client.extensions import UNSUPPORTED
from digestry.client.transport import Call
from digestry.errors import ProtocolViolation, RemoteError
from digestry.model.descriptor import decode_hook
from digestry.model.digest import Digest
from digestry.model.fleet_answers import (
    MOST_ROWS,
    FleetChanges,
    FleetPlaces,
    FleetRuns,
    FleetSummary,
    FleetTimeline,
)
from digestry.model.timestamps import rfc3339

_LARGEST: Final = 64 << 20
_SCOPES: Final = ("registry:catalog:*",)
_MOST_PAGES: Final = 10_000

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class FleetChoice:
    """A choice of containers: all that is given is true of them.

    ``digest`` is of an image's index, manifest, config or layer; ``reference`` a repository, or what its tag
    points to; ``vulnerability`` one that affects the image; ``place`` a host or cluster, with all within it.
    """

    digest: Digest | None = None
    reference: str = ""
    vulnerability: str = ""
    place: str = ""

    def parameters(self) -> dict[str, str]:
        """Return the choice as parameters of a request."""
        given = {
            "digest": "" if self.digest is None else str(self.digest),
            "reference": self.reference,
            "vulnerability": self.vulnerability,
            "place": self.place,
        }
        return {name: value for name, value in given.items() if value}


EVERYTHING: Final = FleetChoice()


class Fleet:
    """The fleet of the registry at ``host``. Each query raises :class:`~digestry.errors.RemoteError`, also
    if the registry keeps no fleet."""

    def __init__(self, connection: Connection, host: str) -> None:
        self._connection = connection
        self._host = host

    def runs(
        self,
        choice: FleetChoice = EVERYTHING,
        *,
        at: datetime.datetime | None = None,
        ever: bool = False,
        with_images: bool = False,
    ) -> Iterator[FleetRuns]:
        """Yield pages of the chosen runs: those that run first, then the latest.

        Those that ran at the time ``at``, or with ``ever`` all that ever ran; else those that run now. The
        images have their reports ``with_images``.
        """
        parameters = choice.parameters() | {"n": str(MOST_ROWS)}
        if at is not None:
            parameters["at"] = rfc3339(at)
        if ever:
            parameters["ever"] = "1"
        if with_images:
            parameters["with-images"] = "1"
        after = ""
        for _ in range(_MOST_PAGES):
            page = self._ask("runs", parameters | ({"after": after} if after else {}), FleetRuns)
            yield page
            if not page.next:
                return
            after = self._following(after, page.next)

    def changes(self, since: datetime.datetime, choice: FleetChoice = EVERYTHING) -> Iterator[FleetChanges]:
        """Yield pages of what started and stopped after ``since``, the oldest first."""
        parameters = choice.parameters() | {"since": rfc3339(since), "n": str(MOST_ROWS)}
        after = ""
        for _ in range(_MOST_PAGES):
            page = self._ask("changes", parameters | ({"after": after} if after else {}), FleetChanges)
            yield page
            if not page.next:
                return
            after = self._following(after, page.next)

    def places(self) -> Iterator[FleetPlaces]:
        """Yield pages of the agents and what they look at, the longest silent first."""
        parameters = {"n": str(MOST_ROWS)}
        after = ""
        for _ in range(_MOST_PAGES):
            page = self._ask("places", parameters | ({"after": after} if after else {}), FleetPlaces)
            yield page
            if not page.next:
                return
            after = self._following(after, page.next)

    def summary(self) -> FleetSummary:
        """Return how many containers run, by the audit's state of their images."""
        return self._ask("summary", {}, FleetSummary)

    def timeline(self, choice: FleetChoice) -> FleetTimeline:
        """Return how many of the chosen containers ran over time; ``choice`` is not everything."""
        return self._ask("timeline", choice.parameters(), FleetTimeline)

    def _following(self, before: str, after: str) -> str:
        if after == before:
            raise ProtocolViolation(f"{self._host} answers with the same page of its fleet again and again")
        return after

    def _ask(self, what: str, parameters: Mapping[str, str], kind: type[_Answer]) -> _Answer:
        base = f"{self._connection.base(self._host)}/v2/"
        # A registry may answer anonymous requests with less: /v2/ gives the challenge to log in.
        self._connection.send(self._host, Call("GET", base), _SCOPES).close()
        query = f"?{urlencode(parameters)}" if parameters else ""
        call = Call("GET", f"{base}_digestry/fleet/{what}{query}")
        with self._connection.send(self._host, call, _SCOPES) as response:
            if response.status in UNSUPPORTED:
                raise RemoteError(
                    f"{self._host} keeps no record of what runs",
                    hint="that is for a digestry registry to which digestry agents report (docs/fleet.md)",
                )
            if response.status != 200:
                response.fail("ask what runs")
            return response.json(kind, _LARGEST, dec_hook=decode_hook)
