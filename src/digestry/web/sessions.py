"""The sessions of visitors who signed in: they begin, are found by their cookie, and end."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from digestry.catalog import clock
from digestry.catalog.web_sessions import WebSession
from digestry.web import cookies
from digestry.web.host import Host, Proof

_NOTED_EVERY: Final = 60 * clock.SECOND
"""The use of a session is written down no more often than this."""
_LONGEST_SECRET: Final = 100


@dataclass(frozen=True, slots=True)
class Session:
    """A session that holds now, and its cookie's secret."""

    secret: str
    kept: WebSession

    @property
    def user(self) -> str:
        return self.kept.identity

    @property
    def csrf(self) -> str:
        return self.kept.csrf


class Sessions:
    """The sessions of a registry's pages. On the event loop."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie's value, unless it has ended, or its user's password or token is
        another one by now."""
        if not cookie or len(cookie) > _LONGEST_SECRET or not self._host.has_logins:
            return None
        host, catalog = self._host, self._host.catalog
        kept = await host.run(catalog.web_sessions.find, cookie)
        if kept is None:
            return None
        now = host.now()
        idle = int(host.settings.idle * clock.SECOND)
        holds = now < kept.expires_at and now < kept.used_at + idle
        if not holds or not await host.still_holds(kept.identity, kept.credential):
            await host.write(catalog.web_sessions.end, cookie)
            return None
        if now > kept.used_at + min(_NOTED_EVERY, idle // 4):
            await host.write(catalog.web_sessions.touch, cookie, now=now)
        return Session(cookie, kept)

    async def begin(self, response: Response, proof: Proof, *, https: bool, before: Session | None) -> None:
        """Begin a session with a secret of its own, in place of the one ``before``; ``response`` gives its
        cookie to the visitor."""
        if before is not None:
            await self._host.write(self._host.catalog.web_sessions.end, before.secret)
        now, seconds = self._host.now(), self._host.settings.session
        secret = await self._host.write(
            self._host.catalog.web_sessions.begin,
            proof.identity.name,
            proof.credential,
            now=now,
            expires_at=now + int(seconds * clock.SECOND),
        )
        cookies.put(response, cookies.SESSION, secret, https=https, seconds=seconds)
        cookies.drop(response, cookies.FORM, https=https)

    async def end(self, response: Response, session: Session, *, https: bool) -> None:
        """End a session; ``response`` takes its cookie away."""
        await self._host.write(self._host.catalog.web_sessions.end, session.secret)
        cookies.drop(response, cookies.SESSION, https=https)


def form_token(sent: Mapping[str, str], *, https: bool) -> str:
    """Return the token of a visitor without a session: the one that their cookie has, or a new one."""
    known = sent.get(cookies.full_name(cookies.FORM, https=https), "")
    return known if 20 <= len(known) <= _LONGEST_SECRET else secrets.token_urlsafe(24)
