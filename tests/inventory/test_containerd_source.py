"""containerd's own containers: what runs is known by its layers, and never by a name that moved."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.inventory.engines.protobuf import Message
from digestry.inventory.engines.protobuf import encode_nested as nested
from digestry.inventory.engines.protobuf import encode_string as string
from digestry.inventory.engines.runtime_endpoints import (
    containerd_socket,
    cri_socket,
    named_runtimes,
    present_runtimes,
)
from digestry.inventory.observation import ContainerObservation, Observation, Unseen
from digestry.inventory.source_selection import parse_source
from digestry.inventory.sources.containerd_images import chain_id
from digestry.model.digest import Digest
from tests.inventory.grpc_server import Answer, Answers, Status, listening, recorded, serving

BAD = "sha256:af145881fec72bb4f60913fa4a744e65c2d27c4539589684513ab76a2eb75a98"
GOOD = "sha256:984c46e61e5a69c32fdd12655dc2edc3767710fe682e0d719252cfb302d1812d"
LAB = "sha256:ac2478d8483ea25c8d7645c6c5d6564cb34f44ee8c16602eb9a68238c03c4405"
INDEX = "sha256:d763289a58de256ca9193d0410bb4dadb01fd9c7cf010c4f8911e8eb52c698ee"
THIRD = "sha256:908ba75eb7f1"
GOOD_CONFIG = "sha256:fc58839d2b63fafe251d8a019b73a4ff056decfbfc484abb0d8f86c0033f2c8c"
RECORDING = "containerd-1.6"


def observed(answers: Answers, options: str = "", *, stopped: bool = False) -> list[Observation]:
    with serving(answers) as path:
        return list(parse_source(f"containerd:unix://{path}{options}", include_stopped=stopped).observe())


@pytest.fixture(scope="module")
def play() -> dict[str, ContainerObservation]:
    seen = observed(recorded(RECORDING), "?namespace=play", stopped=True)
    assert not [one for one in seen if isinstance(one, Unseen)]
    return {one.name: one for one in seen if isinstance(one, ContainerObservation)}


def best(seen: ContainerObservation) -> tuple[str, str] | None:
    """The first claim's kind and digest."""
    return (seen.image.claims[0].kind, str(seen.image.claims[0].digest)) if seen.image.claims else None


def test_a_name_that_has_not_moved_since(play: dict[str, ContainerObservation]) -> None:
    new = play["new"]
    assert best(new) == ("manifest", GOOD)
    assert [str(claim.digest) for claim in new.image.claims if claim.kind == "config"] == [GOOD_CONFIG]
    assert new.image.claims[0].obtained  # containerd noted the repository that it came from
    assert str(new.image.platform_manifest) == GOOD
    assert str(new.image.platform) == "linux/amd64"
    assert not new.remarks


@pytest.mark.parametrize("name", ["old", "args"])
def test_a_name_that_moved_to_other_layers_is_not_believed(
    play: dict[str, ContainerObservation], name: str
) -> None:
    # The old image is here again, by its digest, but came back after these had been made.
    assert play[name].image.claims == ()
    assert "its layers are not those that run" in play[name].remarks[0]


def test_a_name_that_moved_to_the_same_layers_is_not_believed(play: dict[str, ContainerObservation]) -> None:
    assert play["lab-old"].image.claims == ()
    assert "may have been another image with the same layers" in play["lab-old"].remarks[0]
    # The other, though its name was set again since, too, is just as its config has it.
    assert best(play["lab-new"]) == ("manifest", LAB)
    assert "found by the layers" in play["lab-new"].remarks[0]


def test_a_name_that_was_pulled_again(play: dict[str, ContainerObservation]) -> None:
    found = best(play["repull"])
    assert found is not None
    assert found[1].startswith(THIRD)
    assert play["repull2"].image.claims == ()  # with a label of its own, it cannot be told from another's


def test_the_others(play: dict[str, ContainerObservation]) -> None:
    assert best(play["pinned"]) == ("manifest", BAD)
    assert best(play["multi"]) == ("index", INDEX)
    assert play["gone"].image.claims == ()
    assert "no longer has an image" in play["gone"].remarks[0]
    retag = play["retag"]
    assert retag.image.reference == "reg.example/other:9"
    assert [(str(one.repository), one.obtained) for one in retag.image.claims if one.repository] == [
        ("reg.example/other", False),
        ("127.0.0.1:5777/t1795761170/app", True),
    ]


def test_what_ended_is_left_out(play: dict[str, ContainerObservation]) -> None:
    def answers(namespace: str, method: str, message: bytes) -> Answer:
        return Status(5, "no such task") if method.endswith("Tasks/Get") else real(namespace, method, message)

    real = recorded(RECORDING)
    seen = observed(answers, "?namespace=play")
    assert {one.name for one in seen if isinstance(one, ContainerObservation)} == set(play) - {"stopped"}


def test_what_the_kubelet_started() -> None:
    seen = {
        one.name: one
        for one in observed(recorded(RECORDING), "?namespace=k8s.io")
        if isinstance(one, ContainerObservation)
    }
    assert set(seen) == {"web-1/old", "web-1/new", "web-1/multi", "web-1/(sandbox)"}
    assert {one.namespace for one in seen.values()} == {"shop"}
    assert best(seen["web-1/old"]) == ("manifest", BAD)  # its record has the config, whatever the name is now
    assert best(seen["web-1/new"]) == ("manifest", GOOD)
    multi = seen["web-1/multi"]
    assert [claim.kind for claim in multi.image.claims] == ["config"]
    assert multi.image.image_id == multi.image.claims[0].digest
    assert "pause container" in seen["web-1/(sandbox)"].remarks[0]


# -- what cannot be seen ------------------------------------------------------------------------


def problems(seen: list[Observation]) -> list[str]:
    return [f"{one.message} {one.hint}" for one in seen if isinstance(one, Unseen)]


def test_nothing_is_silently_no_container(tmp_path: Path) -> None:
    (said,) = problems(list(parse_source(f"containerd:{tmp_path}/none.sock").observe()))
    assert "no such socket" in said

    def docker(link: socket.socket) -> None:
        link.recv(1 << 16)
        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(docker) as path:
        (said,) = problems(list(parse_source(f"containerd:{path}").observe()))
    assert "does not speak gRPC" in said
    for refused in (Status(12, "unknown service"), Status(7, "permission denied"), Status(2, "broken")):
        seen = observed(lambda *_, refused=refused: refused)
        assert len(problems(seen)) == len(seen) == 1
    seen = observed(recorded(RECORDING, ListStream=Status(2, "broken")), "?namespace=play,k8s.io")
    assert len(problems(seen)) == len(seen) == 2
    seen = observed(recorded(RECORDING), "?namespace=nosuch")
    assert "no namespace 'nosuch'" in problems(seen)[0]
    assert "'play'" in problems(seen)[0]


def test_containers_are_listed_though_their_tasks_or_images_cannot_be() -> None:
    answers = recorded(RECORDING)

    def without(lost: str, answer: Answer) -> Answers:
        def one(namespace: str, method: str, message: bytes) -> Answer:
            return answer if method.endswith(lost) else answers(namespace, method, message)

        return one

    seen = observed(without("Tasks/List", Status(2, "broken")), "?namespace=play")
    assert "which containers run is not known" in problems(seen)[0]
    listed = [one for one in seen if isinstance(one, ContainerObservation)]
    assert len(listed) == 12
    assert all("containerd does not know whether it runs" in one.remarks for one in listed)
    for lost in ("Images/List", "Snapshots/Stat", "Content/Read", "Content/Info"):
        for answer in (Status(2, "broken"), Status(5, "gone"), [b"\xff\xff"], [b""]):
            seen = observed(without(lost, answer), "?namespace=play", stopped=True)
            listed = [one for one in seen if isinstance(one, ContainerObservation)]
            assert len(listed) == 12, lost
            assert all(one.remarks for one in listed if not one.image.claims)


def test_docker_s_own_namespace_is_not_passed_over_in_silence() -> None:
    answers = recorded(RECORDING)

    def docker_s(namespace: str, method: str, message: bytes) -> Answer:
        if method.endswith("Namespaces/List"):
            return [nested(1, string(1, "moby"))]
        return answers("play", method, message)

    seen = observed(docker_s)
    assert "containers of docker's are not looked into here" in problems(seen)[0]
    assert len(seen) == 1
    assert observed(docker_s, "?without=moby") == []
    assert len(observed(docker_s, "?namespace=moby")) > 9


def changed(change: Callable[[dict[int, bytes]], dict[int, bytes]]) -> Answers:
    """The recording, with the container ``new`` changed: its fields that are counted bytes, by number."""
    answers = recorded(RECORDING)

    def one(namespace: str, method: str, message: bytes) -> Answer:
        answer = answers(namespace, method, message)
        if method.endswith("Content/List") and isinstance(answer, Status):
            return []
        if not method.endswith("ListStream") or not isinstance(answer, list):
            return answer
        kept = [raw for raw in answer if Message(raw).message(1).text(1) == "new"]
        return [nested(1, _rewritten(Message(raw).message(1), change)) for raw in kept]

    return one


def _rewritten(message: Message, change: Callable[[dict[int, bytes]], dict[int, bytes]]) -> bytes:
    numbers = (1, 3, 5, 6, 7, 8)
    fields = change({number: message.raw(number) for number in numbers})
    return b"".join(nested(number, value) for number, value in fields.items())


def test_a_name_that_was_set_after_the_container_was_made_proves_nothing() -> None:
    older = changed(lambda fields: fields | {8: b"\x08\x01"})  # made in 1970
    (seen,) = observed(older, "?namespace=play")
    assert isinstance(seen, ContainerObservation)
    assert seen.image.claims == ()
    assert "was set again" in seen.remarks[0]


def test_hostile_records() -> None:
    hostile: list[dict[int, bytes]] = [
        {1: b""},
        {3: b"\xff\xfe/\x00"},
        {3: b"sha256:" + b"a" * 64},
        {3: b"UPPER CASE@sha256:zz"},
        {5: b"\x12\x05{{{{{"},
        {5: b'\x12\xbd\x17{"x":' + b"[" * 3000},
        {9: b'\x0a\x24io.cri-containerd.container.metadata\x12\xc0\x17\x12\xbd\x17{"x":' + b"[" * 3000},
        {6: b"no\nsnapshotter", 7: b"\xff"},
        {7: b""},
        {8: b""},
    ]
    for change in hostile:
        seen = observed(changed(lambda fields, change=change: fields | change), "?namespace=play")  # type: ignore[misc]
        assert len(seen) == 1
        if isinstance(seen[0], ContainerObservation):  # by its layers, or not at all
            assert not seen[0].image.claims or str(seen[0].image.image_id) == GOOD_CONFIG
            assert seen[0].image.claims or seen[0].remarks


# -- places -------------------------------------------------------------------------------------


def test_chain_ids_are_those_of_the_specification() -> None:
    one, two = (str(Digest.of(text)) for text in (b"1", b"2"))
    assert chain_id([]) == ""
    assert chain_id([one]) == one
    assert chain_id([one, two]) == str(Digest.of(f"{one} {two}".encode()))
    assert chain_id([one, two, one]) == str(Digest.of(f"{chain_id([one, two])} {one}".encode()))


def test_where_containerd_is() -> None:
    assert containerd_socket("", {}) == ("/run/containerd/containerd.sock", {})
    assert containerd_socket("", {"CONTAINERD_ADDRESS": "/a.sock"})[0] == "/a.sock"
    assert containerd_socket("unix:///b.sock?namespace=x,y", {}) == ("/b.sock", {"namespace": ("x", "y")})
    assert containerd_socket("?without=moby", {})[1] == {"without": ("moby",)}


@pytest.mark.parametrize(
    "where", ["tcp://h:1", "here.sock", "/a?b", "/a?ns=b", "/a?namespace=", "npipe:////./pipe/x", "/a\0b"]
)
def test_what_is_no_place(where: str) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_source(f"containerd:{where}")


@pytest.fixture
def crictl(tmp_path: Path) -> Path:
    path = tmp_path / "crictl.yaml"
    path.write_text("runtime-endpoint: unix:///run/x.sock\ntimeout: 2\n")
    return path


def test_where_a_cri_runtime_is(crictl: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert cri_socket("/c.sock", {}, none) == "/c.sock"
    assert cri_socket("", {"CONTAINER_RUNTIME_ENDPOINT": "unix:///d.sock"}, crictl) == "/d.sock"
    assert cri_socket("", {}, crictl) == "/run/x.sock"
    assert named_runtimes({}, none) == []
    assert [one.source for one in named_runtimes({"CONTAINERD_ADDRESS": "/a"}, crictl)] == [
        "containerd:/a",
        "cri:unix:///run/x.sock",
    ]
    named = {"CRI_CONFIG_FILE": str(crictl)}
    assert cri_socket("", named, none) == "/run/x.sock"
    assert named_runtimes(named, none)[0].by == str(crictl)
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        named_runtimes({"CRI_CONFIG_FILE": str(none)}, crictl)
    for text in ("timeout: 2", "runtime-endpoint:", ""):
        crictl.write_text(text)
        assert named_runtimes({}, crictl) == []
    for text in ("{", "\0", "- 1", "runtime-endpoint: [1]"):
        crictl.write_text(text)
        with pytest.raises(InvalidConfiguration, match=r"crictl\.yaml cannot be read"):
            named_runtimes({}, crictl)
    assert present_runtimes(tmp_path) == []
