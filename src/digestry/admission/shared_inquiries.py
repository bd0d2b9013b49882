"""Inquiries to registries that requests share: answered from a fresh cache, or sent for many at once.

A registry is asked once about an image, however many requests wait for it. The images that requests of a few
milliseconds name go into one inquiry, which takes a few bulk queries; while as many inquiries run as may, all
that is named meanwhile goes into the next.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from digestry.admission.answer_cache import AnswerCache
from digestry.admission.change_watch import ChangeWatch, Look
from digestry.admission.configuration import AnswerOptions
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.inquiry import not_a_name, parse_image
from digestry.admission.policy import Policy
from digestry.errors import InvalidReference
from digestry.model.reference import Reference
from digestry.model.timestamps import rfc3339

log: Final = logging.getLogger("digestry.admission")

GATHERING: Final = 0.004
"""Seconds in which the images of several requests are gathered into one inquiry."""
GATHERING_MORE: Final = 0.04
"""The same, while another inquiry of that registry runs: few at a time would cost it as much as many."""
MOST_WAITING: Final = 5000
"""Images that may be asked about at once."""

_INQUIRIES: Final = 32
_INQUIRIES_EACH: Final = 4
"""Inquiries of one registry at once: one that does not answer leaves threads to the others."""
_REFRESHES: Final = 16
_LONGEST_NAME: Final = 1024
"""Characters of a name that is looked at; valid ones have half of them at the most."""
_MOST_ABSENT: Final = 1000
_PROBED: Final = 3600.0
"""Seconds for which a registry that does not answer is asked, after a pod last named it."""
_REST: Final = 2.0
"""How many times as long as a refresh took there is none after it."""
_MOST_AT_ONCE: Final = 256
"""Images of one inquiry. A registry answers several of them side by side sooner than one of all."""
_FEW: Final = 64
"""Images that are not shared out over several inquiries."""
_MISSING_FRESH: Final = 1.0
"""Seconds for which an answer counts that there is no such image: whoever pushes it tries again at once."""

Inquire = Callable[[list[str], bool], Mapping[str, ImageKnowledge]]
"""Asks one registry about some images, and, if that is true, its transparency log. Raises nothing for a
registry that fails."""


@dataclass(slots=True)
class _Lane:
    """The questions to one registry that wait for their turn, and how many inquiries run."""

    waiting: dict[str, None] = field(default_factory=dict)
    running: int = 0
    gathers: bool = False


@dataclass(slots=True)
class RegistryAbsence:
    """A registry that does not answer: why, and since when."""

    reason: str
    since: datetime.datetime
    used_at: float = field(default_factory=time.monotonic)


class SharedInquiries:
    """The inquiries of one webhook. Used in its event loop; ``inquire`` runs in threads."""

    def __init__(self, inquire: Inquire, memory: AnswerCache, options: AnswerOptions) -> None:
        self._inquire = inquire
        self._memory = memory
        self.options = options
        self.prove = False
        """Whether transparency logs are asked."""
        self.changes: ChangeWatch | None = None
        """What changed in registries; None if all answers are asked for again each time."""
        self.asks: Callable[[str], bool] = lambda _: True
        """Whether a registry, of which something is in memory, is still one that is asked."""
        self._pool = ThreadPoolExecutor(_INQUIRIES, "inquiry")
        self._refreshing = ThreadPoolExecutor(_REFRESHES, "refresh")
        self._lanes: dict[str, _Lane] = {}
        self._closed = False
        self._pending: dict[str, asyncio.Future[ImageKnowledge]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._busy: set[str] = set()
        self.absent: dict[str, RegistryAbsence] = {}
        self.inquiries = 0
        """How many inquiries were made for requests."""

    async def knowledge_of(
        self, images: Iterable[str], policy: Policy, wait: float, *, patient: bool = False
    ) -> dict[str, ImageKnowledge]:
        """Return what is known of each image, after ``wait`` seconds at the most.

        A ``patient`` call is asked about however many images wait.
        """
        found: dict[str, ImageKnowledge] = {}
        waiting: dict[str, asyncio.Future[ImageKnowledge]] = {}
        stale: dict[str, ImageKnowledge] = {}
        for image in images:
            reference = _reference(image)
            if not isinstance(reference, Reference):
                found[image] = not_a_name(image, reference, _now())
                continue
            if not policy.asks(reference.host):
                found[image] = unasked(image)
                continue
            remembered = self._memory.get(image)
            if remembered is not None:
                stale[image] = remembered[0]
                fresh = self.options.fresh if not remembered[0].missing else _MISSING_FRESH
                if remembered[1] <= fresh:
                    found[image] = remembered[0]
                    continue
            absence = self.absent.get(reference.host)
            if absence is not None:
                absence.used_at = time.monotonic()
                reason = f"{absence.reason} (since {rfc3339(absence.since)})"
                found[image] = _without_answer(image, reference, stale.get(image), reason)
                continue
            future = self._ask(image, reference, math.inf if patient else MOST_WAITING)
            if future is None:
                reason = f"more than {MOST_WAITING} images wait for an answer"
                found[image] = _without_answer(image, reference, stale.get(image), reason)
            else:
                waiting[image] = future
        if waiting:
            await asyncio.wait(waiting.values(), timeout=wait)
        for image, future in waiting.items():
            reference = _reference(image)
            assert isinstance(reference, Reference)  # noqa: S101 - it was one above
            if future.done():
                answer = future.result()
                found[image] = answer
                if answer.away:
                    found[image] = _without_answer(image, reference, stale.get(image), answer.away)
            else:
                reason = f"{reference.host} did not answer within {wait:.3g} s"
                found[image] = _without_answer(image, reference, stale.get(image), reason)
        return found

    async def refresh_for_ever(self) -> None:
        """Keep all remembered answers up to date, registry by registry, again and again."""
        while True:
            await asyncio.sleep(self.options.refresh)
            for host, images in self._memory.by_host().items():
                if host not in self._busy and self.asks(host):
                    self._busy.add(host)
                    self._start(self._refresh(host, images))

    def close(self) -> None:
        """End the threads; questions that run are not waited for."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        for pool in (self._pool, self._refreshing):
            pool.shutdown(wait=False, cancel_futures=True)

    # -- one inquiry --------------------------------------------------------------------------

    def _ask(self, image: str, reference: Reference, most: float) -> asyncio.Future[ImageKnowledge] | None:
        """Return the answer to come, of an inquiry that may be under way; None if too many wait."""
        future = self._pending.get(image)
        if future is not None:
            return future
        if len(self._pending) >= most:
            return None
        future = self._pending[image] = asyncio.get_running_loop().create_future()
        lane = self._lanes.setdefault(reference.host, _Lane())
        lane.waiting[image] = None
        if lane.running and len(lane.waiting) >= _FEW:
            self._next(reference.host, lane)
        elif not lane.gathers and lane.running < _INQUIRIES_EACH:
            lane.gathers = True
            self._start(self._gather(reference.host, lane, GATHERING_MORE if lane.running else GATHERING))
        return future

    async def _gather(self, host: str, lane: _Lane, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            lane.gathers = False
        self._next(host, lane)

    def _next(self, host: str, lane: _Lane) -> None:
        """Begin as many inquiries about what waits as may run at once."""
        while lane.waiting and lane.running < _INQUIRIES_EACH and not self._closed:
            # Shared out, so that they are asked about side by side; few are not worth that.
            share = max(_FEW, -(-len(lane.waiting) // (_INQUIRIES_EACH - lane.running)))
            images = list(islice(lane.waiting, min(share, _MOST_AT_ONCE)))
            for image in images:
                del lane.waiting[image]
            lane.running += 1
            self._start(self._answer(host, lane, images))
        if not lane.waiting and not lane.running and not lane.gathers:
            self._lanes.pop(host, None)

    async def _answer(self, host: str, lane: _Lane, images: list[str]) -> None:
        answers: Mapping[str, ImageKnowledge] = {}
        try:
            absence = self.absent.get(host)
            if absence is None:
                self.inquiries += 1
                answers = await self._inquired(self._pool, host, images)
            else:  # since it was this one's turn: nobody waits for another time limit
                answers = {image: _away(image, absence.reason) for image in images}
        finally:
            lane.running -= 1
            for image in images:
                future = self._pending.pop(image)
                answer = answers.get(image)
                if answer is None:
                    answer = _away(image, "the inquiry failed: see the log")
                if not future.done():
                    future.set_result(answer)
            self._next(host, lane)

    async def _refresh(self, host: str, images: Mapping[str, ImageKnowledge]) -> None:
        begun = time.monotonic()
        try:
            look = await self._look(host, images)
            self._memory.confirm(look.unchanged, begun)
            answered = True
            for begin in range(0, len(look.suspected), _MOST_AT_ONCE):
                some = list(look.suspected[begin : begin + _MOST_AT_ONCE])
                answers = await self._inquired(self._refreshing, host, some)
                answered = answered and bool(answers) and not any(one.away for one in answers.values())
            if answered and self.changes is not None:
                self.changes.settle(host, look)
            # So many images that asking takes long leave most of the time to requests.
            await asyncio.sleep(_REST * (time.monotonic() - begun))
        finally:
            self._busy.discard(host)

    async def _look(self, host: str, images: Mapping[str, ImageKnowledge]) -> Look:
        """Return which of the remembered images have to be asked about."""
        # What a log proves is in no list of changes.
        if self.changes is None or self.prove or host in self.absent:
            return Look(list(images))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._refreshing, self.changes.look, host, images)

    async def _inquired(
        self, pool: ThreadPoolExecutor, host: str, images: list[str]
    ) -> Mapping[str, ImageKnowledge]:
        begun = time.monotonic()
        try:
            answers = await asyncio.get_running_loop().run_in_executor(
                pool, self._inquire, images, self.prove
            )
        except Exception:
            log.exception("an inquiry of %s about %d images failed: this is a defect", host, len(images))
            return {}
        self._memory.put(answers.values(), begun)
        self._note(host, answers)
        return answers

    def _note(self, host: str, answers: Mapping[str, ImageKnowledge]) -> None:
        """Note whether the registry answered."""
        away = next((one.away for one in answers.values() if one.away), "")
        if not away:
            if self.absent.pop(host, None) is not None:
                log.warning("%s answers again", host)
        elif host not in self.absent and len(self.absent) < _MOST_ABSENT:
            self.absent[host] = RegistryAbsence(away, _now())
            log.error("%s does not answer, and the policy for that decides from now on: %s", host, away)
            self._start(self._probe(host, next(iter(answers))))

    async def _probe(self, host: str, image: str) -> None:
        """Ask a registry that does not answer about one image, until it does."""
        while host in self.absent:
            await asyncio.sleep(min(self.options.refresh, 5.0))
            absence = self.absent.get(host)
            if absence is not None and (not self.asks(host) or time.monotonic() - absence.used_at > _PROBED):
                self.absent.pop(host, None)  # the next pod that names it asks
            if host in self.absent and host not in self._busy:
                await self._inquired(self._refreshing, host, [image])

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _away(image: str, reason: str) -> ImageKnowledge:
    reference = _reference(image)
    return ImageKnowledge(image, reference if isinstance(reference, Reference) else None, _now(), away=reason)


def _reference(image: str) -> Reference | InvalidReference:
    if len(image) > _LONGEST_NAME:  # not to be kept
        return InvalidReference(f"the name has {len(image)} characters")
    return _parsed(image)


@lru_cache(maxsize=1 << 14)
def _parsed(image: str) -> Reference | InvalidReference:
    try:
        return parse_image(image)
    except InvalidReference as error:
        return error


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def unasked(image: str) -> ImageKnowledge:
    """Return the knowledge of an image whose registry is not one that is asked."""
    reference = _reference(image)
    if not isinstance(reference, Reference):
        return not_a_name(image, reference, _now())
    return ImageKnowledge(image, reference, _now(), digest=reference.digest, asked_registry=False)


def _without_answer(
    image: str, reference: Reference, stale: ImageKnowledge | None, reason: str
) -> ImageKnowledge:
    """Return the knowledge of an image whose registry did not answer: what was known before counts against
    it, and nothing counts for it."""
    if stale is None:
        return ImageKnowledge(image, reference, _now(), digest=reference.digest, away=reason)
    return replace(stale, away=f"{reason}; what it said at {rfc3339(stale.asked_at)} is old")
