"""Docker's engine, from what a real one (20.10) said, and from the shapes of newer ones."""

from __future__ import annotations

from typing import Any, BinaryIO

import pytest

from digestry.inventory.engines.client import Engine
from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.sources.docker import DockerSource
from digestry.model.digest import Digest
from tests.inventory.fakes import AMD64, engine, names, recording

V1 = "sha256:13631f64209924ea27d03b512f8d96903f8d2f4f38da74417053c772d8f61ba0"
V1_MANIFEST = "sha256:cd24662fda4e71e1389db3c8b8b3c54f1937ad8f330a19c3202704407c0a8a99"
V2_MANIFEST = "sha256:0f2eee5002db28e6fc85667046965c1e26ed02bbf8c3acba4dc18c781c17f0a5"
V2_INDEX = "sha256:e50c6ffc31caad20bae53ea548d19b477de956d422dbbf60cacd92bc7d4c9902"


def observe(answers: dict[str, Any], **options: Any) -> list[Any]:
    with engine(answers) as (url, _):
        return list(DockerSource("docker", Engine(url, timeout=5), **options).observe())


def claims(sighting: ContainerObservation) -> list[tuple[str | None, str]]:
    return [
        (None if one.repository is None else one.repository.name, str(one.digest))
        for one in sighting.image.claims
    ]


@pytest.fixture(scope="module")
def seen() -> dict[str, ContainerObservation]:
    return names(observe(recording("docker-20.10")))


def test_every_running_container_is_one_sighting(seen: dict[str, ContainerObservation]) -> None:
    assert sorted(seen) == [
        "by-id", "by-short-id", "from-mirror", "loaded", "local", "multi", "pinned", "web-bad", "web-good",
    ]  # fmt: skip
    assert {one.host for one in seen.values()} == {"vm"}
    assert {one.image.platform for one in seen.values()} == {AMD64}


def test_all_adds_those_that_do_not_run() -> None:
    assert "gone" in names(observe(recording("docker-20.10"), include_stopped=True))


def test_a_moved_name_is_read_from_the_container_not_from_the_list(
    seen: dict[str, ContainerObservation],
) -> None:
    listed = next(
        one for one in recording("docker-20.10")["/containers/json"]["body"] if one["Names"] == ["/web-bad"]
    )
    assert listed["Image"] == V1  # the engine shows a bare ID there
    assert seen["web-bad"].image.reference == "localhost:5610/golftrack:1.5"
    assert seen["web-bad"].namespace == "shop"
    assert str(seen["web-bad"].image.image_id) == V1


def test_each_repo_digest_keeps_its_repository(seen: dict[str, ContainerObservation]) -> None:
    assert claims(seen["from-mirror"]) == [
        ("localhost:5610/golftrack", V1_MANIFEST),
        ("localhost:5610/mirror/golf", V1_MANIFEST),
        (None, V1),
    ]
    assert [digest for _, digest in claims(seen["multi"])[:2]] == [V2_MANIFEST, V2_INDEX]
    assert all(one.obtained for one in seen["multi"].image.claims[:2])


def test_started_by_image_id_has_no_reference(seen: dict[str, ContainerObservation]) -> None:
    for name in ("by-id", "by-short-id"):
        assert seen[name].image.reference is None
        assert "started by image ID" in seen[name].remarks[0]
        assert seen[name].image.registry_named  # the repositories of its digests can be asked


def test_loaded_from_an_archive_has_only_its_image_id(seen: dict[str, ContainerObservation]) -> None:
    loaded = seen["loaded"]
    assert [(one.kind, one.found_by) for one in loaded.image.claims] == [("unknown", "image-id")]
    assert loaded.image.registry_named


def test_a_local_build_names_no_registry(seen: dict[str, ContainerObservation]) -> None:
    assert seen["local"].image.reference == "base:1"
    assert not seen["local"].image.registry_named


def test_a_pinned_container_keeps_its_digest(seen: dict[str, ContainerObservation]) -> None:
    first = seen["pinned"].image.claims[0]
    assert str(first.digest) == V2_MANIFEST
    assert first.read_from == "the container's name"


def changed(path_of: str, **changes: Any) -> dict[str, Any]:
    """The recording, with the answers about container ``path_of`` changed."""
    answers: dict[str, Any] = recording("docker-20.10")
    listed = answers["/containers/json"]["body"]
    entry = next(one for one in listed if one["Names"] == [f"/{path_of}"])
    listed[:] = [entry]
    path = f"/containers/{entry['Id']}/json"
    image = f"/images/{answers[path]['body']['Image']}/json"
    for key, value in changes.items():
        if key == "container":
            answers[path] = value
        elif key == "image":
            answers[image] = value
        elif key == "image_fields":
            answers[image]["body"] |= value
        elif key == "container_fields":
            answers[path]["body"] |= value
    return answers


def test_a_container_that_ended_meanwhile_is_dropped() -> None:
    answers = changed("web-good")
    listed = answers["/containers/json"]["body"]

    def ended(reply: BinaryIO) -> None:
        listed.clear()
        reply.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

    answers[f"/containers/{listed[0]['Id']}/json"] = ended
    assert observe(answers) == []


def test_a_list_that_cannot_be_read_again_is_a_problem() -> None:
    answers = changed("web-good")
    (entry,) = answers["/containers/json"]["body"]

    def ended(reply: BinaryIO) -> None:
        answers["/containers/json"] = {"status": 200, "body": {"not": "a list"}}
        reply.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\n{}")

    answers[f"/containers/{entry['Id']}/json"] = ended
    (problem,) = observe(answers)
    assert isinstance(problem, Unseen)
    assert "not a list" in problem.message


def test_a_container_that_is_still_listed_is_not_dropped() -> None:
    (one,) = observe(changed("web-good", container={"status": 404, "body": {"message": "No such"}}))
    assert one.name == "web-good"
    assert "says that it is not there" in one.remarks[0]
    assert one.image.image_id is not None  # the list had it


def test_a_container_that_the_engine_fails_to_show_keeps_its_row() -> None:
    (one,) = observe(changed("web-good", container={"status": 500, "body": {"message": "broken"}}))
    assert one.name == "web-good"
    assert "broken" in one.remarks[0]
    assert one.image.image_id is not None  # the list had it


def test_another_container_in_its_place_is_not_believed() -> None:
    other = "sha256:" + "e" * 64
    (one,) = observe(changed("web-good", container_fields={"Id": "f" * 64, "Image": other}))
    assert one.name == "web-good"
    assert "another container" in one.remarks[0]
    assert one.image.image_id is not None  # the list's own
    assert str(one.image.image_id) != other


def test_two_image_ids_are_none() -> None:
    (one,) = observe(changed("web-good", container_fields={"Image": "sha256:" + "e" * 64}))
    assert one.image.image_id is None
    assert one.image.claims == ()
    assert "lists this container with the image ID" in one.remarks[0]


def test_an_image_that_is_gone_keeps_the_row() -> None:
    (one,) = observe(changed("web-good", image={"status": 404, "body": {"message": "No such image"}}))
    assert [claim.found_by for claim in one.image.claims] == ["image-id"]
    assert "no longer has the image" in one.remarks[0]


def test_the_containerd_store_is_told_from_the_classic_one() -> None:
    # The shapes of API 1.48 (Engine 28 and later, containerd store); the digests are made up.
    index, child = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    answers = changed(
        "web-good",
        container_fields={"Image": index, "ImageManifestDescriptor": {"digest": child}},
    )
    answers["/containers/json"]["body"][0]["ImageID"] = index
    answers[f"/images/{index}/json"] = {
        "status": 200,
        "body": {
            "Id": index,
            "RepoDigests": [f"localhost:5610/golftrack@{index}"],
            "Descriptor": {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": index},
        },
    }
    (one,) = observe(answers)
    assert str(one.image.platform_manifest) == child
    assert [(claim.kind, claim.obtained) for claim in one.image.claims] == [
        ("index", False),
        ("index", False),
    ]


@pytest.mark.parametrize(
    ("machine", "image", "assumed"),
    [("x86_64", "amd64", False), ("x86_64", "arm64", True), (None, "amd64", True), ("x86_64", None, False)],
)
def test_the_platform_is_the_machines_or_is_assumed(
    machine: str | None, image: str | None, assumed: bool
) -> None:
    answers = changed("web-good", image_fields={"Architecture": image, "Os": image and "linux"})
    answers["/info"]["body"] |= {"Architecture": machine}
    (one,) = observe(answers)
    assert one.image.platform_assumed is assumed
    assert one.image.platform is not None
    assert one.image.platform.architecture == (image or "amd64")


def test_a_list_of_which_only_a_part_is_sent_is_no_list() -> None:
    answers = recording("docker-20.10")
    answers["/containers/json"]["status"] = 206
    (problem,) = observe(answers)
    assert "HTTP 206" in problem.message


def test_hostile_shapes_are_problems_or_remarks_never_crashes() -> None:
    answers = recording("docker-20.10")
    answers["/containers/json"]["body"] = [None, 7, {}, {"Id": "x", "Names": 3, "Labels": [], "ImageID": 5}]
    answers["/containers/x/json"] = {"status": 200, "body": ["what"]}
    found = observe(answers)
    assert [type(one) for one in found] == [Unseen, Unseen, Unseen, ContainerObservation]
    answers["/containers/json"]["body"] = {"not": "a list"}
    (problem,) = observe(answers)
    assert "not a list" in problem.message


@pytest.mark.parametrize(
    "entry",
    ["<none>@<none>", "<none>@" + V1, V1, "sha256:sha256@" + V1, 5, None, "UPPER@" + V1, "x@sha256:1"],
)
def test_odd_repo_digests_are_no_claims(entry: Any) -> None:
    (one,) = observe(changed("web-good", image_fields={"RepoDigests": [entry]}))
    assert [claim.found_by for claim in one.image.claims] == ["image-id"]


def test_hex_that_is_a_repositorys_name_is_no_image_id() -> None:
    answers = changed("web-good", image_fields={"RepoTags": ["d274:latest"]})
    for answer in answers.values():
        if isinstance(answer["body"], dict) and "Config" in answer["body"]:
            answer["body"]["Config"]["Image"] = "d274"
    (one,) = observe(answers)
    assert one.image.image_id == Digest.parse(
        "sha256:d274fa2799555b736821601a090ca3c9f38863b200f1b71f1a36ae227ed05e97"
    )
    assert one.image.reference == "d274"


def test_an_engine_that_refuses_is_one_problem() -> None:
    (problem,) = observe({"/containers/json": {"status": 403, "body": {"message": "no entry"}}})
    assert isinstance(problem, Unseen)
    assert "no entry" in problem.message


def test_localhost_of_another_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "is_remote", True)
    (one,) = observe(changed("web-good"))
    assert "localhost:5610 is a registry on vm itself" in one.remarks[0]


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("unix:///x", False),
        ("tcp://127.0.0.1:2375", False),
        ("tcp://[::1]:2375", False),
        ("tcp://n1:2375", True),
    ],
)
def test_which_engines_are_remote(url: str, remote: bool) -> None:
    assert Engine(url).is_remote == remote
