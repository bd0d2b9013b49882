"""Fixes that advisories let through before their minimum age: by the server, in the journal, and ended."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from digestry.catalog import clock
from digestry.model.digest import Digest
from digestry.model.history import TagEvent
from tests.advisories.signed import PASSWORD, RECORDED
from tests.registry.test_min_age import DAY, HOUR, catalog_at, fields, image, pull, tag_at
from tests.support import RegistryServer, run_digestry, running_registry, wait_until

RULES = """
[advisories.trusted-keys]
team = "team.pub"

[[min-age]]
repository = "app/**"
age = "7d"

[[min-age]]
repository = "open/**"
age = "7d"
advisories = "any"

[[min-age]]
repository = "shut/**"
age = "7d"
advisories = "off"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    directory = tmp_path_factory.mktemp("rules")
    shutil.copy(RECORDED / "cosign.pub", directory / "team.pub")
    (directory / "registry.toml").write_text(RULES)
    with running_registry("--config", str(directory / "registry.toml")) as server:
        yield server


def advise(server: RegistryServer, name: str, digest: Digest, *more: str, signed: bool = False) -> Digest:
    """Attach an advisory; return its manifest."""
    before = referrers(server, name, digest)
    key = ("--key", str(RECORDED / "cosign.key")) if signed else ("--author", "sec@example")
    done = run_digestry(
        "advisory", "add", f"{server.host}/{name}@{digest}", "--id", "CVE-2026-7", *key, *more,
        timeout=60, env={"COSIGN_PASSWORD": PASSWORD.decode()},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = referrers(server, name, digest) - before
    return made


def referrers(server: RegistryServer, name: str, digest: Digest) -> set[Digest]:
    found = server.request("GET", f"/v2/{name}/referrers/{digest}").json()["manifests"]
    return {Digest.parse(one["digest"]) for one in found}


def aged(server: RegistryServer, name: str) -> tuple[Digest, Digest]:
    """A tag 1 with an old digest and a young one."""
    old, young = image(server, name, name + "old"), image(server, name, name + "young")
    tag_at(server, name, "1", old, 30 * DAY)
    tag_at(server, name, "1", young, 3 * HOUR)
    assert fields(pull(server, name, "1"))[""] == "older"
    return old, young


def serves(server: RegistryServer, name: str, digest: Digest) -> None:
    wait_until(
        lambda: pull(server, name, "1").headers["docker-content-digest"] == str(digest), what=f"{digest}"
    )


def acts(server: RegistryServer, name: str) -> list[TagEvent]:
    with catalog_at(server, clock.now()) as catalog:
        assert catalog.verify_journal() is None
        found = catalog.journal(name, limit=50)
    return [event for event in found if event.event in {"allowed", "revoked"}]


@pytest.mark.long
def test_what_an_advisory_names_as_the_fix_is_let_through_until_it_is_removed(server: RegistryServer) -> None:
    old, young = aged(server, "app/fix")
    advisory = advise(
        server, "app/fix", old, "--status", "affected", "--fixed-by", f"{server.host}/app/fix@{young}",
        signed=True,
    )  # fmt: skip
    serves(server, "app/fix", young)
    answer = pull(server, "app/fix", "1")
    found = fields(answer)
    assert (found[""], found["why"]) == ("allowed", "advisory")
    # The statement about the fix itself, "fixed", is another advisory, with an override of its own.
    made = referrers(server, "app/fix", young) | {advisory}
    assert Digest.parse(found["advisory"]) in made
    assert "is let through: fixed by advisory sha256:" in answer.headers["warning"]
    assert pull(server, "app/fix", str(young)).status == 200
    wait_until(lambda: len(acts(server, "app/fix")) == 2, what="both overrides")
    reasons = {act.reason for act in acts(server, "app/fix")}
    assert f"fixed by advisory {advisory}: the fix of CVE-2026-7 in {old}, signed by team" in reasons
    assert {(act.event, act.tag, act.actor) for act in acts(server, "app/fix")} == {
        ("allowed", "@", "advisories")
    }
    for one, subject in ((advisory, old), *((one, young) for one in made - {advisory})):
        assert one in referrers(server, "app/fix", subject)
        assert server.request("DELETE", f"/v2/app/fix/manifests/{one}").status == 202
    serves(server, "app/fix", old)
    wait_until(lambda: len(acts(server, "app/fix")) == 4, what="the ends of both")
    revoked = [act for act in acts(server, "app/fix") if act.event == "revoked"]
    assert {act.reason for act in revoked} == {
        f"advisory {one} does not let it through any more: it was removed" for one in made
    }


@pytest.mark.long
def test_without_a_trusted_signature_nothing_is_let_through(server: RegistryServer) -> None:
    old, young = aged(server, "app/unsigned")
    advise(server, "app/unsigned", young, "--status", "fixed")
    _, other = aged(server, "open/unsigned")
    advise(server, "open/unsigned", other, "--status", "fixed")
    last, closed = aged(server, "shut/signed")
    advise(server, "shut/signed", closed, "--status", "fixed", signed=True)
    serves(server, "open/unsigned", other)
    _, later = aged(server, "open/later")
    advise(server, "open/later", later, "--status", "fixed")
    serves(server, "open/later", later)  # so that all before it were looked at
    assert fields(pull(server, "app/unsigned", "1"))[""] == "older"
    assert pull(server, "app/unsigned", "1").headers["docker-content-digest"] == str(old)
    assert pull(server, "shut/signed", "1").headers["docker-content-digest"] == str(last)
    assert acts(server, "app/unsigned") == acts(server, "shut/signed") == []


@pytest.mark.long
def test_what_is_affected_is_no_fix_and_a_newer_statement_ends_it(server: RegistryServer) -> None:
    old, young = aged(server, "open/again")
    advise(server, "open/again", young, "--status", "fixed")
    serves(server, "open/again", young)
    advise(server, "open/again", young, "--status", "affected")
    serves(server, "open/again", old)
    (ended, made) = acts(server, "open/again")
    assert (ended.event, made.event) == ("revoked", "allowed")
    assert "another says that it is affected" in str(ended.reason)


@pytest.mark.long
def test_what_somebody_took_back_is_not_let_through_again(server: RegistryServer) -> None:
    old, young = aged(server, "open/back")
    advise(server, "open/back", young, "--status", "fixed")
    serves(server, "open/back", young)
    path = "/v2/open/back/_digestry/age-overrides"
    (entry,) = server.request("GET", path).json()["overrides"]
    assert server.request("DELETE", f"{path}/{entry['number']}?reason=not+yet").status == 200
    serves(server, "open/back", old)
    advise(server, "open/back", old, "--status", "under_investigation")
    _, later = aged(server, "open/after")
    advise(server, "open/after", later, "--status", "fixed")
    serves(server, "open/after", later)
    assert pull(server, "open/back", "1").headers["docker-content-digest"] == str(old)
    assert [act.event for act in acts(server, "open/back")] == ["revoked", "allowed"]
