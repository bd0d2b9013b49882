"""Less usual forms of the documents that programs write: old versions, odd states, names in parts.

The documents were constructed by the programs' references.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.inventory.test_file_orchestrators import APP, PAIR, A, B, lines, see

# -- docker, podman, containerd -----------------------------------------------------------------


def test_docker_ps_shows_the_whole_id_of_an_image_that_lost_its_name(tmp_path: Path) -> None:
    seen = see(tmp_path, lines({"ID": "c" * 64, "Image": A, "Names": "web", "State": "running"}))
    assert seen.digests("web") == [A]
    assert not seen.problems


def test_a_name_with_a_digest_is_not_said_to_have_none(tmp_path: Path) -> None:
    seen = see(tmp_path, lines({"ID": "c", "Image": PAIR, "Names": "web", "Status": "Up"}))
    assert seen.digests("web") == [A]
    assert seen.rows["web"].remarks == ()


def test_a_state_of_an_old_docker_is_a_flag_alone(tmp_path: Path) -> None:
    def box(name: str, state: dict[str, Any]) -> dict[str, Any]:
        config = {"Image": f"{APP}:1", "Labels": None}
        return {"Id": name * 64, "Image": A, "Name": f"/{name}", "State": state, "Config": config}

    seen = see(tmp_path, [box("a", {"Running": True}), box("b", {"Running": False, "ExitCode": 0})])
    assert list(seen.rows) == ["a"]


def test_what_buildah_keeps_does_not_run(tmp_path: Path) -> None:
    entry = {"Id": "c" * 64, "Image": f"{APP}:1", "ImageID": A[7:], "Names": ["b"], "PodName": ""}
    assert not see(tmp_path, [{**entry, "IsInfra": False, "State": "storage"}]).rows


@pytest.mark.parametrize(("status", "names"), [("running", ["web"]), ("stopped", [])])
def test_nerdctls_native_form_has_the_state_of_the_process(
    tmp_path: Path, status: str, names: list[str]
) -> None:
    container = {
        "ID": "c" * 64, "Labels": {"nerdctl/name": "web"}, "Image": f"{APP}:1", "SnapshotKey": "c",
        "Snapshotter": "overlayfs", "Process": {"Pid": 1, "Status": {"Status": status}},
    }  # fmt: skip
    seen = see(tmp_path, [container])
    assert list(seen.rows) == names
    assert not any("whether it runs" in remark for row in seen.rows.values() for remark in row.remarks)


def test_an_image_that_crictl_inspects_is_no_container(tmp_path: Path) -> None:
    image = {"status": {"id": B, "repoTags": [f"{APP}:1"], "repoDigests": [PAIR], "size": "1"}, "info": {}}
    alone = see(tmp_path, image)
    assert not alone.rows
    assert len(alone.problems) == 1
    container = {
        "id": "c" * 64, "podSandboxId": "p", "metadata": {"name": "web"}, "image": {"image": B},
        "imageRef": B, "state": "CONTAINER_RUNNING",
    }  # fmt: skip
    seen = see(tmp_path, lines({"containers": [container]}, image))
    assert seen.digests("web") == [A, B]


# -- states -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "shown", "waits"),
    [
        ("destroyed", False, False), ("replaced", False, False), ("launch_failed", False, False),
        ("migrated", False, False), ("destroying", True, False), ("suspending", True, False),
    ],
)  # fmt: skip
def test_machines_of_fly_that_are_gone(tmp_path: Path, state: str, shown: bool, waits: bool) -> None:
    reference = {"registry": "reg.example", "repository": "app", "tag": "1", "digest": A}
    machine = {"id": "1", "name": "m", "state": state, "instance_id": "i", "image_ref": reference}
    seen = see(tmp_path, [{**machine, "config": {"image": f"{APP}:1"}}])
    assert bool(seen.rows) is shown
    assert all(bool(row.waiting) is waits for row in seen.rows.values())


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Terminating", "runs"), ("Init:0/2", "waits"), ("Init:CrashLoopBackOff", "waits"),
        ("CreateContainerConfigError", "waits"), ("SchedulingGated", "waits"), ("ExitCode:137", "ended"),
        ("Signal:9", "ended"), ("ContainerCannotRun", "ended"), ("not_running", "ended"),
        ("offline", "ended"), ("down", "ended"), ("Halted", "ended"), ("Powered Off", "ended"),
        ("Online", "runs"), ("Frozen", "runs"),
    ],
)  # fmt: skip
def test_words_for_states_in_an_inventory(tmp_path: Path, word: str, state: str) -> None:
    seen = see(tmp_path, f"name,image,status,image_id\nweb,{APP}:1,{word},{A}\n")
    assert [bool(row.waiting) for row in seen.rows.values()] == {
        "runs": [False], "waits": [True], "ended": []
    }[state]  # fmt: skip
    assert not any("not clear" in remark for row in seen.rows.values() for remark in row.remarks)


def test_a_column_that_says_whether_it_runs(tmp_path: Path) -> None:
    seen = see(tmp_path, f"name,image,is_running\nweb,{APP}:1,true\nold,{APP}:1,false\n")
    assert list(seen.rows) == ["web"]


# -- names in parts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registry", "repository", "reference"),
    [
        ("reg.example", "app", "reg.example/app:1"),
        ("https://reg.example:5000/", "team/app", "reg.example:5000/team/app:1"),
        ("reg.example", "reg.example/app", "reg.example/app:1"),
        ("localhost:5000", "app", "localhost:5000/app:1"),
        ("reg.example", "other.example/app", "other.example/app:1"),
        ("Docker Hub", "library/app", "library/app:1"),
        ("", "app", "app:1"),
    ],
)
def test_a_registry_in_a_column_of_its_own(
    tmp_path: Path, registry: str, repository: str, reference: str
) -> None:
    seen = see(tmp_path, f"name,registry,repository,tag,digest\nweb,{registry},{repository},1,{A}\n")
    assert seen.rows["web"].image.reference == reference
    assert [str(claim.repository) for claim in seen.rows["web"].image.claims]


def test_attributes_of_open_telemetry(tmp_path: Path) -> None:
    entry = {
        "container.name": "web", "container.image.name": APP, "container.image.tags": ["1", "latest"],
        "container.image.repo_digests": [PAIR], "k8s.pod.name": "pod", "k8s.namespace.name": "shop",
        "k8s.node.name": "n1",
    }  # fmt: skip
    seen = see(tmp_path, [entry])
    row = seen.rows["pod/web"]
    assert (row.host, row.namespace, row.image.reference) == ("n1", "shop", f"{APP}:1")
    assert seen.digests("pod/web") == [A]


def test_a_table_in_markdown(tmp_path: Path) -> None:
    seen = see(tmp_path, f"| name | image |\n|------|:-----:|\n| web | docker://{APP}:1@{A} |\n")
    assert list(seen.rows) == ["web"]
    assert seen.rows["web"].image.reference == f"{APP}:1@{A}"
    assert seen.digests("web") == [A]
    assert not seen.problems


@pytest.mark.parametrize("word", ["docker://", "oci://", "docker-image://", "https://", " "])
def test_a_word_before_a_name_says_how_it_is_fetched(tmp_path: Path, word: str) -> None:
    seen = see(tmp_path, [{"name": "web", "image": f"{word}{APP}:1@{A}"}])
    assert seen.rows["web"].image.reference == f"{APP}:1@{A}"
    assert seen.digests("web") == [A]


@pytest.mark.parametrize(
    "event",
    [
        {"ID": "4c01", "Image": f"{APP}@{A}", "Name": "w", "Status": "died", "Time": "2026-01-01T00:00:00Z",
         "Type": "container", "Attributes": {"a": "b"}},
        {"Name": "v", "Status": "create", "Time": "2026-01-01T00:00:00Z", "Type": "volume",
         "Attributes": None},
        {"ID": "4c01", "Image": f"{APP}@{A}", "Name": "w", "Status": "start", "Type": "container", "time": 1,
         "timeNano": 1},
    ],
)  # fmt: skip
def test_podmans_events_are_no_containers(tmp_path: Path, event: dict[str, Any]) -> None:
    seen = see(tmp_path, [event])
    assert not seen.rows
    assert any("events of an engine" in problem.message for problem in seen.problems)


# -- clouds -------------------------------------------------------------------------------------


def revision(name: str, state: str, reason: str) -> dict[str, Any]:
    return {
        "name": f"projects/p/locations/europe-west1/services/web/revisions/{name}",
        "containers": [{"name": "c", "image": PAIR}],
        "conditions": [
            {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
            {"type": "Active", "state": state, "revisionReason": reason},
        ],
    }


def test_cloud_runs_second_api(tmp_path: Path) -> None:
    job = {
        "name": "projects/p/locations/l/jobs/j",
        "template": {"template": {"containers": [{"name": "c", "image": f"{APP}:2"}]}},
    }
    seen = see(
        tmp_path,
        [
            revision("web-1", "CONDITION_FAILED", "RETIRED"),
            revision("web-2", "CONDITION_SUCCEEDED", ""),
            job,
        ],
    )
    assert list(seen.rows) == ["web-2/c", "j/c"]
    assert (seen.rows["web-2/c"].host, seen.digests("web-2/c")) == ("europe-west1", [A])
    assert not seen.rows["j/c"].runs


def test_executions_of_jobs_of_container_apps(tmp_path: Path) -> None:
    def execution(name: str, status: str) -> dict[str, Any]:
        template = {"containers": [{"image": PAIR, "name": "c"}]}
        properties = {"status": status, "template": template}
        return {"name": name, "type": "Microsoft.App/jobs/executions", "properties": properties}

    seen = see(tmp_path, [execution("a", "Running"), execution("b", "Succeeded")])
    assert list(seen.rows) == ["a/c"]
    assert seen.digests("a/c") == [A]


# -- refused ------------------------------------------------------------------------------------


def test_a_store_of_artifacts_shows_nothing_that_runs(tmp_path: Path) -> None:
    seen = see(tmp_path, [{"Repository": APP, "Tag": "1", "Digest": A, "Size": 3}])
    assert not seen.rows
    assert "describes an image" in seen.problems[0].message


@pytest.mark.parametrize("start", ["# the shop\n\n[Unit]\n", "; the shop\n[Container]\n", "[Build]\n"])
def test_units_may_begin_with_comments(tmp_path: Path, start: str) -> None:
    seen = see(tmp_path, f"{start}Image={APP}:1\n")
    assert not seen.rows
    assert "unit of systemd" in seen.problems[0].message


def test_comments_of_yaml_are_no_unit(tmp_path: Path) -> None:
    seen = see(tmp_path, f"# the shop\n- name: web\n  image: {APP}:1\n")
    assert list(seen.rows) == ["web"]


def test_utf_16_without_a_mark_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(f"name,image\nweb,{APP}:1\n".encode("utf-16-be"))
    seen = see(tmp_path, path.read_bytes().decode("latin-1"))
    assert not seen.rows
    assert "bytes that are 0" in seen.problems[0].message
