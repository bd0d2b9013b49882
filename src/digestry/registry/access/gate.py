"""Authentication and authorization of requests: from an ``Authorization`` header to a principal, and from a
missing right to an error.

Everything here runs on the event loop. A verified header is remembered, under a keyed hash, until its
principal expires: the requests that follow cost one look-up.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from digestry.catalog.robot_tokens import PREFIX, RobotReads, RobotToken
from digestry.coordination.protocol import KeyStore, LoginFailures
from digestry.errors import StorageError
from digestry.registry.access import refusals, untrusted_tokens
from digestry.registry.access.code_flow import CodeFlow
from digestry.registry.access.config import AccessConfig
from digestry.registry.access.identity import ANONYMOUS, ROBOT_PREFIX, Identity
from digestry.registry.access.keys import KeyRing
from digestry.registry.access.oidc import IssuerVerifier, Untrusted
from digestry.registry.access.passwords import Passwords
from digestry.registry.access.principal import EVERYBODY, AgentPrincipal, Principal
from digestry.registry.access.request import AccessRequest
from digestry.registry.access.rules import Rules
from digestry.registry.access.tokens import Purpose, Tokens, VerifiedToken
from digestry.registry.access.untrusted_tokens import InvalidToken
from digestry.registry.error_responses import ErrorResponse

log: Final = logging.getLogger("digestry.registry")

OIDC_USER: Final = "oidc"
"""With this user name, a password is a token of an outside issuer."""

_REMEMBERED: Final = 10_000
_LONGEST_HEADER: Final = 256 << 10
_BASIC_SECONDS: Final = 60.0
_ROBOT_SECONDS: Final = 5.0  # so soon a revoked token is refused everywhere
_SCOPES: Final = {"push": "pull,push", "move-tag": "pull,push", "admin": "delete"}


@dataclass(frozen=True, slots=True)
class Proof:
    """A verified identity. ``credential`` changes when the password or token behind it does; ``place`` is an
    agent's."""

    identity: Identity
    credential: str = ""
    ends: float = float("inf")
    place: str | None = None


class Gate:
    """Authenticates and authorizes the requests of one worker process."""

    def __init__(
        self,
        config: AccessConfig,
        keys: KeyStore,
        robots: RobotReads | None,
        failures: LoginFailures | None = None,
    ) -> None:
        self.config = config
        self.rules = Rules(config.rules)
        self.keys = KeyRing(keys)
        self.tokens = Tokens(self.keys, config.service)
        self._passwords = None if config.htpasswd is None else Passwords(config.htpasswd, failures)
        self._issuers = {issuer.issuer: IssuerVerifier(issuer) for issuer in config.issuers}
        self.code_flows = tuple(
            CodeFlow(issuer.sign_in, self._issuers[issuer.issuer])
            for issuer in config.issuers
            if issuer.sign_in is not None
        )
        """The issuers at which people sign in to the pages."""
        self._robots = robots
        self._anonymous = Principal(ANONYMOUS, self.rules) if config.enabled else EVERYBODY
        self._principals: OrderedDict[bytes, Principal] = OrderedDict()
        self._changes = 0  # of the users and keys
        self._reading = asyncio.Lock()
        self._learning: asyncio.Task[None] | None = None
        self._secret = os.urandom(32)

    def start(self) -> None:
        """Read the files of users and keys. Raises :class:`InvalidConfiguration`, :class:`StorageError`."""
        if self.config.enabled:
            self.keys.refresh()
            for issuer in self._issuers.values():
                issuer.check()
            if self._passwords is not None:
                self._passwords.start()

    async def close(self) -> None:
        """End the look-ups of robot tokens and the threads of passwords and issuers."""
        if self._robots is not None:
            await self._robots.close()
        if self._passwords is not None:
            self._passwords.close()
        for issuer in self._issuers.values():
            issuer.close()
        for flow in self.code_flows:
            flow.close()

    async def refresh(self) -> None:
        """Read changed users and keys again. Called periodically."""
        if not self.config.enabled:
            return
        await self._learn_keys()
        if self._passwords is not None:
            if self._passwords.refresh():
                self._forget()
            await self._passwords.share_failures()

    def _forget(self) -> None:
        self._principals.clear()
        self._changes += 1

    async def _learn_keys(self) -> None:
        """Read the keys again, once for all requests that arrive before that begins."""
        if self._learning is None:
            self._learning = asyncio.get_running_loop().create_task(self._read_keys())
        await asyncio.shield(self._learning)

    async def _read_keys(self) -> None:
        async with self._reading:
            self._learning = None  # a key that is added from now on may be missed
            try:
                changed = await asyncio.to_thread(self.keys.refresh)
            except StorageError as error:
                log.error("%s; the keys stay as they were", error.message)
                return
        if changed:
            self._forget()

    # -- authentication -----------------------------------------------------------------------------

    def principal_of(self, name: str) -> Principal:
        """Return what a user may do whose login was verified elsewhere; for ``anonymous``, what anybody
        may."""
        if self._anonymous is EVERYBODY or name == ANONYMOUS.name:
            return self._anonymous
        return Principal(Identity(name), self.rules)

    def cached_principal(self, header: str | None) -> Principal | None:
        """Return the principal of an ``Authorization`` header that was seen before; None for a new one."""
        if header is None or self._anonymous is EVERYBODY:
            return self._anonymous
        principal = self._principals.get(self._key(header))
        return principal if principal is not None and principal.ends > time.time() else None

    async def authenticate(self, request: AccessRequest, header: str) -> Principal:
        """Return the principal of a new header. Raises :class:`ErrorResponse` 401, with a challenge."""
        key, changes, began = self._key(header), self._changes, time.time()
        scheme, _, value = header.partition(" ")
        value = value.strip()
        if len(header) > _LONGEST_HEADER:
            raise self.unauthorized(request, "the Authorization header is too long")
        if scheme.lower() == "basic":
            proof = await self.basic(request, header)
            principal = self._principal(proof, ends=min(proof.ends, began + _BASIC_SECONDS))
        elif scheme.lower() == "bearer":
            principal = await self._bearer(request, value)
        else:
            # Not named: without a scheme before it, it is the secret itself, and this goes to logs.
            raise self.unauthorized(request, "log in here with Basic or Bearer, and nothing else")
        if principal.identity.robot:
            principal.ends = min(principal.ends, began + _ROBOT_SECONDS)
        if changes == self._changes:  # else it was verified by users or keys that are gone by now
            self._principals[key] = principal
            self._principals.move_to_end(key)
            while len(self._principals) > _REMEMBERED:
                self._principals.popitem(last=False)
        return principal

    def _key(self, header: str) -> bytes:
        return hashlib.blake2b(header.encode("latin-1", "replace"), key=self._secret, digest_size=16).digest()

    async def basic(self, request: AccessRequest, header: str) -> Proof:
        """Return the proof of a Basic header. Raises :class:`ErrorResponse` 401."""
        try:
            pair = base64.b64decode(header.partition(" ")[2].strip(), validate=True).decode()
            name, colon, password = pair.partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise self.unauthorized(request, "the Basic credentials cannot be read")
        return await self.password(request, name, password)

    async def password(self, request: AccessRequest, name: str, password: str) -> Proof:
        """Return the proof of a name and password. Raises :class:`ErrorResponse` 401."""
        proof: Proof | None = None
        if name.startswith(ROBOT_PREFIX):
            proof = await self._robot(password, name.removeprefix(ROBOT_PREFIX))
        elif name == OIDC_USER and self._issuers:
            try:
                proof = await self._outside(password)
            except (Untrusted, InvalidToken) as error:
                raise self.unauthorized(request, str(error)) from error
        elif self._passwords is not None:
            key = self._key(f"{name}:{password}".encode().decode("latin-1"))
            address = request.address
            if await self._passwords.verify(name, password, key=key, address=address):
                proof = Proof(Identity(name), self._passwords.fingerprint(name) or "")
        if proof is None:
            raise self.unauthorized(request, "the user name or the password is wrong")
        return proof

    async def _bearer(self, request: AccessRequest, token: str) -> Principal:
        try:
            if token.startswith(PREFIX):
                proof = await self._robot(token)
                if proof is None:
                    raise InvalidToken("the robot's token is wrong, expired or revoked")
            elif untrusted_tokens.issuer(token) in self._issuers:
                proof = await self._outside(token)
            else:
                return await self._own(await self.verify(token, "access"))
        except (InvalidToken, Untrusted) as error:
            raise self.unauthorized(request, str(error), error="invalid_token") from error
        return self._principal(proof, ends=proof.ends)

    def _principal(self, proof: Proof, *, ends: float) -> Principal:
        if proof.place is not None:
            return AgentPrincipal(proof.identity, proof.place, ends=ends)
        return Principal(proof.identity, self.rules, ends=ends)

    async def verify(self, token: str, purpose: Purpose) -> VerifiedToken:
        """Return the content of a token that this registry signed. Raises :class:`InvalidToken`."""
        if not self.tokens.has_key_of(token):
            await self._learn_keys()  # another process may just have made it
        return self.tokens.verify(token, purpose)

    async def _own(self, token: VerifiedToken) -> Principal:
        proof = await self.still_holds(token)
        if proof.place is not None:
            return self._principal(proof, ends=token.ends)
        return Principal(
            Identity(token.name), self.rules, ends=token.ends, grants=token.grants, catalog=token.catalog
        )

    async def still_holds(self, token: VerifiedToken) -> Proof:
        """Raise :class:`InvalidToken` if the credential behind a token has changed since."""
        place = None
        if token.name.startswith(ROBOT_PREFIX):
            robot = await self._robot_of(token.name, token.credential)
            holds, place = robot is not None, robot.place if robot else None
        else:
            holds = token.name == ANONYMOUS.name or await self.holds(token.name, token.credential)
        if not holds:
            raise InvalidToken(f"the login of {token.name} is no longer valid: log in again")
        return Proof(Identity(token.name), token.credential, token.ends, place)

    async def holds(self, name: str, credential: str) -> bool:
        """Return whether the fingerprint ``credential`` is of the user's present password or token."""
        if credential == OIDC_USER or any(flow.credential == credential for flow in self.code_flows):
            return True
        if name.startswith(ROBOT_PREFIX):
            return await self._robot_of(name, credential) is not None
        return self._passwords is not None and self._passwords.fingerprint(name) == credential

    async def _robot_of(self, name: str, credential: str) -> RobotToken | None:
        """Return a robot's token, if ``credential`` is its fingerprint."""
        robot = self._robots and await self._robots.by_name(name.removeprefix(ROBOT_PREFIX))
        return robot if robot and robot.fingerprint == credential else None

    async def _robot(self, secret: str, name: str | None = None) -> Proof | None:
        found = self._robots and await self._robots.by_secret(secret)
        if not found or name not in {None, found.name}:
            return None
        ends = float("inf") if found.expires_at is None else found.expires_at / 1e6
        return Proof(Identity(ROBOT_PREFIX + found.name), found.fingerprint, ends, found.place)

    async def _outside(self, token: str) -> Proof:
        issuer = self._issuers.get(untrusted_tokens.issuer(token) or "")
        if issuer is None:
            raise Untrusted("the token is of an issuer that this registry does not trust")
        identity, ends = await issuer.verify(token)
        return Proof(identity, OIDC_USER, ends)

    # -- authorization ----------------------------------------------------------------------

    def require(self, request: AccessRequest, repository: str, action: str) -> bool:
        """Check that the request may do ``action``; return False if it must see the repository as absent.

        Nothing is looked up, so that the answer does not show whether the repository exists. Raises
        :class:`ErrorResponse` 401 for an anonymous request, or a token for something else, and 403 for a
        known user.
        """
        principal = request.principal
        allowed = principal.allowed(repository)
        request.may_move = "move-tag" in allowed
        request.may_audit = "audit" in allowed
        if action in allowed:
            return True
        ruled = principal.ruled(repository)
        if action in ruled or principal.identity.anonymous:
            scope = f"repository:{repository}:{_SCOPES.get(action, action)}"
            if action in ruled:
                text = f"this token is not for {action} in repository {repository}"
            else:
                text = f"log in to {action} in repository {repository}"
            raise self.unauthorized(
                request, text, scope=scope, error=None if principal.grants is None else "insufficient_scope"
            )
        if action == "pull":
            return False
        raise refusals.denied(principal.identity, action, repository)

    def require_audit(self, request: AccessRequest, repository: str) -> None:
        """Check the right to read who did what, or what runs where. Raises :class:`ErrorResponse` 401 and
        403.

        As :meth:`require`, which was called before, by the rules alone; a user who may not even pull sees the
        repository as absent.
        """
        if request.may_audit or not request.principal.may_pull(repository):
            return
        if request.principal.identity.anonymous:
            text = f"log in to see where images of repository {repository} ran"
            raise self.unauthorized(request, text, scope=f"repository:{repository}:pull")
        raise refusals.denied(request.principal.identity, "audit", repository)

    def hidden(self, request: AccessRequest, repositories: set[str]) -> set[str]:
        """Return those of ``repositories`` that the request must see as absent. Raises :class:`ErrorResponse`
        401.

        Raises :class:`ErrorResponse` 401.
        """
        principal = request.principal
        hidden = {name for name in repositories if not principal.may_pull(name)}
        lacking = {name for name in hidden if principal.may_see(name) or principal.identity.anonymous}
        if lacking:
            scope = " ".join(f"repository:{name}:pull" for name in sorted(lacking))
            raise self.unauthorized(request, "log in to ask about these repositories", scope=scope)
        return hidden

    def require_login(self, request: AccessRequest) -> None:
        """Check access to ``/v2/``, where clients find out how to log in. Raises :class:`ErrorResponse`
        401."""
        if request.principal is self._anonymous and self._anonymous is not EVERYBODY:
            raise self.unauthorized(request, "log in to use this registry")

    def require_name(self, request: AccessRequest, text: str) -> None:
        """Refuse anonymous requests, where there are users. Raises :class:`ErrorResponse` 401."""
        if request.principal is not EVERYBODY and request.principal.identity.anonymous:
            raise self.unauthorized(request, text)

    def require_agent(self, request: AccessRequest) -> None:
        """Check the right to report what runs: an agent's token has it, or anybody where there are no users.
        Raises :class:`ErrorResponse` 401 and 403."""
        principal = request.principal
        if principal is EVERYBODY or principal.place is not None:
            return
        self.require_name(request, "log in with an agent's token to report what runs")
        raise ErrorResponse(
            403,
            "DENIED",
            f"{principal.identity.name} may not report what runs: an agent's token may"
            " (digestry token create --agent PLACE NAME)",
        )

    def require_auditor(self, request: AccessRequest) -> None:
        """Check the right to know what runs, of some repository at least. Raises :class:`ErrorResponse` 401
        and 403."""
        self.require_catalog(request)
        principal = request.principal
        if principal is EVERYBODY or principal.audits_anything():
            return
        self.require_name(request, "log in to see what runs")
        text = f"{principal.identity.name} may not see what runs: no rule of this registry allows it to audit"
        raise ErrorResponse(403, "DENIED", text, detail={"action": "audit"})

    def require_reader(self, request: AccessRequest, text: str) -> None:
        """Refuse principals that may read nothing, before their body is read. Raises :class:`ErrorResponse`
        401."""
        principal = request.principal
        if principal.identity.anonymous and not principal.sees_anything():
            raise self.unauthorized(request, text)

    def require_catalog(self, request: AccessRequest) -> None:
        """Check access to lists of repositories. Raises :class:`ErrorResponse` 401."""
        principal = request.principal
        if not principal.catalog or (principal.identity.anonymous and not principal.sees_anything()):
            raise self.unauthorized(request, "log in to list repositories", scope="registry:catalog:*")

    # -- challenges ----------------------------------------------------------------------------

    def unauthorized(
        self, request: AccessRequest, text: str, *, scope: str | None = None, error: str | None = None
    ) -> ErrorResponse:
        """Return a 401 with the challenge that clients answer (RFC 6750; distribution, "token.md")."""
        return refusals.unauthorized(self.config, request, text, scope=scope, error=error)
