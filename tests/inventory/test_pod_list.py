"""kubectl's list of pods: read in pieces, it says what it says when it is read whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from digestry.inventory.formats import pod_list
from digestry.inventory.formats.json_documents import Input
from digestry.inventory.formats.pod_fields import decode_pod
from digestry.inventory.formats.pods import observe_pods
from digestry.inventory.observation import ContainerObservation, Note, Observation, Unseen
from digestry.inventory.sources import file
from digestry.inventory.sources.file import FileSource
from tests.inventory.fakes import START
from tests.inventory.kube import constructed
from tests.inventory.test_pods import JSON

Change = Callable[[str], str]


def entries(kind: str) -> list[dict[str, Any]]:
    return [{"apiVersion": "v1", "kind": kind} | one for one in constructed(f"{kind.lower()}s")["items"]]


def printed(*items: Any) -> str:
    """As kubectl does it."""
    listed = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}
    return json.dumps(listed, indent=4) + "\n"


def observe(path: Path, **options: Any) -> list[Observation]:
    seen = FileSource("f", str(path), **options).observe()
    return [
        replace(one, seen_at=START) if isinstance(one, ContainerObservation) else one
        for one in seen
        if not _form(one)
    ]


def _form(one: Observation) -> bool:
    """Whether it says what the file was read as: in pieces that is another word."""
    return isinstance(one, Note) and one.message.startswith("read as")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Observation]]:
    """What is seen if nothing is read in pieces."""

    def read(path: Path, **options: Any) -> list[Observation]:
        with monkeypatch.context() as patch:
            patch.setattr(file, "read_pod_list", lambda *_, **__: None)
            return observe(path, **options)

    return read


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a file was read whole."""
    found: list[int] = []
    rest = Input.rest

    def counted(self: Input, begun: bytes = b"") -> bytes:
        found.append(self.number)
        return rest(self, begun)

    monkeypatch.setattr(Input, "rest", counted)
    return found


@pytest.mark.parametrize("size", [7, 100, 1 << 22])
@pytest.mark.parametrize("stopped", [False, True])
def test_in_pieces_and_whole(
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    whole: Callable[..., list[Observation]],
    rests: list[int],
    size: int,
    stopped: bool,
) -> None:
    monkeypatch.setattr(pod_list, "_PIECE", size)
    odd = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd"}, "spec": {"nodeName": 5},
           "status": {"phase": "Running", "containerStatuses": [{}, 3, {"name": "a"}]}}  # fmt: skip
    path = tmp_path / "pods.json"
    for items in ([*entries("Pod"), *entries("Node"), odd], entries("Pod")[:1]):
        path.write_text(printed(*items))
        seen = observe(path, include_stopped=stopped)
        assert not rests
        assert seen == whole(path, include_stopped=stopped)
        assert any(isinstance(one, ContainerObservation) for one in seen)
        rests.clear()


POD = entries("Pod")[0]
MISLEADING = "[\n        {\n        },\n        {\n        }]"
NAMELESS = {"apiVersion": "v1", "kind": "Pod", "metadata": {}}


@pytest.mark.parametrize(
    "text",
    [
        printed(POD, NAMELESS, POD),
        printed(POD, 3, None),
        printed(POD, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {}}),
        printed(POD, POD | {"containers": []}),
        printed(POD, POD | {"kind": None}),
        printed(POD | {"status": {"phase": "Succeeded"}}),
        printed(),
        printed(POD) + printed(POD),
        printed(POD)[:-40],
        printed(POD, POD)[: len(printed(POD))],
        printed(POD).replace("    ],\n", '    ],\n    "items": [],\n'),
        printed(POD).replace("    ],\n", '    ],\n    "containers": [{"name": "x"}],\n'),
        printed(POD).replace('"List"', '"PodList"'),
        printed(POD).replace("    ],\n", "    ]\n"),
        printed(POD).replace("\n    ],\n", "\n        ]\n"),
        printed(POD, POD).replace("        },\n        {\n", "        }\n        {\n"),
        printed(POD).replace('"phase": "Running"', '"phase": "\\q"'),
        "{\n",
        '{\n    "apiVersion": "v1",\n    "items": [\n',
        # At the indent of the entries, something that is none: a guess that is wrong.
        printed(POD).replace('"status": {\n', f'"status": {{\n"x": {MISLEADING},\n'),
        "\ufeff" + printed(POD, 3),
        "\n\n" + printed(POD, 3),
    ],
)  # fmt: skip
def test_what_is_no_such_list_is_read_as_any_other_file(
    tmp_path: Path, whole: Callable[..., list[Observation]], rests: list[int], text: str
) -> None:
    path = tmp_path / "pods.json"
    path.write_text(text)
    seen = observe(path)
    assert len(rests) == 1
    assert seen == whole(path)


def test_bytes_that_are_no_text(tmp_path: Path, whole: Callable[..., list[Observation]]) -> None:
    path = tmp_path / "pods.json"
    name = json.dumps(POD["metadata"]["name"]).encode()
    path.write_bytes(printed(POD, POD).encode().replace(name, b'"\xff"', 1))
    seen = observe(path)
    assert seen == whole(path)
    assert {type(one) for one in seen} == {ContainerObservation, Unseen, Note}


def test_an_entry_that_does_not_end_is_not_searched_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rests: list[int]
) -> None:
    monkeypatch.setattr(pod_list, "_PIECE", 100)
    monkeypatch.setattr(pod_list, "_LONGEST", 200)
    path = tmp_path / "pods.json"
    path.write_text(printed(*entries("Pod")))
    assert observe(path)
    assert len(rests) == 1


def test_the_limit_of_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "pods.json"
    path.write_text(printed(*entries("Pod")))
    source = FileSource("f", str(path), largest=5000)
    source._open = lambda: path.open("rb")  # type: ignore[method-assign]
    (problem,) = source.observe()
    assert isinstance(problem, Unseen)
    assert "longer than 5000 bytes" in problem.message


# How long a draw takes is the machine's load: what is drawn is small.
@given(st.data())
def test_what_is_not_decoded_tells_nothing(data: st.DataObject) -> None:
    pod = data.draw(st.sampled_from(entries("Pod")))
    here: Any = pod
    for _ in range(data.draw(st.integers(0, 7))):
        keys = sorted(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            here[key] = data.draw(JSON | st.just({}) | st.just([]))
            break
        here = here[key]
    raw = json.dumps(pod).replace("Infinity", "0").replace("NaN", "0")
    read, decoded = (
        [
            replace(one, seen_at=START) if isinstance(one, ContainerObservation) else one
            for one in observe_pods([one], source="k", include_stopped=True)
        ]
        for one in (decode_pod(raw.encode()), json.loads(raw))
    )
    assert read == decoded
