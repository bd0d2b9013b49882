"""The follower of a cluster: what a watch of its pods tells."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration, Unauthorized
from digestry.inventory.followers.kubernetes import KubernetesFollower
from digestry.inventory.runs import AllRuns, RunStopped, Unobserved
from digestry.inventory.sources.kubernetes import Where
from tests.agent.following import following
from tests.inventory.kube import Cluster, kubeconfig, running_cluster

DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster(None) as server:
        server.users.add(None)  # type: ignore[arg-type] # credentials are not sent without TLS
        server.lists["/api/v1/pods"] = []
        server.lists["/api/v1/nodes"] = [
            {
                "metadata": {"name": "n1"},
                "status": {"nodeInfo": {"architecture": "arm64", "operatingSystem": "linux"}},
            }
        ]
        yield server


@pytest.fixture
def environment(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    return kubeconfig(tmp_path / "config", {"server": cluster.url}, {})


def follower(environment: dict[str, str], where: str = "") -> KubernetesFollower:
    return KubernetesFollower(
        "kubernetes", Where.parse(where), timeout=5, environment=environment, watched_for=0.05
    )


def now(seconds: float = 0) -> str:
    """A time from now, as a kubelet writes it: to the second."""
    when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def pod(name: str, state: dict[str, Any], last: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    identity = more.pop("container", f"c-{name}")
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", **more},
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "reg.example/app:1"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "app",
                    "image": "reg.example/app:1",
                    "imageID": f"reg.example/app@{DIGEST}",
                    "containerID": f"containerd://{identity}",
                    "state": state,
                    "lastState": last or {},
                }
            ],
        },
    }


def runs(since: str) -> dict[str, Any]:
    return {"running": {"startedAt": since}}


def ended(since: str, until: str, container: str) -> dict[str, Any]:
    return {
        "terminated": {
            "startedAt": since,
            "finishedAt": until,
            "containerID": f"containerd://{container}",
            "reason": "Completed",
        }
    }


def test_pods_that_run_start_and_end(cluster: Cluster, environment: dict[str, str]) -> None:
    owner = {"kind": "ReplicaSet", "name": "web-77d", "controller": True}
    began = now(-60)
    cluster.change(
        "ADDED", pod("web", runs(began), ownerReferences=[owner], labels={"pod-template-hash": "77d"})
    )
    with following(follower(environment)) as told:
        assert told.short() == ["=c-web"]
        cluster.change(
            "ADDED", pod("job", runs(now()), ownerReferences=[{"kind": "Job", "name": "j-29012345"}])
        )
        told.wait("+c-job")
        until = now()
        cluster.change("MODIFIED", pod("job", ended(now(-1), until, "c-job")))
        told.wait("-c-job")
    (all_runs,) = [change for change in told.changes if isinstance(change, AllRuns)]
    (web,) = all_runs.runs
    assert (web.workload, web.node, web.namespace) == ("deployment/web", "n1", "shop")
    assert str(web.image.platform) == "linux/arm64"
    assert [str(claim.digest) for claim in web.image.claims] == [DIGEST]
    assert told.runs()[0].workload == "cronjob/j"
    (stop,) = [change for change in told.changes if isinstance(change, RunStopped)]
    assert f"{stop.at:%Y-%m-%dT%H:%M:%SZ}" >= until
    assert stop.after is None


def test_a_run_between_two_changes_is_not_missed(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.change("ADDED", pod("web", runs(now(-60)), container="one"))
    with following(follower(environment)) as told:
        # Two starts in one change: the pod's status still has the one before.
        cluster.change("MODIFIED", pod("web", runs(now(2)), ended(now(1), now(2), "two"), container="three"))
        told.wait("+three", "-one")
    assert told.short() == ["=one", "+two", "-two", "+three", "-one"]
    unseen = [
        change for change in told.changes if isinstance(change, RunStopped) and change.container == "one"
    ]
    assert unseen[0].after is not None  # nobody saw when


def test_a_pod_that_is_deleted_ends_what_ran_in_it(cluster: Cluster, environment: dict[str, str]) -> None:
    web = pod("web", runs(now(-60)))
    cluster.change("ADDED", web)
    with following(follower(environment)) as told:
        cluster.change("DELETED", web)
        told.wait("-c-web")
    (stop,) = [change for change in told.changes if isinstance(change, RunStopped)]
    assert stop.after is not None
    assert stop.after <= stop.at


def test_what_the_server_has_forgotten_is_a_gap(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.change("ADDED", pod("web", runs(now(-60))))
    with following(follower(environment)) as told:
        cluster.change("ADDED", pod("new", runs(now())), lose=True)
        cluster.version += 5
        cluster.forgotten = cluster.version
        told.wait("gap", "=c-new,c-web")


def test_a_second_start_of_the_agent_tells_the_ends_meanwhile(
    cluster: Cluster, environment: dict[str, str]
) -> None:
    cluster.change("ADDED", pod("web", runs(now(-60))))
    with following(follower(environment)) as told:
        pass
    cluster.change("MODIFIED", pod("web", ended(now(-60), now(2), "c-web")))
    with following(follower(environment), told.position) as again:
        again.wait("-c-web")
    assert isinstance(again.changes[0], Unobserved)
    assert again.short()[-1] == "="


def test_all_that_runs_is_told_again(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.change("ADDED", pod("web", runs(now(-60))))
    with following(follower(environment)) as told:
        told.wakeup.request_all_runs()
        told.wait("=c-web")
    assert told.short()[0] == "=c-web"


def test_a_user_who_may_not_is_an_error(cluster: Cluster, environment: dict[str, str]) -> None:
    cluster.forbidden.add("pods")
    with following(follower(environment)) as told:
        pass
    assert isinstance(told.error, Unauthorized)


def test_one_watch_is_of_one_namespace(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidConfiguration, match="one watch is of one namespace") as refused:
        follower(environment, "?namespace=a,b")
    assert refused.value.hint
