"""Workloads without pods, pods that are older than their template, and how the audit judges both."""

from __future__ import annotations

from typing import Any

import pytest

from digestry.advisories import publish
from digestry.audit.assessment import State
from digestry.audit.audit import audit
from digestry.audit.findings import ContainerFinding
from digestry.audit.registry_queries import RegistryQueries
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.formats.workloads import Workloads
from digestry.inventory.observation import ContainerObservation, Observation, Unseen
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.audit.fakes import HOST, FakeRegistries
from tests.inventory.fakes import START, Listed, claim, sighted
from tests.inventory.kube import constructed, rows
from tests.inventory.test_pods import SHOP, digest, running

KINDS = {
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "cronjobs": "CronJob",
    "jobs": "Job",
}
APP = f"{HOST}/app"


def everything() -> list[Any]:
    """The constructed cluster as ``kubectl get … -o json`` writes it: one list of all kinds."""
    objects = constructed("pods")["items"]
    objects += [{"kind": "Node", **one} for one in constructed("nodes")["items"]]
    for name, listed in constructed("workloads").items():
        objects += [{"kind": KINDS[name], **one} for one in listed["items"]]
    return [*objects, {"kind": "Service", "metadata": {"name": "web"}}]


def observed() -> list[Observation]:
    """The containers of the constructed cluster's pods, and of its workloads that have no pods."""
    workloads, objects = Workloads("k"), everything()
    for entry in objects:
        if entry["kind"] in KINDS.values():
            assert workloads.add(entry["kind"], entry) is None
    pods = [entry for entry in objects if entry["kind"] == "Pod"]
    nodes = platforms_of_nodes([entry for entry in objects if entry["kind"] == "Node"])
    found = observe_pods(workloads.seeing(pods), source="k", nodes=nodes, remark=workloads.remark)
    return [*found, *workloads.idle(whole=False)]


def seen() -> dict[str, ContainerObservation]:
    return rows(observed())


def idle(*, whole: bool, without: str = "") -> dict[str, ContainerObservation]:
    workloads = Workloads("k")
    for name, listed in constructed("workloads").items():
        for one in listed["items"] if name != without else ():
            assert workloads.add(KINDS[name], one) is None
    list(observe_pods(workloads.seeing(constructed("pods")["items"]), source="k"))
    found: list[Observation] = list(workloads.idle(whole=whole))
    return rows(found)


# -- templates ----------------------------------------------------------------------------------


def test_what_has_no_pods_is_a_row_that_does_not_run() -> None:
    found = {name: row for name, row in seen().items() if not row.runs}
    assert set(found) == {
        "deployment/asleep/app",
        "deployment/asleep-pinned/app",
        "cronjob/backup/dump",
        "cronjob/report/report",
        "job/import-once/import",
    }
    row = found["cronjob/backup/dump"]
    assert (row.namespace, row.host, row.image.reference) == ("shop", "", f"{SHOP}/backup:2")
    assert row.image.claims == ()
    [remark] = row.remarks
    assert remark == (
        "nothing of it runs now (its schedule is '0 3 * * *'); the next run pulls what the tag points to "
        "then, or finds an image of that name on its node (imagePullPolicy IfNotPresent)"
    )


def test_what_rests_on_purpose_says_so() -> None:
    found = seen()
    assert (
        found["deployment/asleep/app"].remarks[0].startswith("nothing of it runs now (it is scaled to zero)")
    )
    assert found["cronjob/report/report"].remarks == (
        "nothing of it runs now (it is suspended); the next run pulls what the tag points to then",
    )


def test_a_pinned_template_claims_its_digest() -> None:
    row = seen()["deployment/asleep-pinned/app"]
    assert [one.digest for one in row.image.claims] == [digest("asleep")]
    assert row.remarks[0].endswith("the next run has the digest that it names")


def test_a_cron_jobs_pod_is_known_without_its_job() -> None:
    workloads = Workloads("k")
    for one in constructed("workloads")["cronjobs"]["items"]:
        workloads.add("CronJob", one)
    pod = running(f"{SHOP}/backup:1")
    pod["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "backup-29401200", "controller": True}]
    pod["metadata"]["namespace"] = "shop"
    pod["spec"]["containers"][0]["name"] = "dump"
    list(workloads.seeing([pod]))
    assert "cronjob/backup names" in workloads.remark(pod, "dump", f"{SHOP}/backup:1")
    assert {row.name for row in workloads.idle(whole=True)} == {"cronjob/report/report"}


def test_where_pods_are_missing_the_workloads_own_count_decides() -> None:
    workloads = Workloads("k")
    [web] = [
        one for one in constructed("workloads")["deployments"]["items"] if one["metadata"]["name"] == "web"
    ]
    workloads.add("Deployment", web)
    assert list(workloads.idle(whole=False)) == []
    [row, _] = list(workloads.idle(whole=True))
    assert row.remarks[0].startswith("no pod of it was seen, though its status counts 1;")


def test_a_job_that_is_over_or_a_cron_jobs_is_no_row() -> None:
    assert not any(name.startswith("job/backup") for name in idle(whole=True))
    assert not any(name.startswith("job/backup") for name in idle(whole=True, without="cronjobs"))


def test_a_pod_that_is_older_than_its_template_says_so() -> None:
    row = seen()["web-7d9c5b6f4b-x2x9p/app"]
    [remark] = row.remarks
    assert remark == (
        f"deployment/web names {SHOP}/web:1.6 by now: this pod is of an older template, "
        "or its image was changed when it was created"
    )
    assert seen()["web-7d9c5b6f4b-x2x9p/mesh"].remarks == ()


@pytest.mark.parametrize("entry", [None, 1, [], {}, {"metadata": {"name": []}}])
def test_a_workload_that_is_none_is_a_problem(entry: Any) -> None:
    assert isinstance(Workloads("k").add("Deployment", entry), Unseen)


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [1], {"x": 1}, [[]], True])
def test_wrong_types_in_workloads_never_crash(value: Any) -> None:
    for kind in KINDS.values():
        for path in (("spec",), ("status",), ("metadata", "ownerReferences"), ("spec", "template"),
                     ("spec", "jobTemplate"), ("spec", "replicas"), ("status", "active"),
                     ("status", "conditions"), ("status", "replicas"), ("metadata", "uid")):  # fmt: skip
            entry: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {}, "status": {}}
            here = entry
            for key in path[:-1]:
                here = here[key]
            here[path[-1]] = value
            workloads = Workloads("k")
            assert workloads.add(kind, entry) is None
            list(workloads.idle(whole=True))


def test_nodes_in_the_same_list_give_the_platform() -> None:
    assert str(seen()["agent-q8z5d/agent"].image.platform) == "linux/arm64"
    assert platforms_of_nodes([None, {"metadata": {"name": "a"}}, {"status": {"nodeInfo": 3}}]) == {}


# -- how the audit judges them ------------------------------------------------------------------


@pytest.fixture
def registries() -> FakeRegistries:
    return FakeRegistries()


def judge(registries: FakeRegistries, *sightings: ContainerObservation) -> list[ContainerFinding]:
    report = audit([Listed(*sightings)], RegistryQueries(registries))
    assert report.problems == ()
    return list(report.findings)


def template(reference: str, *claims: Any, **more: Any) -> ContainerObservation:
    return sighted(reference, *claims, runs=False, platform=None, remarks=("nothing of it runs now",), **more)


def state_bad(registries: FakeRegistries, name: str, *fixed_by: str) -> None:
    statement = publish.NewStatement(
        vulnerability="CVE-2026-1", status="affected", author="me", timestamp=START
    )
    subject, *fixes = (publish.find_image(registries, Reference.parse(one)) for one in (name, *fixed_by))
    publish.attach_statement(
        registries, subject, statement, fixes, new_queries=lambda: RegistryQueries(registries)
    )


def state(finding: ContainerFinding) -> tuple[State, str]:
    return finding.assessment.state, finding.tag.state


def test_a_template_is_judged_by_what_it_would_start(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    bad, good = app.image("bad"), app.image("good", "1")
    state_bad(registries, f"{APP}@{bad.manifest}")
    [found] = judge(registries, template(f"{APP}:1"))
    assert state(found) == ("not_assessed", "current")
    assert found.tag.digest == good.manifest
    assert found.identity is None
    assert found.reasons[0] == "nothing of it runs now"
    app.point("1", bad.manifest)
    [found] = judge(registries, template(f"{APP}:1"))
    assert state(found) == ("affected", "current")
    assert found.identity is None
    assert found.action == "let it not run again: CVE-2026-1 has no fix"


def test_a_pinned_template_is_judged_by_its_digest(registries: FakeRegistries) -> None:
    app = registries.at(APP)
    bad, good = app.image("bad", "1"), app.image("good", "2")
    state_bad(registries, f"{APP}@{bad.manifest}", f"{APP}@{good.manifest}")
    [found] = judge(registries, template(f"{APP}@{bad.manifest}", claim(bad.manifest, APP)))
    assert state(found) == ("affected", "pinned")
    assert found.action == f"before it runs again, let it name {APP}@{good.manifest}"


def test_a_template_whose_tag_is_not_there(registries: FakeRegistries) -> None:
    registries.at(APP).image("one", "1")
    [found] = judge(registries, template(f"{APP}:2"))
    assert state(found) == ("unknown", "unknown")
    assert "there is no tag '2'" in found.reasons
    assert found.action == "audit again when it runs"


def test_a_container_without_any_digest_did_not_leave_its_tag(registries: FakeRegistries) -> None:
    one = registries.at(APP).image("one", "1")
    [found] = judge(registries, sighted(f"{APP}:1", remarks=("it waits",)))
    assert state(found) == ("unknown", "unknown")
    assert found.tag.digest == one.manifest
    assert found.reasons == ("it waits",)


@pytest.mark.parametrize("remembers", [True, False])
def test_code_known_by_another_name_is_found_at_home(remembers: bool) -> None:
    # containerd names the first, in sorted order, of the digests that have the container's config.
    registries = FakeRegistries(remembers=remembers)
    home, other = registries.at(APP), registries.at(f"{HOST}/another")
    mine, copy = home.image("one", "1"), other.image("one", "x", squeezed="zstd")
    assert mine.manifest != copy.manifest
    [found] = judge(
        registries,
        sighted(
            f"{APP}:1", claim(copy.manifest, f"{HOST}/another"), claim(copy.manifest, APP, obtained=False)
        ),
    )
    assert found.identity is not None
    assert found.identity.running == mine.manifest
    assert found.identity.repository.name == APP
    assert found.tag.state == "current"
    assert any("the container's own repository has the same code" in reason for reason in found.reasons)


def test_a_constructed_cluster_is_audited_to_the_end(registries: FakeRegistries) -> None:
    report = audit([Listed(*observed())], RegistryQueries(registries))
    assert len(report.findings) == len(seen())
    assert all(finding.container.seen_at > START for finding in report.findings)
    assert Digest.of(b"web index") in {f.identity.running for f in report.findings if f.identity}
