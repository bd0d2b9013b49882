"""A registry with a minimum age serves an older digest: its log must have that, and give that answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import LogContradiction, Unproven
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from digestry.verifier.aged_proof import check_aged
from digestry.verifier.log_view import LogVerifier
from digestry.verifier.seen_logs import SeenLogs
from digestry.verifier.tag_proof import TagProver
from digestry.verifier.trust import LogTrust
from tests.registry.test_min_age import DAY, HOUR, RULES, image, tag_at
from tests.support import RegistryServer, run_digestry, running_registry

NAME = "team/aged-and-proven"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    file = tmp_path_factory.mktemp("rules") / "registry.toml"
    file.write_text(RULES)
    with running_registry("--config", str(file)) as server:
        yield server


@pytest.fixture(scope="module")
def moved(registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Digest, Digest]:
    """A tag that moved lately: what it served then, and what it points to; the log has both moves."""
    old, new = image(registry, NAME, "old and proven"), image(registry, NAME, "new and proven")
    tag_at(registry, NAME, "1.5", old, 30 * DAY)
    tag_at(registry, NAME, "1.5", new, 3 * HOUR)
    prover = TagProver(LogVerifier(SeenLogs(tmp_path_factory.mktemp("seen")), lambda _: LogTrust()))
    with Session(ClientOptions()) as session:
        prover.prove_past(session.repository(Reference(registry.host, NAME)), "1.5", new)
    return old, new


@pytest.mark.parametrize("options", [(), ("--min-age", "7d"), ("--min-age", "1h")])
def test_a_pull_of_what_is_served_for_its_age_is_proven(
    registry: RegistryServer, moved: tuple[Digest, Digest], tmp_path: Path, options: tuple[str, ...]
) -> None:
    old, new = moved
    environment = {"DIGESTRY_HOME": str(tmp_path)}
    for _ in range(2):  # the second time the log was seen before
        done = run_digestry("pull", "--verify-log", *options, f"{registry.host}/{NAME}:1.5", env=environment)
        assert done.returncode == 0, done.stderr
        assert f"Digest: {new if '1h' in options else old}" in done.stdout
    if not options:
        assert f"1.5 points to {new} by the log" in done.stderr
        assert "the newer" in done.stderr


@pytest.mark.long
def test_what_the_log_does_not_say_is_not_served_for_its_age(
    registry: RegistryServer, moved: tuple[Digest, Digest], tmp_path: Path
) -> None:
    old, new = moved
    with Session(ClientOptions()) as session:
        repository = session.repository(Reference(registry.host, NAME))
        verifier = LogVerifier(SeenLogs(tmp_path), lambda _: LogTrust())
        prover = TagProver(verifier)
        assert prover.prove(repository, "1.5", old).digest == old
        for digest in moved:
            assert prover.prove_past(repository, "1.5", digest).entry.to_digest == digest
        with pytest.raises(Unproven, match="never pointed to"):
            prover.prove_past(repository, "1.6", old)
        age = repository.tag_age("1.5", None)
        assert age is not None
        assert age.stood is not None
        entries = [prover.prove_past(repository, "1.5", digest) for digest in moved]
        assert check_aged("x", "1.5", age, entries).entry.to_digest == old
        with pytest.raises(LogContradiction, match="by the log it never did"):
            check_aged("x", "1.5", age, entries[1:])
        shorter = structs.replace(age, least_seconds=3600)  # by the log the new one has that age
        with pytest.raises(LogContradiction, match=f"it is {new} that has"):
            check_aged("x", "1.5", shorter, entries)


def test_acts_are_listed_with_their_reason(registry: RegistryServer) -> None:
    made = image(registry, "team/let-through", "let through")
    tag_at(registry, "team/let-through", "1.5", made, HOUR)
    name = f"{registry.host}/team/let-through"
    done = run_digestry("age", "allow", f"{name}@{made}", "--reason", "CVE-2026-1 is fixed in it")
    assert done.returncode == 0, done.stderr
    listed = run_digestry("log", name)
    (line,) = [one for one in listed.stdout.splitlines() if "allowed" in one]
    assert line.rstrip().endswith("CVE-2026-1 is fixed in it")
    found = json.loads(run_digestry("log", name, "--format", "json").stdout)
    assert [one["reason"] for one in found if one["event"] == "allowed"] == ["CVE-2026-1 is fixed in it"]
    assert {one["reason"] for one in found if one["event"] == "created"} == {None}
    assert "REASON" not in run_digestry("log", f"{name}:1.5").stdout
