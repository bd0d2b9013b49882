"""Hints about a registry's refusal: what to do, by its message and by the account."""

from __future__ import annotations

import re
from typing import Final

_LIMIT: Final = re.compile(
    r"quota|exceed|too (?:large|many)|storage (?:limit|space)|limit reached|\bfull\b", re.IGNORECASE
)
_RATE: Final = re.compile(r"rate.?limit|too ?many ?requests|throttl|slow down", re.IGNORECASE)
_RULE: Final = re.compile(
    r"immutab|overwrit|already exists|polic(?:y|ies)|vulnerab|unscanned|unsigned|not signed|signature|"
    r"blocked|forbidden by|read.?only|maintenance|archived|disabled|retention|licen[sc]e|billing|payment|"
    r"region|\bIP\b|not allowed from",
    re.IGNORECASE,
)
_YOUNG: Final = re.compile(
    r" is too young: | has no known age: |"
    r"no digest of \S+ (?:has (?:stood|been seen) under this tag|is known to have stood) for "
)
"""What a registry says of a minimum age (:mod:`digestry.model.age_answers`)."""
_WRONG_LOGIN: Final = re.compile(
    r"invalid (?:username|password|credential|token)|incorrect (?:username|password)|bad credentials|"
    r"authentication failed|password is wrong|(?:token|password) .{0,20}expired",
    re.IGNORECASE,
)


def missing(method: str, code: str, *, registry: str, account: str | None) -> str:
    """Return what a person can check about a 404 with an error ``code``; empty if there is no hint."""
    if code == "MANIFEST_UNKNOWN":
        return "digestry tags lists the tags that there are, digestry log those that there were"
    if code == "NAME_UNKNOWN":
        if account is not None:
            return f"check the name; it may also be one that {_who(account)} may not see"
        return f"check the name; or it may be private, and require a login: digestry login {registry}"
    if not code and method != "HEAD":
        return f"that is not how registries say it: check that a registry answers at {registry}"
    return ""


def limited(*, registry: str, account: str | None) -> str:
    """Return what to do about a 429."""
    more = "" if account is not None else f", or log in for a higher limit: digestry login {registry}"
    return f"the registry limits how often it may be asked: wait{more}"


def _who(account: str) -> str:
    return f"the account {account}" if account else "the account that is logged in"


def hint(
    status: int, code: str, text: str, *, registry: str, account: str | None, age: str | None = None
) -> str:
    """Return what a person can do about a 401 or 403; empty if the registry's own words are enough.

    ``text`` are the registry's words, ``code`` its error code. ``account`` is the user who was logged in:
    None without a login, empty for a token without a name. ``age`` is the header ``Digestry-Age``.
    """
    if status == 403 and (age is not None or _YOUNG.search(text)):
        return (
            "the registry has a minimum age, which no login changes: use an older tag or digest, wait, or"
            " have it let through (digestry age allow); digestry resolve says what there is"
        )
    login = f"digestry login {registry}"
    if _RATE.search(f"{code} {text}"):
        return limited(registry=registry, account=account)
    who = _who(account or "")
    if status == 401:
        if account is None:
            return f"log in with an account that may: {login}"
        if code == "UNAUTHORIZED" and not _WRONG_LOGIN.search(text) and "log in to" in text:
            return f"{who} may not; log in with one that may: {login}"
        return (
            f"the registry does not take what {who} is logged in with, or that may not: log in again: {login}"
        )
    if _LIMIT.search(text):
        return "no login changes that: make room, or ask the registry's operator for more"
    if _RULE.search(text):
        return "that is a rule of the registry, which a login does not change: ask its operator"
    if account is None:
        if text:
            return f"you are not logged in to {registry}; if an account may: {login}"
        return f"the registry does not say why; if an account may: {login}"
    return (
        f"{who} is known there and may not: ask the registry's operator, or log in as a user who may: {login}"
    )
