"""Whose lines of the audit log go when it is full: never those of one user for another's."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from digestry.registry.observability.audit_log import KEPT, AuditLog, RotationJob
from digestry.registry.observability.audit_shares import keep_shares
from digestry.registry.observability_config import LogConfig
from tests.registry.observability.support import lines

SIZE = 20_000


def written(path: Path, counts: dict[str, int], start: int = 0) -> Path:
    """A log in which each user, or address of nobody, has so many lines of 100 bytes."""
    with path.open("w") as file:
        for user, count in counts.items():
            for number in range(count):
                entry: dict[str, object] = {"number": start + number}
                is_address = "." in user or ":" in user
                entry |= {"user": "anonymous", "address": user} if is_address else {"user": user}
                file.write(_line(entry))
    return path


def _line(entry: dict[str, object]) -> str:
    bare = len(json.dumps(entry | {"x": ""})) + 1
    return json.dumps(entry | {"x": "x" * (100 - bare)}) + "\n"


def numbers(path: Path, user: str) -> list[int]:
    return [entry["number"] for entry in lines(path) if user in {entry["user"], entry.get("address")}]


@pytest.mark.long
def test_one_user_does_not_push_out_the_lines_of_others(tmp_path: Path) -> None:
    config = LogConfig(audit_size=SIZE, audit_files=2)
    audit, rotation = AuditLog(config, tmp_path), RotationJob(config, tmp_path)
    audit.write([{"user": "alice", "number": number} for number in range(50)])
    for number in range(200):
        audit.write([{"user": "mallory", "number": number, "client": "x" * 4000}] * 6)
        if number % 10 == 0:
            audit.write([{"user": "bob", "number": number}])
        rotation.run(threading.Event())
    audit.close()
    files = list(tmp_path.iterdir())
    told = [entry for file in files for entry in lines(file)]
    assert sorted(entry["number"] for entry in told if entry["user"] == "alice") == list(range(50))
    assert sorted(entry["number"] for entry in told if entry["user"] == "bob") == list(range(0, 200, 10))
    # The files that are kept, the one that is written, and that with the shares; each may be over by a write.
    assert {file.name for file in files} >= {"audit.log.1", "audit.log.2", f"audit.log.{KEPT}"}
    assert sum(file.stat().st_size for file in files) < 4 * (SIZE + 6 * 4100)


def test_all_have_an_equal_share_and_what_others_leave(tmp_path: Path) -> None:
    source = written(tmp_path / "log", {"a": 500, "b": 500, "c": 10, "192.0.2.1": 30, "2001:db8::1": 300})
    target = tmp_path / "kept"
    keep_shares([source], target, SIZE)
    kept = {user: numbers(target, user) for user in ("a", "b", "c", "192.0.2.1", "2001:db8::1")}
    assert {user: len(found) for user, found in kept.items()} == {
        "a": 53, "b": 53, "c": 10, "192.0.2.1": 30, "2001:db8::1": 53,
    }  # fmt: skip
    assert kept["a"] == list(range(447, 500))  # the latest
    assert target.stat().st_size <= SIZE


def test_what_was_kept_before_goes_by_the_same_rule(tmp_path: Path) -> None:
    kept = written(tmp_path / "kept", {"a": 10, "b": 190})
    keep_shares([kept, written(tmp_path / "log", {"b": 300}, start=190)], kept, SIZE)
    assert numbers(kept, "a") == list(range(10))
    assert numbers(kept, "b") == list(range(300, 490))


@pytest.mark.parametrize(
    "content", [b"", b"no JSON\n", b"[1]\n" * 9000, b'{"user": 1}\n', b"\xff\n", b"cut short"]
)
def test_lines_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log").write_bytes(content)
    keep_shares([tmp_path / "log", tmp_path / "none"], tmp_path / "kept", SIZE)
    kept = (tmp_path / "kept").read_bytes() if (tmp_path / "kept").exists() else b""
    assert len(kept) <= SIZE
    assert content.endswith(kept)
