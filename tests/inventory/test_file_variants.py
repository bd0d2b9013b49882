"""Less usual forms of the documents that programs write: old versions, odd states, names in parts.

The documents were constructed by the programs' references.
"""

from __future__ import annotations

import json
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


# -- what is around a list ----------------------------------------------------------------------

ROW = {"name": "c", "reference": f"{APP}:1", "digest": A}


@pytest.mark.parametrize(
    "message",
    [
        "Warning: policy/v1beta1 is deprecated",
        "WARNING: Error loading config file: /root/.docker/config.json: permission denied",
        "WARN[0000] the attribute `version` is obsolete",
        'time="2026-11-01T00:00:00Z" level=warning msg="cgroup v1"',
        "W1128 12:00:00.000000   1 warnings.go:70] v1 is deprecated",
        "Emulate Docker CLI using podman. Create nodocker to quiet msg.",
        "error: You must be logged in",
        "Error from server (Forbidden): pods is forbidden",
        "Flag --export has been deprecated",
    ],
)
@pytest.mark.parametrize("listed", ["json", "lines", "csv"])
def test_messages_before_a_list_are_named_and_the_list_is_read(
    tmp_path: Path, message: str, listed: str
) -> None:
    text = {
        "json": json.dumps([ROW], indent=2),
        "lines": lines(ROW),
        "csv": f"name,reference,digest\nc,{APP}:1,{A}\n",
    }[listed]
    seen = see(tmp_path, f"{message}\n\n{message}\n{text}")
    assert seen.digests("c") == [A]
    assert ["line 1: " in one.message or "line 3: " in one.message for one in seen.problems] == [True, True]
    assert message[:20] in seen.problems[0].message


def test_only_messages_are_no_list(tmp_path: Path) -> None:
    seen = see(tmp_path, "Error response from daemon: No such container: web\n")
    assert not seen.rows
    assert "No such container" in seen.problems[0].message


def test_headings_that_begin_like_messages_are_headings(tmp_path: Path) -> None:
    seen = see(tmp_path, f"error,name,reference,digest\n,c,{APP}:1,{A}\n")
    assert seen.digests("c") == [A]
    assert not seen.problems


def test_json_in_colours(tmp_path: Path) -> None:
    text = "".join(f"\x1b[1;39m{line}\x1b[0m\n" for line in json.dumps([ROW], indent=2).splitlines())
    seen = see(tmp_path, text)
    assert seen.digests("c") == [A]
    assert not seen.problems


def test_json_text_sequences(tmp_path: Path) -> None:
    seen = see(tmp_path, "".join(f"\x1e{lines({**ROW, 'name': name})}" for name in ("c", "d")))
    assert (seen.digests("c"), seen.digests("d")) == ([A], [A])
    assert not seen.problems


# -- Apple, AWS Batch, Cloud Run ----------------------------------------------------------------


def apple(name: str, status: str, **image: Any) -> dict[str, Any]:
    return {
        "status": status,
        "networks": [],
        "configuration": {
            "id": name, "image": image, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
        },
    }  # fmt: skip


def test_apples_containers(tmp_path: Path) -> None:
    descriptor = {
        "descriptor": {"digest": A, "size": 7, "mediaType": "application/vnd.oci.image.index.v1+json"}
    }
    document = [
        apple("web", "running", reference=f"{APP}:1", **descriptor),
        apple("old", "stopped", reference=f"{APP}:1", **descriptor),
        apple("none", "running"),
    ]
    seen = see(tmp_path, document)
    assert list(seen.rows) == ["web"]
    assert seen.digests("web") == [A]
    assert str(seen.rows["web"].image.platform) == "linux/arm64/v8"
    assert ["'none' names no image" in one.message for one in seen.problems] == [True]
    assert "old" in see(tmp_path, document, include_stopped=True).rows


@pytest.mark.parametrize("whole", [True, False])
def test_jobs_of_batch_have_names_alone(tmp_path: Path, whole: bool) -> None:
    def job(name: str, status: str, **more: Any) -> dict[str, Any]:
        return {"jobName": name, "jobId": f"id-{name}", "status": status, **more}

    container = {"container": {"image": f"{APP}:1", "vcpus": 1}}
    own = {"name": "c", "image": APP}
    jobs = [
        job("run", "RUNNING", **container),
        job("pinned", "RUNNING", container={"image": PAIR}),
        job("wait", "RUNNABLE", **container),
        job("done", "SUCCEEDED", **container),
        job("pod", "STARTING", eksProperties={"podProperties": {"containers": [own]}}),
        job("nodes", "RUNNING", nodeProperties={"numNodes": 2}),
    ]
    seen = see(tmp_path, {"jobs": jobs} if whole else lines(*jobs))
    assert sorted(seen.rows) == ["pinned", "pod/c", "run", "wait"]
    assert (seen.digests("run"), seen.digests("pinned")) == ([], [A])
    assert seen.rows["wait"].waiting == seen.rows["pod/c"].waiting == "starting"
    assert ["'nodes' names no image" in one.message for one in seen.problems] == [True]


def test_a_list_of_revisions_of_cloud_runs_second_api(tmp_path: Path) -> None:
    revision = {
        "name": "projects/p/locations/l/services/s/revisions/r-1", "service": "s",
        "containers": [{"image": PAIR}], "conditions": [{"type": "Active", "state": "CONDITION_SUCCEEDED"}],
    }  # fmt: skip
    seen = see(tmp_path, {"revisions": [revision]})
    assert [seen.digests(name) for name in seen.rows] == [[A]]
    page = see(tmp_path, {"revisions": [revision], "nextPageToken": "x"})
    assert "says that there is more" in page.problems[0].message


@pytest.mark.parametrize(
    ("image", "tag", "expected"),
    [
        (APP, "1.5", f"{APP}:1.5"),
        ("localhost:5000/app", "1.5", "localhost:5000/app:1.5"),
        (f"{APP}:2", "1.5", f"{APP}:2"),
        (PAIR, "1.5", PAIR),
        (APP, "<none>", APP),
        (APP, "", APP),
    ],
)
def test_a_tag_in_a_column_of_its_own(tmp_path: Path, image: str, tag: str, expected: str) -> None:
    for document in ([{"name": "c", "image": image, "tag": tag}], f"name,image,tag\nc,{image},{tag}\n"):
        assert see(tmp_path, document).rows["c"].image.reference == expected


@pytest.mark.parametrize("word", ["N/A", "unknown", "NULL", "none", "-", "<nil>"])
def test_words_for_a_digest_that_is_not_known(tmp_path: Path, word: str) -> None:
    row = {"name": "c", "image": f"{APP}:1", "digest": word}
    for document in ([row], [{**row, "extra": 1}], f"name,image,digest\nc,{APP}:1,{word}\n"):
        seen = see(tmp_path, document)
        assert not seen.problems
        assert seen.digests("c") == []
    assert "none of reference" in see(tmp_path, [{"name": "c", "digest": word}]).problems[0].message


@pytest.mark.parametrize("start", ["#TYPE System.Object\n", "# exported\n# today\n"])
def test_comments_before_headings_and_json(tmp_path: Path, start: str) -> None:
    assert see(tmp_path, f'{start}"name","image","digest"\n"c","{APP}:1","{A}"\n').digests("c") == [A]
    assert see(tmp_path, start + json.dumps([ROW], indent=1)).digests("c") == [A]
    assert "nothing in it" in see(tmp_path, start).problems[0].message
