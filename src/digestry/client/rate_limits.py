"""The limits of requests that registries state in the headers of their responses.

They are ``RateLimit-Limit``, ``-Remaining`` and ``-Reset`` (also with ``X-`` before, and as Docker Hub writes
them, ``100;w=21600``), and ``RateLimit`` and ``RateLimit-Policy`` of the drafts of
draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from digestry.model.text import length_of_time, number_of

_LONGEST: Final = 1000
_NUMBER: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_ITEM: Final = re.compile(
    r'\s*("[^"]*"|[a-z]+=[0-9]+|[0-9]+)((?:\s*;\s*[a-z]+\s*=\s*(?:"[^"]*"|[^\s;,"]+))*)\s*(?:,|$)', re.ASCII
)
_PARAMETER: Final = re.compile(r';\s*([a-z]+)\s*=\s*("[^"]*"|[^\s;,"]+)', re.ASCII)
_MOMENT: Final = 10**9
"""A reset above is a time in seconds since 1970, as some registries write it; below it is a duration."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The fields of a limit in a response; None for those that are missing.

    ``limit`` requests are allowed in ``window`` seconds, ``remaining`` of them are left, and in ``reset``
    seconds more are allowed.
    """

    limit: int | None = None
    window: int | None = None
    remaining: int | None = None
    reset: float | None = None

    def __str__(self) -> str:
        """Return the limit as the subject of a sentence: ``its limit of 100 requests in 6 hours``."""
        if self.limit is None:
            return "its limit of requests"
        within = f" in {length_of_time(self.window)}" if self.window else ""
        return f"its limit of {number_of(self.limit, 'request')}{within}"

    def used_up(self) -> str:
        """Return a sentence about an exhausted limit, with the time when more requests are allowed."""
        until = ""
        if self.reset:
            until = f" until {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(time.time() + self.reset))}"
        return f"{self} is used up{until}"


def stated_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the limit that a response states, of several the one with the least left; None for none."""
    combined = headers.get("RateLimit")
    if combined is not None:
        return _combined(combined, headers.get("RateLimit-Policy") or "")
    for prefix in ("", "X-"):
        remaining = headers.get(f"{prefix}RateLimit-Remaining")
        if remaining is not None:
            limits = _items(headers.get(f"{prefix}RateLimit-Limit") or "")
            reset = _number((headers.get(f"{prefix}RateLimit-Reset") or "").strip())
            left = _items(remaining)
            window = next((_number(one["w"]) for _, one in [*left, *limits] if "w" in one), None)
            limit = _number(limits[0][0]) if limits else None
            return _limit(limit, window, _number(left[0][0]) if left else None, reset)
    return None


def _combined(text: str, policy: str) -> RateLimit | None:
    policies = _items(policy)
    found: list[RateLimit] = []
    fields: dict[str, int | None] = {}
    for head, parameters in _items(text):
        name, equals, value = head.partition("=")
        if equals:  # drafts up to 07: limit=100, remaining=50, reset=5
            fields[name] = _number(value)
            continue
        said = next((one for known, one in policies if known == head), {})
        found.append(
            _limit(
                _number(said.get("q", "")),
                _number(said.get("w", "")),
                _number(parameters.get("r", "")),
                _number(parameters.get("t", "")),
            )
        )
    if fields:
        window = next((_number(one["w"]) for _, one in policies if "w" in one), None)
        found.append(_limit(fields.get("limit"), window, fields.get("remaining"), fields.get("reset")))
    known = [one for one in found if one.remaining is not None]
    return min(known, key=lambda one: one.remaining or 0) if known else None


def _limit(limit: int | None, window: int | None, remaining: int | None, reset: int | None) -> RateLimit:
    seconds = None if reset is None else float(reset)
    if seconds is not None and seconds > _MOMENT:
        seconds = max(0.0, seconds - time.time())
    return RateLimit(limit, window, remaining, seconds)


def _items(text: str) -> list[tuple[str, dict[str, str]]]:
    """Return the members of a list with their parameters; a malformed member ends it."""
    found: list[tuple[str, dict[str, str]]] = []
    position, text = 0, text[:_LONGEST]
    while position < len(text) and (item := _ITEM.match(text, position)):
        found.append((item[1], dict(_PARAMETER.findall(item[2]))))
        position = item.end()
    return found


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None
