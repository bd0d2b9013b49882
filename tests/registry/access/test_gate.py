"""The gate without its server: logins that are verified while users and keys change."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

from digestry.backend import open_backend
from digestry.catalog.robot_tokens import RobotReads, RobotToken
from digestry.registry.access.config import AccessConfig
from digestry.registry.access.gate import Gate
from digestry.registry.access.request import AccessRequest


class Waiting:
    """Look-ups of robot tokens that end when the database answers."""

    def __init__(self, reads: RobotReads) -> None:
        self._reads = reads
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    async def by_secret(self, secret: str) -> RobotToken | None:
        return await self._reads.by_secret(secret)

    async def by_name(self, name: str) -> RobotToken | None:
        self.asked.set()
        await self.answers.wait()
        return await self._reads.by_name(name)

    async def close(self) -> None:
        await self._reads.close()


REQUEST = cast("AccessRequest", None)  # no login here is refused, and none comes from an address


async def logged_in(root: Path, *, retire: bool) -> bool:
    """Logs in with a robot's access token; meanwhile the key that signed it may be retired. Whether the
    gate has the login in memory afterwards."""
    backend = open_backend(root)
    catalog = backend.open_catalog()
    catalog.migrate()
    catalog.close()
    tokens = backend.open_robot_tokens()
    tokens.create("ci", expires_at=None)
    (robot,) = tokens.all()
    tokens.close()
    reads = Waiting(backend.open_robot_reads())
    gate = Gate(AccessConfig(enabled=True), backend.coordination.keys, reads)
    gate.keys.ensure()
    gate.start()
    signed = gate.tokens.sign("robot$ci", "access", credential=robot.fingerprint, ends=time.time() + 300)
    header = f"Bearer {signed}"
    login: asyncio.Task[Any] = asyncio.create_task(gate.authenticate(REQUEST, header))
    await reads.asked.wait()
    assert gate.cached_principal(header) is None
    if retire:
        gate.keys.rotate(retire=True)
        await gate.refresh()
    reads.answers.set()
    principal = await login
    assert principal.identity.name == "robot$ci"
    found = gate.cached_principal(header)
    await gate.close()
    return found is principal


def test_a_login_that_was_verified_is_looked_up_once(tmp_path: Path) -> None:
    assert asyncio.run(logged_in(tmp_path, retire=False))


def test_a_login_by_a_key_that_was_retired_meanwhile_is_not_kept(tmp_path: Path) -> None:
    assert not asyncio.run(logged_in(tmp_path, retire=True))
