"""What a registry answers about the age of a tag: the wire form of ``_digestry/age``, headers, sentences.

The registry and the client share it without importing each other (docs/http-api.md).
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from digestry.errors import InvalidDigest
from digestry.model.digest import Digest
from digestry.model.tag_age import AgedTag, Refusal, Standing
from digestry.model.timestamps import rfc3339

Basis = Literal["journal", "observations"]
"""What the ages are known by: the registry's own journal, or its observations of another registry."""

HEADER: Final = "Digestry-Age"
MOST_PERIODS: Final = 20
"""So many of a digest's last periods are in an answer."""
MOST_NEWER: Final = 20
"""So many newer digests are in an answer, the newest first."""

_SECOND: Final = 1_000_000
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LONGEST_REASON: Final = 300
_AGE: Final = re.compile(r"([0-9]{1,9})(s|m|min|h|d|w)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST_AGE: Final = 3650 * 86400
_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class AgePeriod(msgspec.Struct, frozen=True, rename="camel"):
    """A time for which a tag is known to have pointed to a digest."""

    since: datetime.datetime
    until: datetime.datetime


class DigestAge(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A digest, and for how many ``seconds`` it is known to have stood under the tag: the sum of ``count``
    periods from ``since`` to ``until``, of which the last ones are listed, oldest first."""

    digest: Digest
    seconds: int
    count: int = 0
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    periods: tuple[AgePeriod, ...] = ()


class TagAge(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``GET /v2/<name>/_digestry/age/<tag>?min-age=…``: what a tag resolves to under a minimum age, and why.

    ``stood`` is the newest digest that has stood for ``least_seconds`` or is let through, None with a
    ``refusal``. ``newer`` are the digests that came after it, newest first. ``reason`` says it in words.
    ``let_through`` is why a younger one is served. ``ready_at`` is when the tag's present digest will have
    stood for long enough, if it stays: of an observed tag, with the first observation after that.
    """

    repository: str
    tag: str
    at: datetime.datetime
    least_seconds: int
    basis: Basis
    reason: str
    stood: DigestAge | None = None
    newer: tuple[DigestAge, ...] = ()
    current: Digest | None = None
    refusal: Refusal | None = None
    let_through: str = ""
    ready_at: datetime.datetime | None = None


class AgeOverrideRequest(
    msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True
):
    """``POST /v2/<name>/_digestry/age-overrides``: let ``digest`` through under ``tag``, either of which may
    be missing, for a ``reason``, ``until`` a time (RFC 3339)."""

    reason: str
    tag: str = ""
    digest: str = ""
    until: str | None = None


class OverrideEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An override of a minimum age. ``tag`` and ``digest`` are empty for any; ``until`` is when it ends by
    itself, and ``ended`` when it was taken back. ``actor`` is empty for who may not audit."""

    number: int
    repository: str
    reason: str
    created: datetime.datetime
    tag: str = ""
    digest: str = ""
    actor: str = ""
    until: datetime.datetime | None = None
    ended: datetime.datetime | None = None

    @property
    def subject(self) -> str:
        """What it is about, such as ``team/app:1.5@sha256:…``."""
        return (
            f"{self.repository}{':' if self.tag else ''}{self.tag}{'@' if self.digest else ''}{self.digest}"
        )


class AgeOverrideList(msgspec.Struct, frozen=True, rename="camel"):
    """``GET /v2/<name>/_digestry/age-overrides``: the newest first."""

    repository: str
    overrides: tuple[OverrideEntry, ...]


def answer(
    repository: str, tag: str, aged: AgedTag, *, current: str | None, basis: Basis, now: int
) -> TagAge:
    """Return the wire form of ``aged``, as it was found at the time ``now`` (microseconds since 1970)."""
    return TagAge(
        repository=repository,
        tag=tag,
        at=_time(now),
        least_seconds=aged.least // _SECOND,
        basis=basis,
        reason=explanation(repository, tag, aged, basis=basis),
        stood=None if aged.chosen is None else _digest_age(aged.chosen),
        newer=tuple(_digest_age(standing) for standing in aged.newer[:MOST_NEWER]),
        current=None if current is None else Digest.parse(current),
        refusal=aged.refusal,
        let_through=aged.let_through,
        ready_at=None if aged.ready_at is None else _time(aged.ready_at),
    )


def header(aged: AgedTag) -> str:
    """Return the value of the header :data:`HEADER`."""
    chosen = aged.chosen
    if chosen is None:
        return f"refused; least={aged.least // _SECOND}; why={aged.refusal}{_newest(aged)}"
    word = "allowed" if aged.let_through else "older" if aged.newer else "current"
    text = f"{word}; least={aged.least // _SECOND}; stood={chosen.age // _SECOND}"
    if chosen.since is not None and chosen.until is not None:
        text += f"; since={rfc3339(_time(chosen.since))}; until={rfc3339(_time(chosen.until))}"
    if aged.let_through:
        text += f"; why=advisory; advisory={aged.advisory}" if aged.advisory else "; why=override"
    return text + _newest(aged)


def _newest(aged: AgedTag) -> str:
    if not aged.newer:
        return ""
    newest = aged.newer[0]
    return f"; newer={newest.digest}; newer-stood={newest.age // _SECOND}"


@dataclass(frozen=True, slots=True)
class PassedOver:
    """The digest that a tag points to, where a pull by it gets an older one or, if ``refused``, none."""

    digest: Digest
    refused: bool


def read_header(value: str) -> PassedOver | None:
    """Return what a header :data:`HEADER` says was passed over; None if nothing was, or it is no such one."""
    word, *rest = (part.strip() for part in value.split(";"))
    newest = dict(part.partition("=")[::2] for part in rest).get("newer")
    if word not in {"older", "refused"} or newest is None:
        return None
    try:
        return PassedOver(Digest.parse(newest), word == "refused")
    except InvalidDigest:
        return None


def explanation(repository: str, tag: str, aged: AgedTag, *, basis: Basis) -> str:
    """Return the answer as a sentence, without a full stop."""
    least = length(aged.least)
    seen = "was seen" if basis == "observations" else "stood"
    if aged.chosen is not None:
        text = f"{aged.chosen.digest} {seen} under {tag} for {length(aged.chosen.age)}{_between(aged.chosen)}"
        if aged.let_through:
            text += f", less than {least}, and is let through: {_short(aged.let_through)}"
        if aged.newer:
            newest = aged.newer[0]
            text += f"; the newer {newest.digest} {seen} for {length(newest.age)}"
            if len(aged.newer) > 1:
                text += f", and {len(aged.newer) - 1} more came between"
        return text
    name = f"{repository}:{tag}"
    match aged.refusal:
        case "absent":
            return f"tag {tag} is not in repository {repository}"
        case "unobserved":
            return (
                f"no digest of {name} is known to have stood for {least}: nobody has observed where this tag"
                f" points{_ready(aged, observed=True)}"
            )
        case "clock":
            return (
                f"no digest of {name} is known to have stood for {least}: its history has times that are"
                " still to come, because a clock was set back"
            )
    oldest = max(aged.newer, key=lambda standing: standing.age)
    has = "has been seen" if basis == "observations" else "has stood"
    return (
        f"no digest of {name} {has} under this tag for {least}:"
        f" {oldest.digest} did longest, for {length(oldest.age)}"
        f"{_ready(aged, observed=basis == 'observations')}"
    )


def _ready(aged: AgedTag, *, observed: bool) -> str:
    if aged.ready_at is None:
        return ""
    # Who comes back at this second must not be early.
    at = rfc3339(_time(-(-aged.ready_at // _SECOND) * _SECOND))[:19]
    first = "the first observation after " if observed else ""
    return f"; the present one will have at {first}{at}Z if it stays"


def _between(standing: Standing) -> str:
    if standing.since is None or standing.until is None:
        return ""
    parts = "" if len(standing.periods) == 1 else f" in {len(standing.periods)} periods"
    first, last = rfc3339(_time(standing.since)), rfc3339(_time(standing.until))
    return f"{parts}, from {first[:19]}Z to {last[:19]}Z"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def seconds_of_age(text: str) -> int:
    """Read a length of time such as ``7d``, ``36h`` or ``90min``, up to 3650 days. Raises ValueError."""
    found = _AGE.fullmatch(text.strip())
    seconds = 0 if found is None else int(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= _LONGEST_AGE:
        raise ValueError(f"{text!r} is not an age; write it as 7d, 36h or 90min, up to 3650d")
    return seconds


def length(microseconds: int) -> str:
    """Return a length of time in its two largest units, such as ``3 days 4 hours``, rounded down."""
    left = max(0, microseconds) // _SECOND
    for number, (size, unit) in enumerate(_UNITS):
        if left >= size:
            parts = [(left // size, unit)]
            if number + 1 < len(_UNITS):
                smaller, name = _UNITS[number + 1]
                parts.append((left % size // smaller, name))
            return " ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in parts if count)
    return "0 seconds"


def _digest_age(standing: Standing) -> DigestAge:
    return DigestAge(
        digest=Digest.parse(standing.digest),
        seconds=standing.age // _SECOND,
        count=len(standing.periods),
        since=None if standing.since is None else _time(standing.since),
        until=None if standing.until is None else _time(standing.until),
        periods=tuple(
            AgePeriod(_time(first), _time(last)) for first, last in standing.periods[-MOST_PERIODS:]
        ),
    )


def _time(microseconds: int) -> datetime.datetime:
    try:
        return _EPOCH + datetime.timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime.datetime.max.replace(tzinfo=datetime.UTC)
