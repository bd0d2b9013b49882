"""Histories of tags as a script, and what a minimum age must answer at moments of each (docs/min-age.md).

A history is statements, one a line or with ``;`` between them. ``A`` to ``Z`` are images. Times are such as
``7d`` or ``6d23h59m59s``; nothing happens by itself between two statements.

=====================  ================================================================================
``wait 7d``            so much time passes
``clock -30d``         the clock is set; for the registry that is the same as time, if it goes forward
``push 1,2 A``         an image is pushed under tags; ``push side`` and so on are tags like others
``bare A``             an image is pushed by its digest
``index 1 J A B``      an index of images is pushed
``sign A``             cosign's tag of an image is pushed
``delete 1``           a tag is deleted
``observe 1 1h``       the tag is another registry's, and is observed at that interval
``see 1 A``            an observation: where it points, ``-`` that it is not there, ``!`` that it failed
``watch 1 A 7d``       observations at its interval from now on, for so long
``pull 1 A``           a client pulls through the mirror, which asks the other registry as well
``allow 1 for 2d``     an override: of a tag's digest, of ``@A``, of all (``*``); without ``for``, for ever
``revoke``             the last override is taken back
``advise A``           an advisory lets an image through; ``unadvise``: it does no longer
``prune 400d``         observations that are older are removed
``restart``            the process ends, and another one begins
``ask 1 A 8d``         the tag resolves to that, which has stood for so long; or is ``young`` and so on
``get A yes``          the image is served by its digest, or ``no``
=====================  ================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection

from digestry.backend import Backend
from digestry.catalog import signature_tags
from digestry.catalog.age_policy import AgePolicy, AgeRule
from digestry.catalog.catalog import Catalog
from digestry.catalog.journal import Origin
from digestry.catalog.observation_plan import ScheduledTag
from digestry.catalog.observations import Observation
from digestry.catalog.pull_through import INTERVAL
from digestry.model.digest import Digest
from digestry.model.manifest import Manifest
from tests.catalog.support import ORIGIN, Clock, image, index

NAME: Final = "app"
SECOND: Final = 1_000_000
TICK: Final = 1000
START: Final = 1_792_800_000 * SECOND
"""2026-10-24T00:00:00Z: a day later clocks on walls go back by an hour in Europe."""
_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_MIRROR: Final = replace(ORIGIN, actor="mirror:up.test")


@dataclass(frozen=True)
class History:
    """A history with its rules, the first of which that covers a tag decides."""

    name: str
    script: str
    rules: tuple[AgeRule, ...] = (AgeRule(7 * 86400 * SECOND),)


def length(text: str) -> int:
    """A length of time in microseconds."""
    sign = -1 if text.startswith("-") else 1
    parts = re.findall(r"([0-9]+)([dhms])", text)
    assert "".join(f"{count}{unit}" for count, unit in parts) == text.lstrip("+-"), text
    return sign * sum(int(count) * _UNITS[unit] for count, unit in parts) * SECOND


def days(text: str) -> int:
    """A minimum age."""
    return length(text)


class Held:
    """The fence of a lock that is held."""

    def require_held(self, connection: Connection) -> None:
        pass


@dataclass
class Stage:
    """A registry in which a history is played."""

    backend: Backend
    catalog: Catalog
    clock: Clock
    policy: AgePolicy
    images: dict[str, Manifest] = field(default_factory=dict)
    every: dict[str, int] = field(default_factory=dict)
    last: int = 0
    asked: list[str] = field(default_factory=list)
    """What was answered differently: the statement, and the answer."""

    def play(self, script: str) -> None:
        self.clock.now = START
        for statement in re.split(r"[;\n]+", script):
            words = statement.split()
            if words:
                getattr(self, f"_{words[0]}")(*words[1:])

    def _image(self, letter: str) -> Manifest:
        if letter not in self.images:
            self.images[letter] = image(self.catalog, NAME, letter.encode())
        return self.images[letter]

    def _digest(self, letter: str) -> Digest:
        return self._image(letter).digest

    def _wait(self, time: str) -> None:
        self.clock.now += length(time)

    _clock = _wait

    def _push(self, tags: str, letter: str) -> None:
        made = self._image(letter)
        self.catalog.put_manifest(NAME, made, tag_names=tags.split(","), origin=ORIGIN)

    def _bare(self, letter: str) -> None:
        self.catalog.put_manifest(NAME, self._image(letter), origin=ORIGIN)

    def _index(self, tag: str, letter: str, *children: str) -> None:
        for child in children:
            self._bare(child)
        self.images[letter] = index(*(self._image(child) for child in children))
        self._push(tag, letter)

    def _sign(self, letter: str) -> None:
        signature = f"s{letter}"
        tag = f"sha256-{self._digest(letter).encoded}.sig"
        assert signature_tags.is_about(tag)
        self._push(tag, signature)

    def _delete(self, tag: str) -> None:
        self.catalog.delete_tag(NAME, tag, origin=ORIGIN)

    def _observe(self, tag: str, every: str) -> None:
        self.every[tag] = length(every)
        self.catalog.observation_plan.schedule([ScheduledTag(NAME, tag, length(every), self.clock())])

    def _see(self, tag: str, found: str) -> None:
        cache = self.catalog.pull_through
        every = self.every.get(tag, INTERVAL)
        if found == "!":
            cache.failed(NAME, tag, "it is away", interval=every)
        elif found == "-":
            cache.gone(NAME, tag, origin=_MIRROR, interval=every)
        else:
            made = self._image(found)
            _, here = cache.tag_state(NAME, tag)
            if here == made.digest:
                cache.note(NAME, tag, made.digest, interval=every)
            else:
                cache.put(NAME, made, tag=tag, origin=_MIRROR, interval=every)

    def _pull(self, tag: str, found: str) -> None:
        self._see(tag, found)

    def _watch(self, tag: str, found: str, time: str) -> None:
        end = self.clock.now + length(time)
        self._see(tag, found)
        every = self.every[tag]
        times = range(self.clock.now + every, end + 1, every)
        # As each would be recorded by itself, with fewer commits.
        digest = self._digest(found)
        self.catalog.observations.record(
            Observation(NAME, tag, "seen", at, every, digest) for at in times[:-1]
        )
        for last in times[-1:]:
            self.clock.now = last
            self._see(tag, found)
        self.clock.now = end

    def _allow(self, what: str, word: str = "for", time: str = "") -> None:
        assert word == "for"
        made, _ = self.catalog.age_overrides.allow(
            NAME,
            tag="" if what.startswith(("@", "*")) else what,
            digest=self._digest(what[1:]) if what.startswith("@") else None,
            ends_at=self.clock.now + length(time) if time else None,
            origin=replace(ORIGIN, reason="an urgent fix"),
        )
        self.last = made.number

    def _revoke(self) -> None:
        origin = replace(ORIGIN, reason="it is old enough now")
        self.catalog.age_overrides.revoke(NAME, self.last, origin=origin)

    def _advise(self, letter: str) -> None:
        made = self.catalog.age_overrides.advise(
            NAME,
            str(self._digest(letter)),
            advisory=f"sha256:{64 * 'a'}",
            advised=str(self._digest("A")),
            origin=Origin("advisories", reason="fixed by advisory"),
            fence=Held(),
        )
        self.last = self.last if made is None else made.number

    def _unadvise(self) -> None:
        origin = Origin("advisories", reason="the advisory was removed")
        self.catalog.age_overrides.end_advised(self.last, origin=origin, fence=Held())

    def _prune(self, time: str) -> None:
        older = self.clock.now - length(time)
        self.catalog.observations.prune(older, limit=10_000, aging=[NAME])

    def _restart(self) -> None:
        self.catalog.close()
        self.catalog = self.backend.open_catalog()

    # -- questions -----------------------------------------------------------------------------

    def _ask(self, tag: str, wanted: str, age: str = "") -> None:
        rule = self.policy.rule(NAME, tag)
        if not rule.age:  # then nobody asks
            rule = replace(rule, age=1)
            self.clock.now += 2 * TICK
        aged = self.catalog.tag_ages.tag(NAME, tag, rule, self.clock()).aged
        names = {str(made.digest): letter for letter, made in self.images.items()}
        found = aged.refusal or "" if aged.chosen is None else names[aged.chosen.digest]
        self._note(f"ask {tag} {wanted}", found == wanted, found)
        if age:
            known = (aged.chosen,) if aged.chosen is not None else aged.newer
            longest = max((one.age for one in known), default=0)
            self._note(
                f"ask {tag} {wanted} {age}",
                abs(longest - length(age)) < SECOND // 2,
                f"{longest / 86400e6} days",
            )

    def _get(self, letter: str, wanted: str) -> None:
        digest = str(self._digest(letter))
        found = self.catalog.tag_ages.digest(
            NAME, digest, self.policy, self.clock(), mirrored=bool(self.every)
        )
        answer = "yes" if found.allowed else "no"
        self._note(f"get {letter} {wanted}", answer == wanted, f"{answer} {found.why}")

    def _note(self, question: str, good: bool, found: str) -> None:
        if not good:
            day = (self.clock.now - START) / 86400e6
            self.asked.append(f"day {day:g}: {question}: {found}")
