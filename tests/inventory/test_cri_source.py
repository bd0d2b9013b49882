"""Runtimes by their CRI."""

from __future__ import annotations

import pytest

from digestry.inventory.engines.protobuf import (
    encode_integer as integer,
)
from digestry.inventory.engines.protobuf import (
    encode_nested as nested,
)
from digestry.inventory.engines.protobuf import (
    encode_string as string,
)
from digestry.inventory.observation import ContainerObservation, Observation, Unseen
from digestry.inventory.source_selection import parse_source
from tests.inventory.grpc_server import Answer, Answers, Status, recorded, serving

BAD = "sha256:af145881fec72bb4f60913fa4a744e65c2d27c4539589684513ab76a2eb75a98"
GOOD = "sha256:984c46e61e5a69c32fdd12655dc2edc3767710fe682e0d719252cfb302d1812d"
RECORDING = "cri-containerd-1.6"


def observed(answers: Answers, *, stopped: bool = False) -> list[Observation]:
    with serving(answers) as path:
        return list(parse_source(f"cri:unix://{path}", include_stopped=stopped).observe())


def by_name(seen: list[Observation]) -> dict[str, ContainerObservation]:
    return {one.name: one for one in seen if isinstance(one, ContainerObservation)}


def problems(seen: list[Observation]) -> list[str]:
    return [f"{one.message} {one.hint}" for one in seen if isinstance(one, Unseen)]


def test_containerd() -> None:
    found = observed(recorded(RECORDING))
    assert not problems(found)
    seen = by_name(found)
    assert set(seen) == {"web-1/old", "web-1/new", "web-1/multi"}
    old, new, multi = seen["web-1/old"], seen["web-1/new"], seen["web-1/multi"]
    assert {one.namespace for one in seen.values()} == {"shop"}
    assert str(old.image.claims[0].digest) == BAD
    assert str(new.image.claims[0].digest) == GOOD
    assert old.image.reference == new.image.reference
    assert old.image.claims[-1].kind == "config"  # containerd's image ID is a config's
    assert old.image.image_id == old.image.claims[-1].digest
    assert str(old.image.platform) == "linux/amd64"
    assert [claim.found_by for claim in multi.image.claims] == ["image-id"]  # its image was removed
    assert "the runtime no longer has the image that this container runs" in multi.remarks


IDENTITY = "sha256:" + "1" * 64
PAIR = f"reg.example/app@sha256:{'2' * 64}"


def cri(
    *,
    runtime: str = "cri-o",
    version: str = "v1",
    state: int = 1,
    listed_ref: str = IDENTITY,
    ref: str = PAIR,
    image_id: str = "",
    pairs: tuple[str, ...] = (),
    typed: str = "reg.example/app:1",
    shown: str = "",
) -> Answers:
    """A runtime with one container."""
    labels = b"".join(
        nested(number, string(1, key) + string(2, value))
        for number, key, value in (
            (8, "io.kubernetes.pod.name", "p"),
            (8, "io.kubernetes.pod.namespace", "n"),
        )
    )
    listed = string(1, "c1") + nested(3, string(1, "web")) + nested(4, string(1, shown or typed))
    listed += string(5, listed_ref) + integer(6, state) + labels
    status = string(1, "c1") + nested(2, string(1, "web")) + integer(3, state)
    status += nested(8, string(1, shown or typed) + string(18, typed)) + string(9, ref) + string(17, image_id)
    image = string(1, IDENTITY) + b"".join(string(3, pair) for pair in pairs)

    def answer(namespace: str, method: str, message: bytes) -> Answer:
        service, _, name = method.rpartition("/")
        if f".{version}." not in service:
            return Status(12, f"unknown service {service[1:]}")
        return {
            "Version": [string(2, runtime)],
            "ListContainers": [nested(1, listed)],
            "ContainerStatus": [nested(1, status)],
            "ImageStatus": [nested(1, image)],
        }[name]

    return answer


def test_cri_o_gives_pairs_that_need_never_have_been() -> None:
    other = f"mirror.example/app@sha256:{'3' * 64}"
    (seen,) = by_name(observed(cri(pairs=(other,)))).values()
    assert seen.name == "p/web"
    assert [(str(one.digest)[7:9], one.kind, one.obtained) for one in seen.image.claims] == [
        ("22", "unknown", False),
        ("33", "unknown", False),
        ("11", "unknown", False),
    ]


def test_a_bare_id_has_no_kind_unless_it_is_containerd_s() -> None:
    for runtime, kind in (("cri-o", "unknown"), ("containerd", "config"), ("other", "unknown")):
        (seen,) = by_name(observed(cri(runtime=runtime, ref=IDENTITY))).values()
        assert [(str(one.digest), one.kind) for one in seen.image.claims] == [(IDENTITY, kind)]


def test_a_name_that_the_runtime_chose_is_no_tag_to_judge() -> None:
    (seen,) = by_name(observed(cri(typed="", shown="reg.example/app:other"))).values()
    assert seen.image.reference is None
    assert any(
        "reg.example/app:other is one name that the runtime knows it by" in one for one in seen.remarks
    )
    assert str(seen.image.claims[0].repository) == "reg.example/app"


def test_an_older_runtime_speaks_v1alpha2() -> None:
    (seen,) = by_name(observed(cri(version="v1alpha2"))).values()
    assert seen.image.reference == "reg.example/app:1"


def test_what_serves_no_cri_is_a_problem() -> None:
    (said,) = problems(observed(lambda *_: Status(12, "unknown service runtime.v1.RuntimeService")))
    assert "does not serve the CRI" in said
    assert "--source containerd" in said


@pytest.mark.parametrize(
    ("state", "shown", "with_all"), [(0, 0, 1), (1, 1, 1), (2, 0, 1), (3, 1, 1), (9, 1, 1)]
)
def test_states(state: int, shown: int, with_all: int) -> None:
    assert len(observed(cri(state=state))) == shown
    assert len(observed(cri(state=state), stopped=True)) == with_all


@pytest.mark.parametrize("lost", ["Version", "ListContainers", "ContainerStatus", "ImageStatus"])
def test_what_fails_is_told(lost: str) -> None:
    answers = cri()
    for instead in (Status(2, "broken"), Status(7, "denied"), Status(14, "away"), [b"\xff"], []):

        def one(namespace: str, method: str, message: bytes, instead: Answer = instead) -> Answer:
            return instead if method.endswith(lost) else answers(namespace, method, message)

        seen = observed(one)
        assert len(seen) == 1
        if lost in {"Version", "ListContainers"}:
            assert problems(seen)
        else:
            (sighting,) = by_name(seen).values()
            assert any("does not show" in remark for remark in sighting.remarks)


def test_a_container_that_is_listed_and_not_there_has_a_row() -> None:
    """One that has really ended is not listed any more when it is looked for again."""
    answers = cri()
    for lists, rows in ((2, 1), (1, 0)):
        left = lists

        def answer(namespace: str, method: str, message: bytes) -> Answer:
            nonlocal left
            if method.endswith("/ContainerStatus"):
                return Status(5, "not found")
            if method.endswith("/ListContainers"):
                left -= 1
                return answers(namespace, method, message) if left >= 0 else [b""]
            return answers(namespace, method, message)

        seen = list(by_name(observed(answer)).values())
        assert len(seen) == rows
        assert all("says that it is not there" in one.remarks[0] for one in seen)


def test_another_container_in_its_place_is_not_believed() -> None:
    answers = cri()

    def answer(namespace: str, method: str, message: bytes) -> Answer:
        if method.endswith("/ContainerStatus"):
            other = f"reg.example/app@sha256:{'9' * 64}"
            return [nested(1, string(1, "another") + integer(3, 1) + string(9, other))]
        return answers(namespace, method, message)

    (seen,) = by_name(observed(answer)).values()
    assert "another container" in seen.remarks[0]
    assert not any(claim.digest.encoded.startswith("9") for claim in seen.image.claims)


def test_hostile_fields() -> None:
    for hostile in ("", "\0", "sha256:" + "g" * 64, "@", "a@b@c", "x" * 100_000, "\ud7ff@sha256:1"):
        seen = observed(
            cri(ref=hostile, listed_ref=hostile, image_id=hostile, typed=hostile, pairs=(hostile,))
        )
        assert len(by_name(seen)) == 1
