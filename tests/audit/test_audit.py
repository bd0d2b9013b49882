"""The audit's rule: membership in the graph, history included; every container has one row."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import pytest
from msgspec import structs

from digestry.advisories import publish
from digestry.advisories.statements import Status
from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import Unauthorized, Unreachable
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.model.digest import Digest
from digestry.model.history import observer
from digestry.model.reference import Reference
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import ARM64, START, Listed, claim, image_id, sighted
from tests.support import PATIENCE

APP = f"{HOST}/app"
LATER = datetime.timedelta(hours=1)


def run(registries: FakeRegistries, *seen: Any, timeout: float = 5) -> AuditReport:
    return audit([Listed(*seen)], RegistryQueries(registries, timeout=timeout))


def only(registries: FakeRegistries, seen: ContainerObservation) -> ContainerFinding:
    (finding,) = run(registries, seen).findings
    return finding


def state(
    registries: FakeRegistries,
    name: str,
    status: Status,
    *fixed_by: str,
    at: datetime.datetime = START,
    vulnerability: str = "CVE-1",
) -> None:
    statement = publish.NewStatement(
        vulnerability, status, "sec@example", at, note="because" if status == "not_affected" else ""
    )
    targets = [publish.find_image(registries, Reference.parse(one)) for one in fixed_by]
    publish.attach_statement(
        registries,
        publish.find_image(registries, Reference.parse(name)),
        statement,
        targets,
        new_queries=lambda: RegistryQueries(registries),
    )


def running(finding: ContainerFinding) -> Digest | None:
    return None if finding.identity is None else finding.identity.running


@pytest.fixture(params=["digestry, at once", "digestry", "plain registry"])
def registries(request: pytest.FixtureRequest) -> FakeRegistries:
    return FakeRegistries(remembers="digestry" in request.param, bulk="at once" in request.param)


@pytest.fixture(params=[True, False], ids=["at once", "one by one"])
def rich(request: pytest.FixtureRequest) -> FakeRegistries:
    return FakeRegistries(bulk=request.param)


@pytest.fixture
def plain() -> FakeRegistries:
    return FakeRegistries(remembers=False)


# -- what runs --------------------------------------------------------------------------------


def test_the_running_digest_is_told_not_the_tags(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    old = app.image("one", "1")
    new = app.image("two", "1")
    found = only(registries, sighted(f"{APP}:1", claim(old.manifest, APP), image_id(old.config)))
    assert running(found) == old.manifest
    assert found.tag.digest == new.manifest
    assert found.identity is not None
    assert found.identity.found_by == "repo-digest"


def test_an_index_is_what_was_obtained_and_its_child_is_what_runs(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    found = only(registries, sighted(f"{APP}:1", claim(index, APP), image_id(amd.config)))
    assert running(found) == index
    assert found.identity is not None
    assert found.identity.manifest == amd.manifest
    assert found.tag.state == "current"


def test_the_platform_tells_which_child_runs(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    found = only(registries, sighted(f"{APP}:1", claim(index, APP, found_by="inventory"), platform=ARM64))
    assert found.identity is not None
    assert found.identity.manifest == arm.manifest


def test_the_platforms_manifest_of_a_containerd_store(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    seen = sighted(
        f"{APP}:1", claim(index, APP, obtained=False), image_id(index, kind="index"),
        platform_manifest=arm.manifest,
    )  # fmt: skip
    found = only(registries, seen)
    assert running(found) == index
    assert found.identity is not None
    assert found.identity.manifest == arm.manifest


def test_an_orphan_of_the_containerd_store_is_found_by_its_id(rich: FakeRegistries) -> None:
    # The tag moved, so that the image has no RepoDigests left; the ID is the index's digest.
    app = rich.at(APP)
    amd = app.image("one amd")
    index = app.index({"linux/amd64": amd}, "1")
    app.image("two", "1")
    found = only(rich, sighted(f"{APP}:1", image_id(index, kind="index")))
    assert running(found) == index
    assert found.identity is not None
    assert found.identity.found_by == "image-id"
    assert found.tag.state == "moved"


def test_loaded_from_an_archive_is_found_by_its_config(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1")
    found = only(registries, sighted(f"{APP}:1", image_id(one.config)))
    assert running(found) == one.manifest
    assert found.identity is not None
    assert found.identity.found_by == "image-id"
    assert found.tag.state == "current"


def test_several_repo_digests_the_containers_own_repository_counts(registries: FakeRegistries) -> None:
    mirror, app = registries.at(f"{HOST}/a-mirror"), registries.at(APP)
    copied, original = mirror.image("one", "x", squeezed="zstd"), app.image("one", "1")
    found = only(
        registries,
        sighted(
            f"{APP}:1", claim(copied.manifest, f"{HOST}/a-mirror"), claim(original.manifest, APP),
            image_id(original.config),
        ),
    )  # fmt: skip
    assert running(found) == original.manifest


def test_of_several_digests_of_one_repository_the_tags_own_is_taken(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "plain")
    index = app.index({"linux/amd64": one}, "multi")
    seen = [claim(one.manifest, APP), claim(index, APP), image_id(one.config)]
    assert running(only(registries, sighted(f"{APP}:multi", *seen))) == index
    assert running(only(registries, sighted(f"{APP}:plain", *seen))) == one.manifest


def test_another_repositorys_digest_is_the_last_resort_and_said(registries: FakeRegistries) -> None:
    one = registries.at(f"{HOST}/upstream").image("one", "1")
    found = only(
        registries, sighted(f"{APP}:1", claim(one.manifest, f"{HOST}/upstream"), image_id(one.config))
    )
    assert running(found) == one.manifest
    assert any("another repository" in reason for reason in found.reasons)
    assert found.tag.state == ("never" if registries.remembers else "unknown")


def test_made_up_pairs_are_not_believed(registries: FakeRegistries) -> None:
    # Podman pairs every name with every digest: this name never had that index.
    app, other = registries.at(APP), registries.at(f"{HOST}/other")
    one, two = app.image("one", "1"), other.image("two")
    wrong = other.index({"linux/amd64": two}, "1")
    found = only(
        registries,
        sighted(
            f"{HOST}/other:1", claim(wrong, f"{HOST}/other", obtained=False),
            claim(one.manifest, APP, obtained=False), image_id(one.config),
        ),
    )  # fmt: skip
    assert running(found) == one.manifest
    assert found.identity is not None
    assert found.identity.repository.name == APP


def test_never_pushed_and_real_digests_side_by_side(registries: FakeRegistries) -> None:
    # A migration to the containerd store compresses anew: that manifest was never pushed.
    app = registries.at(APP)
    one = app.image("one", "1")
    fresh = Digest.of(b"compressed anew")
    found = only(
        registries,
        sighted(
            f"{APP}:1", claim(fresh, APP, obtained=False), claim(one.manifest, APP, obtained=False),
            image_id(fresh, kind="manifest"),
        ),
    )  # fmt: skip
    assert running(found) == one.manifest
    assert found.tag.state == "current"


@pytest.mark.parametrize("kind", ["unknown", "config"])
def test_an_id_is_looked_up_in_every_role(registries: FakeRegistries, kind: str) -> None:
    # A store whose IDs are manifests' or indexes' digests, on an engine that does not say which store
    # it has; the tag moved twice, and the older images have no name left.
    app = registries.at(APP)
    first, second, third = app.image("one", "1"), app.image("two"), app.image("three")
    index = app.index({"linux/amd64": second}, "1")
    app.point("1", third.manifest)
    state(registries, f"{APP}@{first.manifest}", "affected")
    by_id = {"a": first.manifest, "b": index, "c": third.manifest}
    if kind == "config":
        by_id = {"a": first.config, "b": second.config, "c": third.config}
        if not registries.remembers:
            app.point("old", first.manifest)  # where a registry has to be searched, by its tags
            app.point("older", index)
    seen = [
        sighted(f"{APP}:1", image_id(digest, kind="unknown"), name=name) for name, digest in by_id.items()
    ]
    found = {one.container.name: one for one in run(registries, *seen).findings}
    middle = index if registries.remembers or kind == "unknown" else second.manifest
    assert [running(found[name]) for name in "abc"] == [first.manifest, middle, third.manifest]
    moved = "moved" if registries.remembers else "unknown"
    assert [found[name].tag.state for name in "abc"] == [moved, moved, "current"]
    assert [found[name].assessment.state for name in "abc"] == ["affected", "not_assessed", "not_assessed"]


def test_never_is_not_said_of_what_the_history_may_have_held(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    past = app.image("past", "1")
    app.image("now", "1")
    stranger = sighted(f"{APP}:1", image_id(Digest.of(b"local"), kind="unknown"))
    assert only(rich, stranger).tag.state == "never"
    del app.manifests[past.manifest]  # the journal has its digest, and nobody knows what it was
    found = only(rich, stranger)
    assert found.tag.state == "unknown"
    assert any(f"the tag pointed to {past.manifest}" in reason for reason in found.reasons)


def test_never_is_not_said_by_a_mirror(rich: FakeRegistries) -> None:
    # It knows what the tag pointed to when it was asked, and not what it pointed to in between.
    app = rich.at(APP)
    app.image("seen", "1")
    app.events[0] = structs.replace(app.events[0], actor=observer("docker.io"))
    found = only(rich, sighted(f"{APP}:1", image_id(Digest.of(b"missed"), kind="unknown")))
    assert found.tag.state == "unknown"
    assert any("only mirrors docker.io" in reason for reason in found.reasons)


def test_digests_that_contradict_each_other_are_no_answer(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    bad, good = app.image("bad"), app.image("good", "1")
    state(registries, f"{APP}@{good.manifest}", "fixed")
    state(registries, f"{APP}@{bad.manifest}", "affected", vulnerability="CVE-2")
    for first, second in ((good, bad), (bad, good)):
        found = only(registries, sighted(f"{APP}:1", claim(first.manifest, APP), claim(second.manifest, APP)))
        assert found.assessment.state in {"unknown", "affected"}
        assert found.tag.state != "current"
        assert any("other code" in reason for reason in found.reasons)


def test_a_config_as_image_id_decides_between_digests(registries: FakeRegistries) -> None:
    """Whatever else an image was called by: its own config is the code that runs."""
    app = registries.at(APP)
    bad, good = app.image("bad", "1"), app.image("good", "2")
    state(registries, f"{APP}@{good.manifest}", "fixed")
    state(registries, f"{APP}@{bad.manifest}", "affected", vulnerability="CVE-2")
    names = (claim(good.manifest, APP), claim(bad.manifest, APP))
    for claims in (names, names[::-1]):
        found = only(registries, sighted(f"{APP}:1", *claims, image_id(bad.config)))
        assert running(found) == bad.manifest
        assert (found.assessment.state, found.tag.state) == ("affected", "current")
        other = only(registries, sighted(f"{APP}:1", *claims, image_id(good.config)))
        assert other.assessment.state == "fixed"
        assert other.tag.state != "current"


def test_a_mirror_that_could_not_look_tells_neither_the_tag_nor_the_advisories() -> None:
    registries = FakeRegistries()
    one = registries.at(APP).image("one", "1")
    state(registries, f"{APP}@{one.manifest}", "fixed")
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config))
    registries.outdated[APP, "1"] = "unreachable; registry=docker.io"
    found = only(registries, seen)
    assert (found.tag.state, found.assessment.state) == ("unknown", "fixed")
    assert any("could not see where it points now" in reason for reason in found.reasons)
    registries.outdated[APP, str(one.manifest)] = "unreachable; registry=docker.io"
    assert only(registries, seen).assessment.state == "unknown"


def test_never_is_not_said_of_what_an_account_may_not_see(rich: FakeRegistries) -> None:
    hidden = sighted(f"{HOST}/secret:1", image_id(Digest.of(b"hidden"), kind="unknown"))
    rich.accounts.add(HOST)
    assert only(rich, hidden).tag.state == "unknown"
    rich.at(f"{HOST}/secret").image("shown", "2")
    assert only(rich, hidden).tag.state == "never"


def test_another_platforms_image_may_run_where_only_an_index_is_known(rich: FakeRegistries) -> None:
    # The machine's platform is no proof: an engine runs what it was told to, and does not say it here.
    app = rich.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    seen = sighted(f"{APP}:1", image_id(index, kind="unknown"))
    assert only(rich, seen).assessment.state == "not_assessed"
    state(rich, f"{APP}@{amd.manifest}", "fixed")
    state(rich, f"{APP}@{arm.manifest}", "affected")
    found = only(rich, seen)
    assert found.assessment.state == "unknown"
    assert any("may be what runs" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("assumed", "others", "expected"),
    [(False, "", "fixed"), (True, "", "unknown"), (True, "fixed", "fixed"), (True, "affected", "unknown")],
)
def test_a_platform_that_is_assumed_makes_nothing_good(
    rich: FakeRegistries, assumed: bool, others: Any, expected: str
) -> None:
    """Where the engine tells its machine's platform, that is taken to be the one that runs."""
    app = rich.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    seen = sighted(f"{APP}:1", image_id(index, kind="unknown"), platform_assumed=assumed)
    state(rich, f"{APP}@{amd.manifest}", "fixed")
    if others:
        state(rich, f"{APP}@{arm.manifest}", others)
    found = only(rich, seen)
    assert found.assessment.state == expected
    assert any("may be what runs" in reason for reason in found.reasons) == (expected == "unknown")


def test_a_child_that_the_registry_lacks_is_not_passed_over(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    del app.manifests[arm.manifest]
    found = only(registries, sighted(f"{APP}:1", claim(index, APP), platform=None))
    assert found.identity is not None
    assert found.identity.config is None
    assert found.identity.possible == {amd.manifest, arm.manifest}


def test_a_list_of_tags_that_is_forbidden_does_not_hide_the_containers_own(plain: FakeRegistries) -> None:
    one = plain.at(APP).image("one", "1")
    plain.fail(HOST, Unauthorized("no lists for you", status=403), only="tags")
    found = only(plain, sighted(f"{APP}:1", image_id(one.config, kind="unknown")))
    assert running(found) == one.manifest
    assert found.tag.state == "current"
    other = only(plain, sighted(f"{APP}:1", image_id(Digest.of(b"other"), kind="unknown")))
    assert running(other) is None
    assert any("no lists for you" in reason for reason in other.reasons)


def test_a_local_build_has_a_row_that_says_so(registries: FakeRegistries) -> None:
    registries.at(APP).image("one", "1")
    for reference, named in ((f"{APP}:1", True), ("app:dev", False), (None, True)):
        found = only(registries, sighted(reference, image_id(Digest.of(b"x")), registry_named=named))
        assert running(found) is None
        assert found.assessment.state == "unknown"
        assert any("built or loaded locally, never pushed or pulled" in one for one in found.reasons)
    assert not any(name.startswith("docker.io") for _, name, _ in registries.asked)


def test_a_made_up_digest_of_a_local_build_is_no_digest(registries: FakeRegistries) -> None:
    seen = sighted(f"{APP}:dev", claim(Digest.of(b"x"), APP, obtained=False), image_id(Digest.of(b"y")))
    found = only(registries, seen)
    assert running(found) is None
    assert any("never pushed or pulled" in one for one in found.reasons)


def test_what_the_registry_has_lost_is_the_runtimes_word(plain: FakeRegistries) -> None:
    app = plain.at(APP)
    one = app.image("one", "1")
    app.image("two", "1")
    app.forgotten.add(one.manifest)
    found = only(plain, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert running(found) == one.manifest
    assert found.identity is not None
    assert not found.identity.confirmed
    assert found.assessment.state == "unknown"


def test_an_unusable_reference_is_a_row(rich: FakeRegistries) -> None:
    found = only(rich, sighted("sha256:" + "a" * 64, image_id(Digest.of(b"x"))))
    assert any("is a digest, not an image name" in reason for reason in found.reasons)


# -- the tag ----------------------------------------------------------------------------------


def test_moved_is_dated_by_the_first_event_after_the_newest_match(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one, two, three = app.image("one", "1"), app.image("two", "1"), app.image("three")
    app.point("1", one.manifest)  # back again
    app.point("1", two.manifest)  # the move that counts, the fourth event
    app.point("1", three.manifest)
    found = only(rich, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert found.tag.state == "moved"
    assert found.tag.moved_at == START + datetime.timedelta(minutes=3)
    assert found.tag.digest == three.manifest


def test_a_tag_moved_to_the_same_code_is_current(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1")
    app.image("one", "1", squeezed="zstd")
    found = only(registries, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert found.tag.state == "current"


def test_a_manifest_and_the_index_that_holds_it_are_not_two_things(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one")
    app.index({"linux/amd64": one}, "1")
    found = only(registries, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert found.tag.state == "current"


def test_deleted_is_moved_to_nowhere(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one = app.image("one", "1")
    app.point("1", None)
    found = only(rich, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert (found.tag.state, found.tag.digest) == ("moved", None)
    assert found.tag.moved_at == START + datetime.timedelta(minutes=1)
    assert any("deleted" in reason for reason in found.reasons)


def test_never_and_pinned(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one = app.image("one", "1")
    app.image("two", "2")
    never = only(rich, sighted(f"{APP}:2", claim(one.manifest, APP), image_id(one.config)))
    assert never.tag.state == "never"
    pinned = only(rich, sighted(f"{APP}:2@{one.manifest}", claim(one.manifest, APP), image_id(one.config)))
    assert pinned.tag.state == "pinned"


def test_no_history_is_unknown_with_the_reason(plain: FakeRegistries) -> None:
    app = plain.at(APP)
    one = app.image("one", "1")
    two = app.image("two", "1")
    found = only(plain, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert (found.tag.state, found.tag.digest) == ("unknown", two.manifest)
    assert any("keeps no tag history" in reason for reason in found.reasons)


def test_no_tag_means_latest(rich: FakeRegistries) -> None:
    one = rich.at(APP).image("one", "latest")
    assert only(rich, sighted(APP, claim(one.manifest, APP), image_id(one.config))).tag.state == "current"


# -- advisories -------------------------------------------------------------------------------


def test_affected_names_what_to_restart_from_and_fixed_is_told(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    bad, good = app.image("one", "1"), app.image("two", "1")
    state(registries, f"{APP}@{bad.manifest}", "affected", f"{APP}:1")
    report = run(
        registries,
        sighted(f"{APP}:1", claim(good.manifest, APP), image_id(good.config), name="good"),
        sighted(f"{APP}:1", claim(bad.manifest, APP), image_id(bad.config), name="bad"),
    )
    assert [(one.container.name, one.assessment.state) for one in report.findings] == [
        ("bad", "affected"), ("good", "fixed"),
    ]  # fmt: skip
    assert report.affected
    assert report.findings[0].action == f"restart from {APP}@{good.manifest}"
    assert report.findings[1].action == "nothing to do"


def test_an_indexs_advisory_holds_for_its_children_and_for_siblings(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one")
    index = app.index({"linux/amd64": one}, "1")
    state(registries, f"{APP}@{index}", "affected")
    seen = sighted(f"{APP}:1", claim(index, APP), image_id(one.config))
    assert only(registries, seen).assessment.state == "affected"


def test_siblings_that_share_a_config_are_the_same_code(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one, same = app.image("one", "1"), app.image("one", "2", squeezed="zstd")
    state(rich, f"{APP}@{same.manifest}", "affected")
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config))
    assert only(rich, seen).assessment.state == "affected"


def test_a_mirror_is_judged_by_what_is_said_of_the_original(registries: FakeRegistries) -> None:
    app, mirror = registries.at(APP), registries.at(f"{HOST}/mirror")
    one, copied = app.image("one", "1"), mirror.image("one", "1", squeezed="zstd")
    state(registries, f"{APP}@{one.manifest}", "affected")
    report = run(
        registries,
        sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config), name="a"),
        sighted(f"{HOST}/mirror:1", claim(copied.manifest, f"{HOST}/mirror"), image_id(one.config), name="b"),
    )
    assert [one.assessment.state for one in report.findings] == ["affected", "affected"]
    assert any(f"stated in {APP}" in reason for reason in report.findings[1].reasons)


def test_the_latest_statement_is_in_force(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1")
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config))
    state(registries, f"{APP}:1", "affected")
    assert only(registries, seen).assessment.state == "affected"
    state(registries, f"{APP}:1", "not_affected")  # the same second: the version decides
    assert only(registries, seen).assessment.state == "not_affected"
    state(registries, f"{APP}:1", "affected", at=START - LATER)  # older: it changes nothing
    assert only(registries, seen).assessment.state == "not_affected"
    state(registries, f"{APP}:1", "under_investigation", vulnerability="CVE-2")
    found = only(registries, seen)
    assert found.assessment.state == "unknown"
    assert "CVE-2 is under investigation" in found.reasons


def test_a_cure_that_was_found_bad_is_followed_to_its_own(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one, two, three = app.image("one", "1"), app.image("two"), app.image("three")
    state(rich, f"{APP}:1", "affected", f"{APP}@{two.manifest}")
    state(
        rich, f"{APP}@{two.manifest}", "affected", f"{APP}@{three.manifest}",
        vulnerability="CVE-2", at=START + LATER,
    )  # fmt: skip
    found = only(rich, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert found.action == f"restart from {APP}@{three.manifest}"


def test_an_unknown_platform_leaves_a_doubt(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    state(rich, f"{APP}@{arm.manifest}", "affected")
    found = only(rich, sighted(f"{APP}:1", claim(index, APP, found_by="inventory"), platform=None))
    assert found.assessment.state == "unknown"
    assert any("may be what runs" in reason for reason in found.reasons)


# -- what cannot be seen ----------------------------------------------------------------------


def test_a_silent_registry_is_one_problem_and_rows_remain(rich: FakeRegistries) -> None:
    one = rich.at(APP).image("one", "1")
    rich.fail(HOST, Unreachable(f"{HOST} does not answer"))
    report = run(
        rich,
        sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config), name="a"),
        sighted(f"{APP}:2", claim(one.manifest, APP), image_id(one.config), name="b"),
        sighted(f"{HOST}/other:1", image_id(Digest.of(b"x")), name="c"),
    )
    assert [problem.source for problem in report.problems] == [f"registry {HOST}"]
    assert [one.assessment.state for one in report.findings] == ["unknown"] * 3
    assert [one.tag.state for one in report.findings] == ["unknown"] * 3
    assert running(report.findings[0]) == one.manifest  # the runtime's word
    assert running(report.findings[2]) is None


def test_a_hanging_registry_costs_one_timeout(rich: FakeRegistries) -> None:
    over = threading.Event()

    def hang(reference: Reference, what: str) -> None:
        over.wait(PATIENCE)

    rich.trouble = hang
    seen = [sighted(f"{HOST}/app{n}:1", image_id(Digest.of(b"%d" % n)), name=str(n)) for n in range(40)]
    report = run(rich, *seen, timeout=0.2)  # which ends while all of them hang
    assert not over.is_set()
    over.set()
    assert len(report.findings) == 40
    assert len(report.problems) == 1
    # Those that were under way at once; nobody asks after the first has given up.
    assert sum(rich.asked.values()) <= 8


def test_one_kind_of_question_that_hangs_does_not_hide_the_other_answers(rich: FakeRegistries) -> None:
    rich.bulk = False
    over = threading.Event()
    one = rich.at(APP).image("one", "1")

    def hang(reference: Reference, what: str) -> None:
        if what == "referrers":
            over.wait(PATIENCE)

    rich.trouble = hang
    seen = [sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config), name="a")]
    report = run(rich, *seen, timeout=0.3)
    over.set()
    assert running(report.findings[0]) == one.manifest
    assert report.findings[0].tag.state == "current"
    assert report.findings[0].assessment.state == "unknown"
    assert [problem.source for problem in report.problems] == [f"registry {HOST}"]


@pytest.mark.parametrize("what", ["holders", "resolve", "history", "referrers"])
def test_a_refusal_of_any_question_is_a_problem(rich: FakeRegistries, what: str) -> None:
    rich.bulk = False
    one = rich.at(APP).image("one", "1")
    rich.at(APP).image("two", "1")
    rich.fail(HOST, Unauthorized("not for you", status=403), only=what)
    report = run(rich, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert len(report.findings) == 1
    assert any("not for you" in reason for reason in report.findings[0].reasons)
    assert {problem.source for problem in report.problems} == {f"registry {APP}"}
    assert report.findings[0].assessment.state == ("not_assessed" if what == "history" else "unknown")
    assert report.findings[0].tag.state == ("moved" if what == "referrers" else "unknown")


def test_what_is_refused_at_once_is_asked_one_by_one(rich: FakeRegistries) -> None:
    one = rich.at(APP).image("one", "1")
    rich.fail(HOST, Unauthorized("not so", status=403), only="many")
    report = run(rich, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert report.problems == ()
    assert [found.tag.state for found in report.findings] == ["current"]


def test_many_images_are_one_question() -> None:
    registries = FakeRegistries(bulk=True)
    seen = []
    for number in range(60):
        app = registries.at(f"{HOST}/app{number}")
        old = app.image(f"old {number}", "1")
        new = app.image(f"new {number}", "1")
        state(registries, f"{app.reference.name}@{old.manifest}", "affected", f"{app.reference.name}:1")
        index = app.index({"linux/amd64": new}, "multi")
        seen += [
            sighted(f"{app.reference.name}:1", claim(old.manifest, app.reference.name), name=f"a{number}"),
            sighted(f"{app.reference.name}:multi", claim(index, app.reference.name), name=f"b{number}"),
        ]
    registries.asked.clear()
    report = run(registries, *seen)
    states = {
        one.container.name: (one.tag.state, one.assessment.state, one.action[:7]) for one in report.findings
    }
    assert states["a7"] == ("moved", "affected", "restart")
    assert states["b7"] == ("current", "fixed", "nothing")
    # One about the containers' images, one about the tags at which something may be attached to what they
    # are, and one about the images that fix them.
    assert {what for what, _, _ in registries.asked} == {"many"}
    assert sum(registries.asked.values()) == 3


def test_each_distinct_thing_is_asked_once(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1")
    app.image("two", "1")
    seen = [
        sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config), name=str(n)) for n in range(200)
    ]
    report = run(registries, *seen)
    assert len(report.findings) == 200
    single = [count for (what, _, _), count in registries.asked.items() if what != "many"]
    assert max(single, default=1) == 1
    assert sum(count for (what, _, _), count in registries.asked.items() if what == "many") <= 2


def test_source_problems_are_kept(rich: FakeRegistries) -> None:
    report = run(rich, Unseen("docker", "no such socket"))
    assert report.problems == (Unseen("docker", "no such socket"),)
    assert not report.affected
