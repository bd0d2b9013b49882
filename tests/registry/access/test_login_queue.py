"""Who guesses passwords keeps nobody out, and learns no names: the order, and the cost, of verifications."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from digestry.registry.access import login_queue, passwords
from digestry.registry.access.login_queue import MOST_OF_ONE, MOST_WAITING, LoginQueue
from digestry.registry.access.passwords import Passwords
from digestry.registry.error_responses import ErrorResponse
from tests.support import PATIENCE


class Turns:
    """Records in which order the queue calls, each of which says whether the password was right."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.queue = LoginQueue()
        self.tasks: list[asyncio.Task[bool]] = []
        self.open = threading.Event()

    def hold(self) -> bool:
        return self.open.wait(PATIENCE)

    def work(self, label: str, *, right: bool) -> Callable[[], bool]:
        def call() -> bool:
            self.done.append(label)
            return right

        return call

    async def ask(self, name: str, address: str, label: str = "", *, right: bool = False) -> None:
        """Stands in line, behind one that keeps the thread until :meth:`end`; returns at once."""
        if not self.tasks:
            self.open.clear()
            self.tasks.append(asyncio.create_task(self.queue.verify("hold", "", self.hold)))
            await asyncio.sleep(0)
        work = self.work(label or f"{name}@{address}", right=right)
        self.tasks.append(asyncio.create_task(self.queue.verify(name, address, work)))
        await asyncio.sleep(0)

    async def end(self) -> list[int]:
        """Waits for all; how many were refused, by status."""
        self.open.set()
        found = await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        statuses = [each.status for each in found if isinstance(each, ErrorResponse)]
        assert all(isinstance(each, bool | ErrorResponse) for each in found), found
        return statuses


def run(scene: Callable[[Turns], object]) -> None:
    async def main() -> None:
        turns = Turns()
        try:
            await scene(turns)  # type: ignore[misc]
        finally:
            turns.queue.close()

    asyncio.run(main())


def test_who_comes_from_elsewhere_passes_a_flood() -> None:
    """40 addresses that guess the same name without a pause: who is new is next but for a few."""

    async def scene(turns: Turns) -> None:
        for number in range(40):
            await turns.ask("alice", f"192.0.2.{number}", "first guess")
        assert await turns.end() == []
        turns.done.clear()
        for number in range(40):
            for guess in range(MOST_OF_ONE):
                await turns.ask("alice", f"192.0.2.{number}", f"guess {guess}")
        await turns.ask("alice", "198.51.100.1", "right", right=True)
        assert await turns.end() == []
        assert turns.done.index("right") < 4

    run(scene)


def test_who_comes_while_a_flood_begins_is_served_soon() -> None:
    """Nobody of them has failed yet: who sends one password goes before who sends many."""

    async def scene(turns: Turns) -> None:
        for number in range(200):
            for _ in range(MOST_OF_ONE):
                await turns.ask("alice", f"192.0.2.{number}", "guess")
        await turns.ask("alice", "198.51.100.1", "right", right=True)
        assert await turns.end() == []
        assert turns.done.index("right") < 4

    run(scene)


@pytest.mark.long
def test_more_addresses_than_can_wait_keep_nobody_out() -> None:
    """None of them is ever verified: that they ask again and again is enough."""

    async def scene(turns: Turns) -> None:
        for _ in range(10):
            for number in range(MOST_WAITING + 200):
                await turns.ask("alice", f"10.1.{number // 250}.{number % 250}", "guess")
        await turns.ask("alice", "198.51.100.1", "right", right=True)
        assert set(await turns.end()) == {429}
        assert turns.done.index("right") < 4
        assert len(turns.done) <= MOST_WAITING + 1

    run(scene)


def test_who_is_known_goes_before_who_is_new() -> None:
    async def scene(turns: Turns) -> None:
        await turns.ask("alice", "198.51.100.1", right=True)
        assert await turns.end() == []
        for number in range(500):  # each from an address of its own, so that none has failed yet
            await turns.ask("alice", f"10.0.{number // 250}.{number % 250}", "new")
        await turns.ask("alice", "198.51.100.1", "known", right=True)
        assert await turns.end() == []
        assert turns.done.index("known") < 4

    run(scene)


def test_one_address_has_one_share_however_much_it_asks() -> None:
    async def scene(turns: Turns) -> None:
        for number in range(300):
            await turns.ask(f"user{number}", f"2001:db8::{number:x}", "many")  # all of one /64
        await turns.ask("bob", "2001:db8:0:1::1", "bob")
        assert await turns.end() == []
        assert turns.done.index("bob") < 4

    run(scene)


def test_different_users_behind_one_address_are_never_refused() -> None:
    async def scene(turns: Turns) -> None:
        for number in range(500):
            await turns.ask(f"user{number}", "127.0.0.1", right=True)
        assert await turns.end() == []
        assert len(turns.done) == 500

    run(scene)


@pytest.mark.long
def test_what_waits_is_bounded_and_who_asks_most_loses_it() -> None:
    async def scene(turns: Turns) -> None:
        for number in range(3 * MOST_WAITING):
            await turns.ask(f"{number}", "192.0.2.1", "flood")
        await turns.ask("alice", "198.51.100.1", "alice", right=True)
        statuses = await turns.end()
        assert set(statuses) == {429}
        assert len(turns.done) <= MOST_WAITING + 10
        assert "alice" in turns.done

    run(scene)


def test_one_name_from_one_address_waits_so_often() -> None:
    async def scene(turns: Turns) -> None:
        for number in range(20):
            await turns.ask("alice", "192.0.2.1", str(number))
        assert await turns.end() == [429] * (20 - MOST_OF_ONE)

    run(scene)


def test_who_has_failed_is_served_too() -> None:
    """A typo is no crime: one turn in eight is theirs, whoever else comes."""

    async def scene(turns: Turns) -> None:
        await turns.ask("alice", "192.0.2.1")
        await turns.end()
        turns.done.clear()
        for number in range(200):
            await turns.ask("bob", f"10.0.0.{number}", "other", right=True)
        await turns.ask("alice", "192.0.2.1", "again", right=True)
        await turns.end()
        assert turns.done.index("again") < 10

    run(scene)


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_queue, "LONGEST_WAIT", 0.01)

    async def scene(turns: Turns) -> None:
        blocked = threading.Event()
        first = asyncio.create_task(turns.queue.verify("a", "192.0.2.1", blocked.wait))
        await asyncio.sleep(0)
        turns.tasks.append(first)
        await turns.ask("b", "192.0.2.2")
        assert await turns.end() == [429, 429]
        blocked.set()
        assert turns.done == []  # it was not worth the work any more

    run(scene)


# -- what a verification costs ---------------------------------------------------------------------


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of bcrypt that were calculated."""
    spent: list[int] = []

    def counting(original: Callable[[bytes, bytes], object]) -> Callable[[bytes, bytes], object]:
        def call(password: bytes, hashed: bytes) -> object:
            spent.append(2 ** int(hashed[4:6]))
            return original(password, hashed)

        return call

    monkeypatch.setattr(bcrypt, "checkpw", counting(bcrypt.checkpw))
    monkeypatch.setattr(bcrypt, "hashpw", counting(bcrypt.hashpw))
    return spent


def users(directory: Path, costs: tuple[int, ...]) -> Passwords:
    file = directory / "users"
    lines = (
        f"user{n}:{bcrypt.hashpw(b'right', bcrypt.gensalt(cost)).decode()}\n" for n, cost in enumerate(costs)
    )
    file.write_text("".join(lines))
    found = Passwords(file)
    found.start()
    return found


@pytest.mark.parametrize("costs", [(), (5,), (4, 8, 6), (8, 4, 4, 5)])
@pytest.mark.parametrize("password", ["wrong", "", "w" * 100, "with\0zero"])
def test_a_wrong_password_costs_the_same_for_every_name(
    tmp_path: Path, rounds: list[int], costs: tuple[int, ...], password: str
) -> None:
    known = users(tmp_path, costs)
    expected = 2 ** max(costs, default=10)
    try:
        for name in ("nobody", "", "x" * 5000, *(f"user{number}" for number in range(len(costs)))):
            rounds.clear()
            asked = known.verify(name, password, key=os.urandom(8), address="192.0.2.1")
            assert asyncio.run(asked) is False
            assert sum(rounds) == expected, name
    finally:
        known.close()


def test_what_was_right_is_remembered_whatever_is_guessed(tmp_path: Path, rounds: list[int]) -> None:
    known = users(tmp_path, (4,))

    async def scene() -> None:
        assert await known.verify("user0", "right", key=b"right", address="192.0.2.1")
        for number in range(50):
            await known.verify("user0", str(number), key=b"%d" % number, address="192.0.2.2")
        rounds.clear()
        assert await known.verify("user0", "right", key=b"right", address="203.0.113.9")
        assert rounds == []

    asyncio.run(scene())
    known.close()


def test_the_remembered_wrong_ones_never_push_out_a_right_one(
    tmp_path: Path, rounds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_KEPT", 3)
    known = users(tmp_path, (4,))

    async def scene() -> None:
        assert await known.verify("user0", "right", key=b"right", address="192.0.2.1")
        for number in range(10):
            await known.verify("user0", str(number), key=b"%d" % number, address="192.0.2.2")
        rounds.clear()
        assert await known.verify("user0", "right", key=b"right", address="203.0.113.9")
        assert rounds == []

    asyncio.run(scene())
    known.close()


def test_the_order_of_lanes_leaves_each_its_turns() -> None:
    orders = [login_queue._ORDERS.get(turn, login_queue._LANES)[0] for turn in range(login_queue._PERIOD)]
    assert orders.count(0) >= 5
    assert {*orders} == {0, 1, 2}
