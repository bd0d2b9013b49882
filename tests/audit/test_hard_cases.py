"""The mistakes that other tools made, and names that are more than one: each has its test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from digestry.audit.audit import audit
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.image_names import NO_NAMES, Alias, ImageNames, Mirror, RepositoryPrefix
from digestry.audit.registry_queries import RegistryQueries
from digestry.errors import DigestryError, Unauthorized, Unreachable
from digestry.inventory.observation import Abbreviation, ContainerObservation
from digestry.inventory.source_selection import parse_source
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.audit.fakes import HOST, FakeRegistries, entry
from tests.audit.test_audit import state
from tests.inventory.fakes import AMD64, ARM64, Listed, claim, image_id, sighted
from tests.support import PATIENCE

APP = f"{HOST}/app"
MIRROR = "mirror.example:5000"
ALIASED = ImageNames((Alias(RepositoryPrefix.parse(f"{MIRROR}/hub"), RepositoryPrefix.parse(HOST)),))


@pytest.fixture(params=["digestry, at once", "digestry", "plain registry"])
def registries(request: pytest.FixtureRequest) -> FakeRegistries:
    return FakeRegistries(remembers="digestry" in request.param, bulk="at once" in request.param)


@pytest.fixture(params=["at once", "one by one"])
def rich(request: pytest.FixtureRequest) -> FakeRegistries:
    return FakeRegistries(bulk=request.param == "at once")


def run(registries: FakeRegistries, *seen: Any, names: ImageNames = NO_NAMES) -> AuditReport:
    return audit([Listed(*seen)], RegistryQueries(registries, timeout=PATIENCE), names=names)


def only(
    registries: FakeRegistries, seen: ContainerObservation, names: ImageNames = NO_NAMES
) -> ContainerFinding:
    (finding,) = run(registries, seen, names=names).findings
    return finding


def running(finding: ContainerFinding) -> Digest:
    assert finding.identity is not None, finding.reasons
    return finding.identity.running


# -- one code, several digests ----------------------------------------------------------------


def test_one_config_under_two_manifests(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one = app.image("one", "1")
    same = app.image("one", "2", squeezed="zstd")
    assert one.config == same.config
    state(rich, f"{APP}@{one.manifest}", "affected")
    report = run(
        rich,
        sighted(f"{APP}:1", claim(same.manifest, APP), name="a"),
        sighted(f"{APP}:2", claim(same.manifest, APP), image_id(same.config), name="b"),
        sighted(f"{APP}:2", image_id(same.config), name="c"),
    )
    found = {one.container.name: one for one in report.findings}
    assert [found[name].tag.state for name in "abc"] == ["current"] * 3
    assert [found[name].assessment.state for name in "abc"] == ["affected"] * 3
    assert running(found["c"]) == same.manifest  # the one that its tag points to


def test_two_nodes_of_different_architecture_under_one_index(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    report = run(
        registries,
        sighted(f"{APP}:1", claim(index, APP), name="a", platform=AMD64),
        sighted(f"{APP}:1", claim(index, APP), name="b", platform=ARM64),
        sighted(f"{APP}:1", claim(arm.manifest, APP), image_id(arm.config), name="c", platform=ARM64),
    )
    assert [found.tag.state for found in report.findings] == ["current"] * 3
    manifests = [found.identity.manifest for found in report.findings if found.identity]
    assert manifests == [amd.manifest, arm.manifest, arm.manifest]


def test_several_repositories_share_a_config(registries: FakeRegistries) -> None:
    # containerd reports the first of the sorted digests: it may be another repository's.
    first, app = registries.at(f"{HOST}/aaa"), registries.at(APP)
    copied, own = first.image("one", "x", squeezed="zstd"), app.image("one", "1")
    seen = [
        sighted(f"{APP}:1", claim(copied.manifest, f"{HOST}/aaa"), image_id(own.config), name="a"),
        sighted(f"{APP}:1", claim(copied.manifest, f"{HOST}/aaa"), name="b"),
    ]
    for found in run(registries, *seen).findings:
        assert running(found) == own.manifest
        assert found.tag.state == "current"


def test_what_was_pulled_there_and_pushed_here_anew(registries: FakeRegistries) -> None:
    """An engine writes another manifest when it pushes: what is said of the first one counts all the same."""
    first, app = registries.at(f"{HOST}/aaa"), registries.at(APP)
    pulled, pushed = first.image("one", "1", squeezed="zstd"), app.image("one", "1")
    state(registries, f"{HOST}/aaa@{pulled.manifest}", "affected")
    seen = sighted(
        f"{APP}:1",
        claim(pulled.manifest, f"{HOST}/aaa"),
        claim(pushed.manifest, APP),
        image_id(pushed.config),
    )
    found = only(registries, seen)
    assert (running(found), found.tag.state, found.assessment.state) == (
        pushed.manifest,
        "current",
        "affected",
    )
    other = first.image("two", "2")  # other code in that repository says nothing
    state(registries, f"{HOST}/aaa@{other.manifest}", "affected")
    alone = sighted(f"{APP}:1", claim(pushed.manifest, APP), image_id(pushed.config))
    assert only(registries, alone).assessment.state == "not_assessed"


def test_a_digest_that_the_store_wrote_is_not_never(rich: FakeRegistries) -> None:
    """containerd's store has digests of its own for what it loaded: they say nothing of the code."""
    rich.at(APP).image("one", "1")
    written = Digest.of(b"a manifest that no registry has")
    own = replace(image_id(written, kind="unknown"), rewritten=True)
    found = only(rich, sighted(f"{APP}:1", own))
    assert (found.identity, found.tag.state, found.assessment.state) == (None, "unknown", "unknown")
    assert "may have written" in " ".join(found.reasons)
    sure = only(rich, sighted(f"{APP}:1", image_id(written)))
    assert sure.tag.state == "never"


def test_an_index_is_not_outdated_because_a_manifest_runs(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("one amd"), app.image("one arm")
    app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    assert only(registries, sighted(f"{APP}:1", claim(amd.manifest, APP))).tag.state == "current"
    app.index({"linux/amd64": app.image("two amd"), "linux/arm64": arm}, "1", note="later")
    # The other platform's code is still what the tag has; this one's is not.
    found = only(
        registries, sighted(f"{APP}:1", claim(arm.manifest, APP), image_id(arm.config), platform=ARM64)
    )
    assert found.tag.state == "current"
    found = only(registries, sighted(f"{APP}:1", claim(amd.manifest, APP), image_id(amd.config)))
    assert found.tag.state == ("moved" if registries.remembers else "unknown")


# -- what is easily dropped -------------------------------------------------------------------


def test_pinned_containers_are_not_dropped(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    old = app.image("one", "1")
    new = app.image("two", "1")
    state(registries, f"{APP}@{old.manifest}", "affected", f"{APP}@{new.manifest}")
    report = run(
        registries,
        sighted(f"{APP}@{old.manifest}", claim(old.manifest, APP), name="a"),
        sighted(f"{APP}:1@{new.manifest}", claim(new.manifest, APP), name="b"),
    )
    assert [(one.tag.state, one.assessment.state) for one in report.findings] == [
        ("pinned", "affected"), ("pinned", "fixed"),
    ]  # fmt: skip


def test_never_is_an_alarm_of_its_own(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    stray = app.image("one", "test")
    app.image("two", "1")
    app.image("three", "1")
    found = only(rich, sighted(f"{APP}:1", claim(stray.manifest, APP), image_id(stray.config)))
    assert (found.tag.state, found.tag.moved_at) == ("never", None)
    assert any("never pointed to what runs" in reason for reason in found.reasons)
    assert "find out where" in found.action


@pytest.mark.parametrize("left", ["moved", "deleted"])
def test_a_history_that_begins_when_the_tag_left_what_runs(rich: FakeRegistries, left: str) -> None:
    app = rich.at(APP)
    old, other = app.image("old", "1"), app.image("other", "2")
    if left == "deleted":
        app.point("1", None)
    app.image("new", "1")
    app.events = [event for event in app.events if event.to_digest != old.manifest]
    found = only(rich, sighted(f"{APP}:1", claim(old.manifest, APP)))
    assert (found.tag.state, found.tag.moved_at) == (
        "moved",
        [one.at for one in app.events if one.tag == "1"][-1],
    )
    # What it pointed to before, nobody knows.
    assert only(rich, sighted(f"{APP}:1", claim(other.manifest, APP))).tag.state == "unknown"


@pytest.mark.parametrize("kept", [0, 1])
def test_a_history_that_does_not_lead_to_where_the_tag_points(rich: FakeRegistries, kept: int) -> None:
    app = rich.at(APP)
    app.image("first", "1")
    lost = app.image("lost", "1")
    app.image("now", "1")
    app.events = app.events[-kept:] if kept else []
    found = only(rich, sighted(f"{APP}:1", claim(lost.manifest, APP)))
    assert found.tag.state == "unknown"
    assert "one of the two is wrong" in found.tag.reasons[0]


def test_a_tag_that_is_gone_without_a_deletion_is_not_moved(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one = app.image("one", "1")
    app.point("1", None)
    del app.events[0]
    assert only(rich, sighted(f"{APP}:1", claim(one.manifest, APP))).tag.state == "unknown"


def test_a_tag_has_not_moved_if_it_points_to_what_may_run(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    amd, arm = app.image("amd"), app.image("arm")
    index = app.index({"linux/amd64": amd, "linux/arm64": arm}, "1")
    app.point("1", arm.manifest)
    seen = sighted(f"{APP}:1", claim(index, APP), platform=None)
    assert only(rich, seen).tag.state == "unknown"
    app.index({"linux/amd64": app.image("new amd"), "linux/arm64": arm}, "1")
    assert only(rich, seen).tag.state == "unknown"
    app.point("1", app.image("later").manifest)
    assert only(rich, seen).tag.state == "moved"


def test_digests_that_contradict_each_other_of_which_the_tag_has_one(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one, two, never = app.image("one", "1"), app.image("two", "1"), app.image("never", "2")
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), claim(two.manifest, APP))
    assert only(rich, seen).tag.state == "unknown"
    app.image("three", "1")
    assert only(rich, seen).tag.state == "moved"  # the tag had both
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), claim(never.manifest, APP))
    assert only(rich, seen).tag.state == "unknown"


def test_an_image_id_that_is_not_of_the_digest_that_was_pulled(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "1")
    state(registries, f"{APP}:1", "fixed")
    other = image_id(Digest.of(b"something else"), kind="unknown")
    found = only(registries, sighted(f"{APP}:1", claim(one.manifest, APP), other))
    assert (found.tag.state, found.assessment.state) == ("unknown", "unknown")
    found = only(registries, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)))
    assert (found.tag.state, found.assessment.state) == ("current", "fixed")


def test_what_is_said_of_an_inner_index_counts_for_what_may_run(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    amd, arm = app.image("amd"), app.image("arm")
    inner = app.index({"linux/amd64": amd})
    outer = app.put(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [
                entry(media_types.OCI_INDEX, inner, app.manifests[inner].size),
                entry(media_types.OCI_MANIFEST, arm.manifest, app.manifests[arm.manifest].size),
            ],
        },
        "1",
    )
    state(registries, f"{APP}@{inner}", "affected")
    found = only(registries, sighted(f"{APP}:1", claim(outer, APP), platform=None))
    assert found.assessment.state == "unknown"
    assert any("may be what runs" in reason for reason in found.reasons)


def test_missing_digests_are_a_row(rich: FakeRegistries) -> None:
    rich.at(APP).image("one", "1")
    report = run(rich, sighted(f"{APP}:1", name="a"), sighted(None, name="b"), sighted("", name="c"))
    assert [one.assessment.state for one in report.findings] == ["unknown"] * 3
    assert all(one.identity is None and one.reasons for one in report.findings)


def test_if_not_present_keeps_what_the_tag_had(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    old = app.image("one", "1")
    new = app.image("two", "1")
    report = run(
        rich,
        replace(sighted(f"{APP}:1", claim(old.manifest, APP), name="a"), host="node-1"),
        replace(sighted(f"{APP}:1", claim(new.manifest, APP), name="b"), host="node-2"),
    )
    assert [(one.container.host, one.tag.state, running(one)) for one in report.findings] == [
        ("node-1", "moved", old.manifest), ("node-2", "current", new.manifest),
    ]  # fmt: skip
    assert report.findings[0].tag.digest == new.manifest


# -- digests that were cut off ----------------------------------------------------------------


def short(digest: Digest, length: int = 12) -> tuple[Abbreviation, ...]:
    return (Abbreviation(digest.encoded[:length], "the table", "inventory"),)


def test_the_beginning_of_a_digest(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    one = app.image("one", "0")
    two = app.image("two")
    index = app.index({"linux/amd64": two}, "1")
    for given, wanted in ((one.manifest, one.manifest), (one.config, one.manifest), (index, index)):
        found = only(registries, sighted(f"{APP}:1", abbreviations=short(given)))
        assert running(found) == wanted
        assert any("one digest of" in reason and "begins so" in reason for reason in found.reasons)
    assert only(registries, sighted(f"{APP}:1", abbreviations=short(index))).tag.state == "current"


def test_a_beginning_of_what_is_overwritten(rich: FakeRegistries) -> None:
    app = rich.at(APP)
    one = app.image("one", "1")
    app.image("two", "1")
    found = only(rich, sighted(f"{APP}:1", abbreviations=short(one.manifest)))
    assert (running(found), found.tag.state) == (one.manifest, "moved")


def test_a_beginning_that_several_have_or_none(rich: FakeRegistries, monkeypatch: pytest.MonkeyPatch) -> None:
    app = rich.at(APP)
    one = app.image("one", "1")
    found = only(rich, sighted(f"{APP}:1", abbreviations=short(Digest.of(b"other"))))
    assert (found.assessment.state, found.tag.state) == ("unknown", "unknown")
    assert found.tag.digest == one.manifest
    assert any("no digest begins so" in reason for reason in found.reasons)
    both = (one.manifest, one.config)
    monkeypatch.setattr(RegistryQueries, "digests_with_prefix", lambda *_: both)
    found = only(rich, sighted(f"{APP}:1", abbreviations=short(one.manifest)))
    assert found.identity is None
    assert any("2 digests begin so" in reason for reason in found.reasons)


def test_a_file_with_what_docker_ps_shows(registries: FakeRegistries, tmp_path: Path) -> None:
    app = registries.at(APP)
    one = app.image("one", "1")
    inventory = tmp_path / "fleet.csv"
    inventory.write_text(
        f"name,image,digest,image_id\na,{APP}:1,{one.manifest.encoded[:12]},\n"
        f"b,{APP}:1,sha256:{one.manifest.encoded[:20]},\nc,{APP}:1,,{one.config.encoded[:12]}\nd,{APP}:1,abc,\n"
    )
    report = audit([parse_source(f"file:{inventory}")], RegistryQueries(registries, timeout=PATIENCE))
    assert [(found.container.name, running(found), found.tag.state) for found in report.findings] == [
        (name, one.manifest, "current") for name in "abc"
    ]
    assert [found.identity.found_by for found in report.findings if found.identity] == [
        "inventory", "inventory", "image-id",
    ]  # fmt: skip
    assert len(report.problems) == 1  # three digits are no beginning


# -- other names ------------------------------------------------------------------------------


def test_the_first_name_that_knows_the_digest_confirms(registries: FakeRegistries) -> None:
    own, copy = registries.at(APP), registries.at(f"{MIRROR}/hub/app")
    one = copy.image("one", "1")
    own.image("two", "1")
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config))
    found = only(registries, seen, ALIASED)
    assert found.identity is not None
    assert found.identity.confirmed
    assert found.identity.repository.name == f"{MIRROR}/hub/app"
    assert any(f"confirmed by {MIRROR}/hub/app, another name of {APP}" in one for one in found.reasons)
    # The tag is the own registry's matter.
    assert found.tag.digest == own.pointers["1"]
    assert found.tag.state == ("never" if registries.remembers else "unknown")
    without = only(registries, seen)
    assert without.identity is None or not without.identity.confirmed


def test_what_the_own_registry_knows_is_not_asked_for_elsewhere(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1")
    registries.at(f"{MIRROR}/hub/app").image("two", "1")
    found = only(registries, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)), ALIASED)
    assert found.identity is not None
    assert found.identity.repository.name == APP
    assert found.tag.state == "current"
    asked = {what for what, name, _ in registries.asked if name.startswith(MIRROR)}
    assert asked <= {"referrers", "resolve", "many"}


def test_a_digest_of_one_name_is_one_of_the_other(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1")
    registries.at(f"{MIRROR}/hub/app").image("one", "1")
    found = only(registries, sighted(f"{APP}:1", claim(one.manifest, f"{MIRROR}/hub/app")), ALIASED)
    assert found.identity is not None
    assert (found.identity.repository.name, found.tag.state) == (APP, "current")
    assert not any("another" in reason for reason in found.reasons)


def test_an_advisory_under_another_name_counts(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1")
    assert registries.at(f"{MIRROR}/hub/app").image("one", "1") == one
    state(registries, f"{MIRROR}/hub/app:1", "affected")
    seen = sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config))
    assert only(registries, seen).assessment.state == "not_assessed"
    assert only(registries, seen, ALIASED).assessment.state == "affected"


def test_the_tag_is_judged_elsewhere_only_if_its_registry_is_unreachable(registries: FakeRegistries) -> None:
    copy = registries.at(f"{MIRROR}/hub/app")
    old = copy.image("one", "1")
    new = copy.image("two", "1")
    registries.fail(HOST, Unreachable(f"{HOST} does not answer"))
    report = run(
        registries,
        sighted(f"{APP}:1", claim(old.manifest, APP), image_id(old.config), name="a"),
        sighted(f"{APP}:1", claim(new.manifest, APP), image_id(new.config), name="b"),
        names=ALIASED,
    )
    found = {one.container.name: one for one in report.findings}
    assert found["b"].tag.state == "current"
    assert found["a"].tag.state == ("moved" if registries.remembers else "unknown")
    assert found["a"].tag.digest == new.manifest
    for one in found.values():
        assert one.identity is not None
        assert one.identity.confirmed
        assert any(f"the tag is judged by {MIRROR}/hub/app" in reason for reason in one.reasons)
    # That the registry did not answer is said all the same.
    assert [problem.source for problem in report.problems] == [f"registry {HOST}"]
    registries.fail(HOST, Unauthorized("not for you", status=403))
    refused = only(registries, sighted(f"{APP}:1", claim(new.manifest, APP)), ALIASED)
    assert refused.tag.state == "unknown"


def test_a_mirror_that_resolves_nothing_judges_no_tag(rich: FakeRegistries) -> None:
    names = ImageNames(mirrors=(Mirror(RepositoryPrefix(HOST), RepositoryPrefix(MIRROR), tags=False),))
    one = rich.at(f"{MIRROR}/app").image("one", "1")
    rich.fail(HOST, Unreachable(f"{HOST} does not answer"))
    found = only(rich, sighted(f"{APP}:1", claim(one.manifest, APP)), names)
    assert found.identity is not None
    assert found.identity.confirmed
    assert found.tag.state == "unknown"
    assert not any(what in {"resolve", "history"} and name.startswith(MIRROR) for what, name, _ in rich.asked)


@pytest.mark.parametrize(
    ("stated", "expected"), [("", "unknown"), ("fixed", "unknown"), ("affected", "affected")]
)
@pytest.mark.parametrize(
    "failure", [Unreachable(f"{MIRROR} does not answer"), Unauthorized("not for you", status=403)]
)
def test_what_hangs_on_an_image_in_a_mirror_that_says_nothing_is_not_known(
    registries: FakeRegistries, stated: Any, expected: str, failure: DigestryError
) -> None:
    """It may be worse than what was read; what runs, and where the tag points, is known all the same."""
    one = registries.at(APP).image("one", "1")
    if stated:
        state(registries, f"{APP}@{one.manifest}", stated)
    registries.fail(MIRROR, failure)
    report = run(
        registries, sighted(f"{APP}:1", claim(one.manifest, APP), image_id(one.config)), names=ALIASED
    )
    (found,) = report.findings
    assert (found.tag.state, found.assessment.state) == ("current", expected)
    assert any(MIRROR in reason and "could not be read" in reason for reason in found.reasons)
    assert [problem.source.partition("/")[0] for problem in report.problems] == [f"registry {MIRROR}"]


@pytest.mark.parametrize(("stated", "expected"), [("fixed", "unknown"), ("affected", "affected")])
def test_a_repository_that_the_engine_names_and_that_says_nothing(
    registries: FakeRegistries, stated: Any, expected: str
) -> None:
    """The image was pulled from there as another manifest: whether that is bad, nobody says."""
    other = f"{MIRROR}/elsewhere"
    one = registries.at(APP).image("one", "1")
    state(registries, f"{APP}@{one.manifest}", stated)
    seen = sighted(
        f"{APP}:1", claim(one.manifest, APP), claim(Digest.of(b"copy"), other), image_id(one.config)
    )
    assert only(registries, seen).assessment.state == stated
    registries.fail(MIRROR, Unauthorized("not for you", status=403))
    found = only(registries, seen)
    assert found.assessment.state == expected
    assert any(other in reason for reason in found.reasons)


def test_a_large_fleet_behind_a_mirror_is_few_questions() -> None:
    registries = FakeRegistries(bulk=True)
    registries.fail(HOST, Unreachable(f"{HOST} does not answer"))
    seen = []
    for number in range(50):
        one = registries.at(f"{MIRROR}/hub/app{number}").image(str(number), "1")
        name = f"{HOST}/app{number}"
        seen.append(sighted(f"{name}:1", claim(one.manifest, name), name=str(number)))
    report = run(registries, *seen, names=ALIASED)
    assert {one.tag.state for one in report.findings} == {"current"}
    # One of the registry that does not answer, and nothing after that; two of the other.
    assert {what for what, _, _ in registries.asked} == {"many"}
    assert sum(registries.asked.values()) == 3
