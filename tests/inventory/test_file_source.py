"""Inventories: JSON and CSV, good lines reported, bad ones named by their line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from digestry.inventory.observation import ContainerObservation, Unseen
from digestry.inventory.sources.file import FileSource
from tests.inventory.fakes import without_notes

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def observe(tmp_path: Path, content: str | bytes) -> list[Any]:
    path = tmp_path / "inventory"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return without_notes(FileSource(f"file:{path}", str(path)).observe())


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    row = {
        "host": "n1", "namespace": "shop", "name": "web", "id": "c1", "reference": "reg.example/app:1",
        "digest": DIGEST, "image_id": OTHER, "platform": "linux/arm64",
    }  # fmt: skip
    csv = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
    for content in (csv, json.dumps([row]), json.dumps({"v": 1, "containers": [row]})):
        (one,) = observe(tmp_path, content)
        assert isinstance(one, ContainerObservation)
        assert (one.host, one.namespace, one.name, one.id) == ("n1", "shop", "web", "c1")
        assert [str(claim.digest) for claim in one.image.claims] == [DIGEST, OTHER]
        assert [claim.found_by for claim in one.image.claims] == ["inventory", "image-id"]
        assert str(one.image.claims[0].repository) == "reg.example/app"
        assert str(one.image.platform) == "linux/arm64"


def test_image_stands_for_reference_and_a_reference_alone_is_enough(tmp_path: Path) -> None:
    (one,) = observe(tmp_path, f"image\nreg.example/app:1@{DIGEST}\n")
    assert one.image.reference == f"reg.example/app:1@{DIGEST}"
    assert [str(claim.digest) for claim in one.image.claims] == [DIGEST]


def test_a_digest_may_carry_its_repository(tmp_path: Path) -> None:
    (one,) = observe(tmp_path, json.dumps([{"digest": f"docker-pullable://reg.example/app@{DIGEST}"}]))
    assert str(one.image.claims[0].repository) == "reg.example/app"


def test_a_bad_line_is_named_and_the_others_are_reported(tmp_path: Path) -> None:
    found = observe(
        tmp_path,
        f'name,digest,platform\na,{DIGEST},\nb,sha256:12,\nc\n\n"d\nd",{DIGEST},linux\ne,{DIGEST},linux/amd64\n',
    )
    assert [one.name for one in found if isinstance(one, ContainerObservation)] == ["a", "e"]
    problems = [one.message for one in found if isinstance(one, Unseen)]
    assert [message.partition(": ")[0].rpartition(" ")[2] for message in problems] == ["3", "4", "6"]
    assert "64 hex digits" in problems[0]
    assert "1 field where the headings have 3" in problems[1]
    assert "platform" in problems[2]


def test_json_lines_are_named(tmp_path: Path) -> None:
    text = (
        '{"made": {"containers": []},\n "containers": [\n  {"digest": "'
        + DIGEST
        + '"},\n  {"digest": "nope"},\n  7,\n  {"name": "x"},\n  {"digest": 5}\n ]}'
    )
    found = observe(tmp_path, text)
    found.sort(key=lambda one: isinstance(one, Unseen))
    assert [type(one) for one in found] == [ContainerObservation, *[Unseen] * 4]
    assert [f"line {line}" in one.message for line, one in zip((4, 5, 6, 7), found[1:], strict=True)] == [
        True
    ] * 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("[\n{,}]", "line 2"),
        ("{}", "no list of containers"),
        ("[" * 100_000, "JSON"),
        ("a,b\n1,2\n", "headings"),
        (b"name,digest\n\xff,\n", "line 2: not UTF-8"),
        ('name,digest\n"x', "not CSV"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: str | bytes, says: str) -> None:
    found = observe(tmp_path, content)
    assert isinstance(found[-1], Unseen)
    assert says in found[-1].message


def test_a_missing_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = without_notes(FileSource("file:x", str(tmp_path / "x")).observe())
    assert isinstance(problem, Unseen)
    assert "No such file" in problem.message

    class Stdin:
        buffer = io.BytesIO(json.dumps([{"digest": DIGEST}]).encode())

    monkeypatch.setattr("sys.stdin", Stdin())
    (one,) = without_notes(FileSource("file:-", "-").observe())
    assert isinstance(one, ContainerObservation)


@pytest.mark.parametrize(
    "content", ["[]", "[[]]", '{"containers": []}', '{"kind": "List", "items": []}', "digest\n"]
)
def test_nothing_in_it_does_not_show_that_nothing_runs(tmp_path: Path, content: str) -> None:
    (problem,) = observe(tmp_path, content)
    assert isinstance(problem, Unseen)
    assert "does not show that nothing runs" in problem.message


@pytest.mark.parametrize("content", ['{"kind": "PodList", "items": []}', '{"host": "n1", "containers": []}'])
def test_a_list_that_says_whose_it_is_may_be_empty(tmp_path: Path, content: str) -> None:
    assert observe(tmp_path, content) == []


A, B = (f"sha256:{digit * 64}" for digit in "ab")


@pytest.mark.parametrize(
    "text",
    [
        f'{{"name": "a", "reference": "r.example/a:1", "digest": "{A}", "digest": "{B}"}}',
        f'{{"name": "a", "reference": "r.example/a@{A}", "reference": "r.example/a@{B}"}}',
        f'{{"name": "a", "digest": "{A}", "dig\\u0065st": "{B}"}}',
        f'{{"name": "a", "team": "x", "digest": "{A}", "team": "y"}}',
        f'{{"Id": "1", "Name": "/a", "Image": "{A}", "Image": "{B}", "Config": {{"Image": "r/a:1"}}}}',
        f'{{"Id": "1", "Name": "/a", "Image": "{A}", "Config": {{"Image": "r.example/a", "Image": "b"}}}}',
    ],
)
def test_what_is_said_twice_is_no_answer(tmp_path: Path, text: str) -> None:
    """Each reader of JSON believes another of the two."""
    (problem,) = observe(tmp_path, f"[{text}]")
    assert isinstance(problem, Unseen)
    assert "twice" in problem.message


def test_a_key_in_one_object_and_in_another_is_not_said_twice(tmp_path: Path) -> None:
    entry = {"name": 'a "name": b', "reference": "r.example/a:1", "digest": A, "team": {"name": "x"}}
    (seen,) = observe(tmp_path, json.dumps([entry]))
    assert isinstance(seen, ContainerObservation)


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"containers": [{"name": "c", "image": "r.example/a:1"}]},
    "status": {
        "phase": "Running",
        "containerStatuses": [{"name": "c", "imageID": f"r.example/a@{A}", "state": {"running": {}}}],
    },
}
GROUP = {
    "name": "g",
    "osType": "Linux",
    "containers": [{"name": "c", "properties": {"image": f"r.example/a@{A}"}}],
}


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize(
    ("document", "rows"),
    [
        ({"apiVersion": "v1", "items": [POD], "kind": "List", "metadata": {"continue": "x"}}, 1),
        ({"apiVersion": "v1", "items": [POD], "kind": "List", "metadata": {"remainingItemCount": 5}}, 1),
        ({"apiVersion": "v1", "items": [], "kind": "PodList", "metadata": {"continue": "x"}}, 0),
        ({"value": [GROUP], "nextLink": "https://management.example/?skip=1"}, 1),
        ({"containers": [{"name": "a", "digest": A}], "nextToken": "x"}, 1),
    ],
)
def test_a_page_of_a_list_is_not_all_of_it(
    tmp_path: Path, document: dict[str, Any], rows: int, indent: int | None
) -> None:
    seen = observe(tmp_path, json.dumps(document, indent=indent) + "\n")
    assert sum(isinstance(one, ContainerObservation) for one in seen) == rows
    (problem,) = [one for one in seen if isinstance(one, Unseen)]
    assert "there is more than this file has" in problem.message


@pytest.mark.parametrize("metadata", [{}, {"continue": ""}, {"continue": None, "remainingItemCount": 0}])
def test_a_list_that_ends_is_all_of_it(tmp_path: Path, metadata: dict[str, Any]) -> None:
    document = {"apiVersion": "v1", "items": [POD], "kind": "List", "metadata": metadata}
    (seen,) = observe(tmp_path, json.dumps(document, indent=4) + "\n")
    assert isinstance(seen, ContainerObservation)


def test_what_excel_writes_before_the_headings(tmp_path: Path) -> None:
    content = f"sep=;\nhost;name;reference;digest\nn1;w;reg.example/app:1;{DIGEST}\nn2;x;5;sha256:0\n"
    seen, problem = observe(tmp_path, content)[::-1]
    assert (seen.host, seen.name) == ("n1", "w")
    assert "line 4" in problem.message
