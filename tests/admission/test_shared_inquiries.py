"""Asking registries for many requests at once: together, once, and no longer than a request may wait."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from digestry.admission.answer_cache import AnswerCache
from digestry.admission.configuration import AnswerOptions, parse
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.inquiry import parse_image
from digestry.admission.shared_inquiries import SharedInquiries

DEFAULT = AnswerOptions()
POLICY = parse(b'registries = ["r.example", "s.example"]', Path("admission.toml")).policy


class Registries:
    """Registries that answer after ``seconds``, and note what they were asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[list[str]] = []
        self.away = ""
        self._lock = threading.Lock()

    def inquire(self, images: list[str], _: bool = False) -> dict[str, ImageKnowledge]:
        with self._lock:
            self.asked.append(list(images))
        time.sleep(self.seconds)
        at = datetime.datetime.now(datetime.UTC)
        return {
            image: ImageKnowledge(image, parse_image(image), at, away=self.away, assessment="not_assessed")
            for image in images
        }


def asker(registries: Registries, options: AnswerOptions = DEFAULT) -> SharedInquiries:
    return SharedInquiries(registries.inquire, AnswerCache(100, 3600), options)


def test_requests_at_once_are_few_inquiries() -> None:
    registries = Registries(0.05)

    async def ask() -> None:
        one = asker(registries)
        images = [f"{host}.example/app{number}:1" for host in "rs" for number in range(20)]
        answers = await asyncio.gather(*(one.knowledge_of([images[n % 40]], POLICY, 5) for n in range(500)))
        assert all(not known.away for answer in answers for known in answer.values())
        # A second time from memory.
        await asyncio.gather(*(one.knowledge_of([images[n % 40]], POLICY, 5) for n in range(500)))
        one.close()

    asyncio.run(ask())
    assert sorted(map(len, registries.asked)) == [20, 20]
    assert all(len({image.partition("/")[0] for image in some}) == 1 for some in registries.asked)


def test_what_comes_while_inquiries_run_goes_into_the_next_together() -> None:
    registries = Registries()
    answers = threading.Event()

    def inquire(images: list[str], prove: bool) -> dict[str, ImageKnowledge]:
        found = registries.inquire(images, prove)
        assert answers.wait(60)
        return found

    async def ask() -> None:
        one = SharedInquiries(inquire, AnswerCache(100, 3600), DEFAULT)
        asked = []
        for number in range(60):
            asked.append(asyncio.create_task(one.knowledge_of([f"r.example/app{number}:1"], POLICY, 60)))
            await asyncio.sleep(0.005)
        answers.set()
        await asyncio.gather(*asked)
        one.close()

    asyncio.run(ask())
    assert sum(map(len, registries.asked)) == 60
    # Four run, and what comes meanwhile is in a few more.
    assert len(registries.asked) <= 4 + 4


def test_what_is_missing_is_asked_for_again_by_who_just_pushed_it() -> None:
    registries = Registries()
    now = [100.0]
    memory = AnswerCache(10, 3600, lambda: now[0])
    image = "r.example/a:1"
    known = registries.inquire([image])[image]
    memory.put([replace(known, missing="there is no tag 1")], now[0])
    assert memory.by_host() == {}  # made-up names are not asked about again and again
    now[0] += 5
    assert memory.oldest() == 0.0

    async def ask() -> None:
        one = SharedInquiries(registries.inquire, memory, DEFAULT)
        assert not (await one.knowledge_of([image], POLICY, 5))[image].missing
        one.close()

    asyncio.run(ask())


@pytest.mark.long
def test_a_slow_registry_is_waited_for_as_long_as_may_be() -> None:
    registries = Registries(0.6)

    async def ask() -> None:
        one = asker(registries)
        begun = time.monotonic()
        found = await one.knowledge_of(["r.example/a:1"], POLICY, 0.1)
        assert time.monotonic() - begun < 0.5
        assert "did not answer within 0.1 s" in found["r.example/a:1"].away
        await asyncio.sleep(0.8)
        # Its answer came later, and is in memory.
        assert not (await one.knowledge_of(["r.example/a:1"], POLICY, 0.1))["r.example/a:1"].away
        one.close()

    asyncio.run(ask())
    assert len(registries.asked) == 1


def test_an_old_answer_is_asked_for_again_and_said_to_be_old() -> None:
    registries = Registries()
    image = "r.example/a:1"

    async def ask() -> None:
        one = asker(registries, AnswerOptions(fresh=0.1, refresh=0.1))
        await one.knowledge_of([image], POLICY, 1)
        await one.knowledge_of([image], POLICY, 1)
        assert len(registries.asked) == 1
        await asyncio.sleep(0.15)
        registries.away = "nothing listens there"
        found = (await one.knowledge_of([image], POLICY, 1))[image]
        assert len(registries.asked) == 2
        assert found.away.startswith("nothing listens there; what it said at ")
        assert found.assessment == "not_assessed"
        registries.away = ""
        await asyncio.sleep(0.4)
        assert not (await one.knowledge_of([image], POLICY, 1))[image].away
        one.close()

    asyncio.run(ask())


def test_registries_that_are_not_listed_are_not_asked() -> None:
    registries = Registries()

    async def ask() -> None:
        one = asker(registries)
        found = await one.knowledge_of(["169.254.169.254/latest:1", "localhost:1/x", "Bad Name"], POLICY, 1)
        assert [known.asked_registry for known in found.values()] == [False, False, False]
        one.close()

    asyncio.run(ask())
    assert registries.asked == []


def test_memory_is_bounded_and_forgets_what_nobody_uses() -> None:
    registries = Registries()
    now = [0.0]
    memory = AnswerCache(3, 60, lambda: now[0])
    images = [f"r.example/a{number}:1" for number in range(5)]
    for image in images:
        memory.put(registries.inquire([image]).values(), now[0])
    assert len(memory) == 3
    assert memory.get(images[0]) is None
    now[0] = 50
    assert memory.get(images[4]) is not None
    now[0] = 70
    assert {host: list(known) for host, known in memory.by_host().items()} == {"r.example": [images[4]]}
    assert memory.oldest() == 70


def test_an_inquiry_that_fails_is_no_answer() -> None:
    def fail(_: list[str], __: bool) -> dict[str, ImageKnowledge]:
        raise RuntimeError("a defect")

    async def ask() -> None:
        one = SharedInquiries(fail, AnswerCache(10, 10), AnswerOptions())
        found = await one.knowledge_of(["r.example/a:1"], POLICY, 1)
        assert found["r.example/a:1"].away == "the inquiry failed: see the log"
        one.close()

    asyncio.run(ask())


def test_a_registry_that_hangs_does_not_stop_another() -> None:
    hangs = threading.Event()
    asked: list[str] = []

    def inquire(images: list[str], _: bool) -> dict[str, ImageKnowledge]:
        at = datetime.datetime.now(datetime.UTC)
        asked.append(images[0])
        if images[0].startswith("r.example"):
            hangs.wait(10)
            return {one: ImageKnowledge(one, parse_image(one), at, away="it hung") for one in images}
        return {one: ImageKnowledge(one, parse_image(one), at) for one in images}

    async def ask() -> None:
        one = SharedInquiries(inquire, AnswerCache(100, 3600), AnswerOptions())
        hung = []
        for number in range(12):
            hung.append(asyncio.create_task(one.knowledge_of([f"r.example/a{number}:1"], POLICY, 5)))
            await asyncio.sleep(0.02)  # each is an inquiry of its own
        found = await one.knowledge_of(["s.example/a:1"], POLICY, 3)
        assert not found["s.example/a:1"].away
        hangs.set()
        for answer in await asyncio.gather(*hung):
            assert all("it hung" in known.away for known in answer.values())
        # Those that had not had their turn were not asked for another time limit.
        assert len([image for image in asked if image.startswith("r.")]) < 12
        one.close()

    asyncio.run(ask())


def test_a_name_of_megabytes_is_not_kept() -> None:
    async def ask() -> None:
        one = asker(Registries())
        image = "r.example/" + "a" * (3 << 20)
        found = (await one.knowledge_of([image], POLICY, 1))[image]
        assert "characters" in found.missing
        assert len(found.missing) < 200
        one.close()

    asyncio.run(ask())
