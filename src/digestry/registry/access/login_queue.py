"""A fair queue of passwords that wait to be verified, one at a time.

Clients that guess passwords cannot keep others out: addresses take turns, and at one address names take
turns, however many wait. Users who have logged in from there before go first; addresses that sent wrong
passwords, or very many, go last. In each of these three lanes, the network with the fewest waiting has every
second turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from digestry.coordination.protocol import LoginFailures
from digestry.registry.error_responses import ErrorResponse
from digestry.registry.proxies import share_of

MOST_WAITING: Final = 1024
"""Passwords that wait at once."""
MOST_OF_ONE: Final = 4
"""Passwords for one name that wait at once from one address."""
LONGEST_WAIT: Final = 30.0

_KNOWN, _NEW, _SUSPECT = range(3)
_LANES: Final = (_KNOWN, _NEW, _SUSPECT)
# One turn in eight each is for the lanes that would otherwise wait for all of those before them.
_ORDERS: Final = {3: (_NEW, _KNOWN, _SUSPECT), 7: (_SUSPECT, _NEW, _KNOWN)}
_PERIOD: Final = 8
_REMEMBERED: Final = 50_000
_SUSPECT_SECONDS: Final = 600.0
_STRIKES: Final = 8
"""Passwords without success from one address; with more it is suspect. A wrong one alone is too much."""
_FORGIVEN: Final = 3
_LONGEST_NAME: Final = 128


@dataclass(slots=True)
class _Ticket:
    name: str
    network: str
    work: Callable[[], bool]
    answer: asyncio.Future[bool]


@dataclass(slots=True)
class _Lane:
    """Waiting passwords by network and name, in fair order."""

    waiting: OrderedDict[str, OrderedDict[str, deque[_Ticket]]] = field(default_factory=OrderedDict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def add(self, ticket: _Ticket) -> None:
        names = self.waiting.setdefault(ticket.network, OrderedDict())
        names.setdefault(ticket.name, deque()).append(ticket)
        self._sizes[ticket.network] = self._sizes.get(ticket.network, 0) + 1

    def of(self, network: str, name: str) -> int:
        names = self.waiting.get(network)
        return 0 if names is None else len(names.get(name, ()))

    def pop(self, *, lightest: bool) -> _Ticket:
        """Remove and return the next ticket; its network, and its name there, go to the end.

        With ``lightest`` it is of the network with the fewest waiting: a login is one password, a guesser
        sends many.
        """
        network = min(self._sizes, key=self._sizes.__getitem__) if lightest else next(iter(self.waiting))
        names = self.waiting[network]
        name, tickets = next(iter(names.items()))
        ticket = tickets.popleft()
        self.waiting.move_to_end(network)
        names.move_to_end(name)
        self._clear(network, name)
        return ticket

    def heaviest(self) -> str:
        return max(self._sizes, key=self._sizes.__getitem__)

    def drop(self, network: str) -> _Ticket:
        """Remove the last ticket of the name that has the most in ``network``."""
        names = self.waiting[network]
        name = max(reversed(names), key=lambda user: len(names[user]))
        ticket = names[name].pop()
        self._clear(network, name)
        return ticket

    def take(self, network: str) -> list[_Ticket]:
        """Remove and return all tickets of ``network``, in order."""
        names = self.waiting.pop(network, OrderedDict())
        self._sizes.pop(network, None)
        return [ticket for tickets in names.values() for ticket in tickets]

    def _clear(self, network: str, name: str) -> None:
        names = self.waiting[network]
        self._sizes[network] -= 1
        if not names[name]:
            del names[name]
        if not names:
            del self.waiting[network], self._sizes[network]


class LoginQueue:
    """The queue of one worker process. Used on its event loop; one thread does the work.

    With ``failures`` strikes count at all nodes of the registry.
    """

    def __init__(self, failures: LoginFailures | None = None) -> None:
        self._failures = failures
        self._unshared: dict[str, int] = {}
        self._suspects: Mapping[str, int] = {}
        self._lanes = tuple(_Lane() for _ in _LANES)
        self._size = 0
        self._turn = 0
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._strikes: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._pump: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def share_failures(self) -> None:
        """Share the strikes with the other nodes, and learn which networks are suspect there.

        Raises :class:`StorageError`.
        """
        failures = self._failures
        if failures is None:
            return
        unshared, self._unshared = self._unshared, {}
        counts = {source: strikes for source, strikes in unshared.items() if strikes}
        self._suspects = await asyncio.to_thread(_exchange, failures, counts)

    async def verify(self, name: str, address: str, work: Callable[[], bool]) -> bool:
        """Call ``work`` for ``name`` from ``address`` when its turn has come, and return the result.

        Raises :class:`ErrorResponse` 429 if too many wait, or it waited for :data:`LONGEST_WAIT` seconds.
        """
        name, source = name[: _LONGEST_NAME + 1], share_of(address)
        self._strike(source, 1)
        lane = self._lane(name, source)
        if lane.of(source, name) >= MOST_OF_ONE:
            raise _too_many()
        ticket = _Ticket(name, source, work, asyncio.get_running_loop().create_future())
        lane.add(ticket)
        self._size += 1
        if self._size > MOST_WAITING:
            self._drop()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                return await ticket.answer
        except TimeoutError as error:
            raise _too_many() from error

    def _lane(self, name: str, source: str) -> _Lane:
        if (name, source) in self._known:
            return self._lanes[_KNOWN]
        return self._lanes[_NEW if self._struck(source) <= _STRIKES else _SUSPECT]

    def _struck(self, source: str) -> int:
        strikes, until = self._strikes.get(source, (0, 0.0))
        return max(strikes if until > time.monotonic() else 0, self._suspects.get(source, 0))

    def _strike(self, source: str, by: int) -> None:
        before = self._struck(source)
        self._strikes[source] = max(0, before + by), time.monotonic() + _SUSPECT_SECONDS
        self._strikes.move_to_end(source)
        if self._failures is not None and len(self._unshared) < _REMEMBERED:
            self._unshared[source] = self._unshared.get(source, 0) + by
        while len(self._strikes) > _REMEMBERED:
            self._strikes.popitem(last=False)
        if before <= _STRIKES < before + by:
            for ticket in self._lanes[_NEW].take(source):
                self._lanes[_SUSPECT].add(ticket)

    def _drop(self) -> None:
        """Make room: drop a ticket of the network with the most in the last lane."""
        lane = next(lane for lane in reversed(self._lanes) if lane.waiting)
        ticket = lane.drop(lane.heaviest())
        self._size -= 1
        if not ticket.answer.done():
            ticket.answer.set_exception(_too_many())

    async def _run(self) -> None:
        for ticket in self._tickets():
            if ticket.answer.done():
                continue  # no client waits for it
            try:
                right = await asyncio.get_running_loop().run_in_executor(self._thread, ticket.work)
            except Exception as error:  # noqa: BLE001 - the waiting request gets it
                if not ticket.answer.done():
                    ticket.answer.set_exception(error)
                continue
            self._note(ticket, right=right)
            if not ticket.answer.done():
                ticket.answer.set_result(right)

    def _tickets(self) -> Iterator[_Ticket]:
        while self._size:
            order = _ORDERS.get(self._turn % _PERIOD, _LANES)
            self._turn += 1
            lane = next(self._lanes[number] for number in order if self._lanes[number].waiting)
            self._size -= 1
            yield lane.pop(lightest=bool(self._turn % 2))

    def _note(self, ticket: _Ticket, *, right: bool) -> None:
        pair = ticket.name, ticket.network
        if right:
            self._strike(ticket.network, -1)
            self._known[pair] = 0
            self._known.move_to_end(pair)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        elif pair in self._known:
            self._known[pair] += 1
            if self._known[pair] > _FORGIVEN:
                del self._known[pair]
        else:
            self._strike(ticket.network, _STRIKES)


def _exchange(failures: LoginFailures, counts: Mapping[str, int]) -> Mapping[str, int]:
    if counts:
        failures.add(counts, _SUSPECT_SECONDS)
    return failures.suspects(_STRIKES)


def _too_many() -> ErrorResponse:
    return ErrorResponse(
        429,
        "TOOMANYREQUESTS",
        "too many passwords are waiting to be verified; try again in a moment",
        headers={"Retry-After": "2"},
    )
