"""Webhooks about the fleet: affected containers, and agents that fall silent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry.config import load
from tests.cli.test_layer_advisories import push
from tests.fleet.support import SimulatedAgent, moment
from tests.registry.webhook_receiver import SECRET, running_receiver
from tests.support import run_digestry, start_registry, wait_until


@pytest.mark.parametrize("wanted", ["affected", "agent_silent", 3])
def test_events_that_do_not_exist(tmp_path: Path, wanted: object) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(
        '[[webhook]]\nname = "h"\nurl = "http://127.0.0.1:1/"\nsecret = "0123456789abcdef"\n'
        f"events = [{json.dumps(wanted)}]\n"
    )
    with pytest.raises(InvalidConfiguration):
        load(path, {"root": tmp_path})


@pytest.mark.long
def test_an_event_of_the_fleet_is_listed_and_retried_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(
        'hosts = ["127.0.0.1"]\n'
        f'[[webhook]]\nname = "h"\nurl = "http://127.0.0.1:1/"\nsecret = "{SECRET}"\n'
        'events = ["affected-started", "created"]\n'
    )
    server = start_registry(tmp_path / "root", "--config", str(path))

    def listed() -> list[dict[str, Any]]:
        done = run_digestry("webhook", "list", "--root", tmp_path / "root", "--format", "json")
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    try:
        bad = push(server, "team/app", "1", b"bad")
        SimulatedAgent(server, "h1").start({"a": f"team/app:1@{bad}"})
        stated = ("--id", "CVE-1", "--status", "affected", "--author", "me")
        done = run_digestry("advisory", "add", f"{server.host}/team/app:1", *stated, timeout=60)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: sum(row["attempts"] > 0 for row in listed()) >= 2, what="attempts", log=server.log)
    finally:
        server.stop()
    rows = {row["event"]: row for row in listed()}
    assert rows["created"]["sequence"] == 1
    assert rows["affected-started"]["sequence"] == 0
    retry = ("webhook", "retry", "--root", tmp_path / "root", "--delivery")
    done = run_digestry(*retry, str(rows["affected-started"]["delivery"]))
    assert (done.returncode, done.stdout) == (0, "1 due now\n"), done.stderr
    due = {row["event"]: row["due_at"] for row in listed()}
    assert due["affected-started"] is None
    assert due["created"] is not None
    done = run_digestry(*retry, "99")
    assert done.returncode == 4
    assert "webhook list" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True])
def test_a_message_arrives(tmp_path: Path, killed: bool) -> None:
    path = tmp_path / "registry.toml"
    with running_receiver() as receiver:
        path.write_text(
            'hosts = ["127.0.0.1"]\n'
            f'[[webhook]]\nname = "h"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
            'events = ["affected-started", "last-affected-stopped"]\n'
        )
        server = start_registry(tmp_path / "root", "--config", str(path))
        try:
            bad = push(server, "team/app", "1", b"bad")
            agent = SimulatedAgent(server, "h1")
            agent.start({"a": f"team/app:1@{bad}"})
            done = run_digestry(
                "advisory", "add", f"{server.host}/team/app:1", "--id", "CVE-1", "--status", "affected",
                "--author", "me", timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            arrive(receiver.taken, 1)
            if killed:
                server.kill()
                server = start_registry(tmp_path / "root", "--config", str(path))
                agent.registry = server
            at = moment(-0.001)
            agent.stop("a", at)
            arrive(receiver.taken, 2)
        finally:
            server.stop()
        # A message may arrive again, with the same ID; each happening has one.
        started, stopped = {message["id"]: message for message in receiver.taken}.values()
        assert started["type"] == "digestry.fleet.affected-started.v1"
        assert (started["source"], started["subject"]) == ("/v2/_digestry/fleet", "h1")
        assert started["data"]["listed"][0]["digest"] == str(bad)
        assert stopped["type"] == "digestry.fleet.last-affected-stopped.v1"
        assert stopped["subject"] == "CVE-1"
        assert stopped["data"]["listed"][0]["lastEnd"] == stopped["data"]["listed"][0]["lastEndAfter"]


def arrive(taken: list[dict[str, Any]], count: int) -> None:
    """Wait until so many different messages have come."""
    arrived: Callable[[], bool] = lambda: len({one["id"] for one in taken}) >= count  # noqa: E731
    wait_until(arrived, what=f"the arrival of {count}")
