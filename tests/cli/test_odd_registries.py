"""What a user sees of registries that do not answer as most do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from tests.cli.conftest import Run
from tests.client.liar import Reply, Request, lying
from tests.images.test_platform_selection import Shelf, stated


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with lying() as liar:
        yield Shelf(liar)


def before(shelf: Shelf, odd: Callable[[Request], Reply | None]) -> None:
    """``odd`` answers first, where it answers."""
    usual = shelf.answer
    shelf.liar.answer = lambda request: odd(request) or usual(request)


def tagged(shelf: Shelf, *tags: str) -> str:
    image = shelf.image(os="linux", architecture="amd64")
    for tag in tags:
        shelf.manifests[tag] = shelf.manifests[image["digest"]]
    return str(image["digest"])


def lists(*tags: Any) -> Callable[[Request], Reply | None]:
    body = json.dumps({"name": "app", "tags": tags}).encode()
    return lambda request: Reply(200, body) if request.path.endswith("/tags/list") else None


def test_one_tag_hides_no_other(shelf: Shelf, run: Run) -> None:
    digest = tagged(shelf, "good")
    before(shelf, lists("good", "gone", None, "../odd"))
    done = run("tags", f"{shelf.liar.host}/app", "--format", "json", status=3)
    rows = json.loads(done.stdout)
    assert [(row["tag"], row["digest"]) for row in rows] == [
        ("good", digest),
        ("gone", None),
        (None, None),
        (None, None),
    ]
    assert all(row["problem"] for row in rows[1:])
    assert "../odd" in done.stderr
    assert digest[7:19] in run("tags", f"{shelf.liar.host}/app", status=3).stdout


def test_a_list_that_comes_short(shelf: Shelf, run: Run) -> None:
    digest = tagged(shelf, "good")

    def odd(request: Request) -> Reply | None:
        if not request.path.endswith("/tags/list"):
            return None
        if "last" in request.query:
            return Reply(500, b"out of order")
        return Reply(200, b'{"tags":["good"]}', {"Link": '</v2/app/tags/list?last=good>; rel="next"'})

    before(shelf, odd)
    done = run("tags", f"{shelf.liar.host}/app", "--timeout", "20", status=3)
    assert digest[7:19] in done.stdout
    assert "came short" in done.stderr
    assert "out of order" in done.stderr


def test_a_journal_that_is_a_web_page(shelf: Shelf, run: Run) -> None:
    digest = tagged(shelf, "good")
    page = Reply(200, b"<html>", {"Content-Type": "text/html"})
    usual = lists("good")
    before(shelf, lambda request: page if "_digestry" in request.path else usual(request))
    assert digest[7:19] in run("tags", f"{shelf.liar.host}/app").stdout


def test_an_hour_is_not_waited_for(shelf: Shelf, run: Run) -> None:
    before(shelf, lambda _: Reply(429, headers={"Retry-After": "3600"}))
    begun = time.monotonic()
    done = run("digest", f"{shelf.liar.host}/app:1", status=3)
    assert "asks to wait 3600 s (Retry-After)" in done.stderr
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("verb", ["digest", "pull", "tags", "inspect", "log", "whose"])
def test_silence(shelf: Shelf, run: Run, verb: str) -> None:
    def silent(_: Request) -> Reply:
        time.sleep(20)
        return Reply()

    shelf.liar.answer = silent
    begun = time.monotonic()
    name = f"{shelf.liar.host}/app" + ("" if verb == "tags" else ":1")
    done = run(verb, name, "--timeout", "0.5", status=3)
    assert "--timeout" in done.stderr
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_that_is_none(run: Run, value: str) -> None:
    run("digest", "127.0.0.1:1/app:1", "--timeout", value, status=2)


def audited(run: Run, tmp_path: Path, containers: object, status: int | None = None) -> dict[str, Any]:
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(containers))
    for code in (0, 1, 3) if status is None else (status,):
        try:
            done = run("audit", "--source", f"file:{path}", "--format", "json", status=code)
        except AssertionError:
            continue
        row: dict[str, Any] = json.loads(done.stdout)["containers"][0]
        return row
    raise AssertionError("the audit did not end as it should")


def test_the_audit_asks_with_get_what_head_does_not_tell(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    digest = tagged(shelf, "1")
    before(shelf, lambda request: Reply(404) if request.method == "HEAD" else None)
    container = {"name": "c", "reference": f"{shelf.liar.host}/app:1", "digest": digest}
    assert audited(run, tmp_path, [container])["tag_state"] == "current"


def test_head_that_says_something_else_than_get(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    old = tagged(shelf, "1")
    new = str(shelf.image(os="linux", architecture="arm64")["digest"])
    shelf.manifests["2"] = shelf.manifests[new]
    container = {"name": "c", "reference": f"{shelf.liar.host}/app:2", "digest": old}
    lies = {"Docker-Content-Digest": old, "Content-Type": media_types.OCI_MANIFEST, "Content-Length": "9"}

    def odd(request: Request) -> Reply | None:
        lied = request.method == "HEAD" and request.path.endswith("/manifests/2")
        return Reply(200, headers=lies) if lied else None

    before(shelf, odd)
    found = audited(run, tmp_path, [container])
    assert (found["tag_state"], found["tag_digest"]) == ("unknown", old)
    assert any(f"says {old} for HEAD, and gives {new} for GET" in why for why in found["reasons"])
    # A registry that counts pulls is believed.
    lies["RateLimit-Limit"] = "100;w=21600"
    assert audited(run, tmp_path, [container])["tag_state"] == "current"


def pod(shelf: Shelf, digest: str, node: dict[str, Any]) -> dict[str, Any]:
    image = f"{shelf.liar.host}/app:1"
    status = {
        "name": "c",
        "image": image,
        "imageID": f"{shelf.liar.host}/app@{digest}",
        "containerID": "containerd://x",
        "state": {"running": {}},
    }
    items = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {"containers": [{"name": "c", "image": image}], "nodeName": "n"},
            "status": {"phase": "Running", "containerStatuses": [status]},
        },
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": {"nodeInfo": node}},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def node(architecture: str, system: str = "linux", **more: str) -> dict[str, Any]:
    return {"architecture": architecture, "operatingSystem": system, **more}


def test_the_audit_looks_into_an_index_in_an_index(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    amd, arm = shelf.image(os="linux", architecture="amd64"), shelf.image(os="linux", architecture="arm64")
    top = shelf.index([shelf.index([stated(amd, "amd64"), stated(arm, "arm64")])], "1")
    assert (
        audited(run, tmp_path, pod(shelf, top["digest"], node("arm64")))["manifest_digest"] == arm["digest"]
    )


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        # The level of the node is not known: it may be either.
        ([("amd64", {}), ("amd64", {"variant": "v3"})], None),
        ([("arm64", {}), ("amd64", {})], 1),
        ([("386", {}), ("arm64", {})], 0),
    ],
)
def test_the_audit_does_not_guess_what_runs(
    shelf: Shelf, run: Run, tmp_path: Path, entries: list[tuple[str, dict[str, str]]], wanted: int | None
) -> None:
    images = [shelf.image(os="linux", created=f"2026-01-0{n + 1}T00:00:00Z") for n in range(len(entries))]
    described = [stated(image, name, **more) for image, (name, more) in zip(images, entries, strict=True)]
    top = shelf.index(described, "1")
    row = audited(run, tmp_path, pod(shelf, top["digest"], node("amd64")))
    assert row["manifest_digest"] == (None if wanted is None else images[wanted]["digest"])
    if wanted is None:
        assert any("not known which" in reason for reason in row["reasons"])


def test_the_audit_knows_the_build_of_a_node(shelf: Shelf, run: Run, tmp_path: Path) -> None:
    builds = ("10.0.17763.1", "10.0.20348.1")
    images = [shelf.image(os="windows", **{"os.version": build}) for build in builds]
    top = shelf.index(
        [
            stated(image, "amd64", os="windows", **{"os.version": build})
            for image, build in zip(images, builds, strict=True)
        ],
        "1",
    )
    row = audited(
        run, tmp_path, pod(shelf, top["digest"], node("amd64", "windows", kernelVersion="10.0.20348.2113"))
    )
    assert row["manifest_digest"] == images[1]["digest"]
    row = audited(run, tmp_path, pod(shelf, top["digest"], node("amd64", "windows")))
    assert row["manifest_digest"] is None
