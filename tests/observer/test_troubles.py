"""What goes wrong half-way: a token that ends within a list or an image, and a disk that fills up."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Reply, Request
from tests.faults.conftest import SmallDisk, small_disk
from tests.observer.support import Observing, observing, spans
from tests.registry.pull_through.support import KIND, Upstream, upstream
from tests.support import descriptor, wait_until

__all__ = ["small_disk"]

_FAST = "[observe]\nrequests-per-second = 1000\n"


@dataclass
class Tokens:
    """A token server before another registry: each token is good for ``uses`` requests."""

    up: Upstream
    uses: int = 2
    given: int = 0
    left: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    away: bool = False

    def begin(self) -> None:
        honest = self.up.liar.answer
        self.up.liar.answer = lambda request: self.answer(request, honest)

    def answer(self, request: Request, honest: Callable[[Request], Reply]) -> Reply:
        if request.path == "/token":
            if self.away:
                return Reply(503)
            self.given += 1
            self.left[f"t{self.given}"] = self.uses
            return Reply(200, json.dumps({"token": f"t{self.given}", "expires_in": 3600}).encode())
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.left.get(token, 0) <= 0:
            if token in self.left:
                self.refused.append(request.path)
            realm = f'Bearer realm="{self.up.url}/token",service="up",scope="repository:own/app:pull"'
            return Reply(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": realm})
        self.left[token] -= 1
        return honest(request)


def _failures(observer: Observing, *tags: str) -> list[str]:
    return [one["reason"] for tag in tags for one in spans(observer, tag) if one["outcome"] == "failed"]


@pytest.mark.long
def test_tokens_that_end_within_a_list_and_an_image(tmp_path: Path) -> None:
    with upstream() as up:
        tokens = Tokens(up, uses=3)

        def pages(request: Request) -> Reply | None:
            if "/tags/list" not in request.path:
                return None
            names = sorted(tag for _, tag in up.tags)
            start = names.index(request.query["last"][0]) + 1 if "last" in request.query else 0
            page = names[start : start + 2]
            more = start + 2 < len(names)
            link = {"Link": f'</v2/own/app/tags/list?n=2&last={page[-1]}>; rel="next"'} if more else {}
            body = json.dumps({"name": "own/app", "tags": page}).encode()
            return Reply(200, body, {"Content-Type": "application/json", **link})

        up.troubles["own/app"] = pages
        tokens.begin()
        layers = [b"layer %d" % number for number in range(9)]
        first = _image(up, "t0", *layers)
        others = {f"t{number}": up.image("own/app", f"t{number}") for number in range(1, 9)}
        with observing(tmp_path, up.url, 'every = "2s"\nkeep = true', _FAST) as observer:
            for tag, digest in others.items():
                observer.wait_for(tag, digest)
            observer.wait_for("t0", first)
            here = f"/v2/{observer.name}/blobs/"
            wait_until(
                lambda: all(
                    observer.server.request("GET", f"{here}{Digest.of(layer)}").status == 200
                    for layer in layers
                ),
                what="all layers",
                log=observer.server.log,
            )
            parts = {re.sub(r"[^/]*$", "", path) for path in tokens.refused}
            assert {"/v2/own/app/tags/", "/v2/own/app/blobs/"} <= parts
            assert _failures(observer, *others, "t0") == []
            tokens.away = True
            second = up.image("own/app", "t1", layer=b"new")

            def said() -> bool:
                return bool(_failures(observer, "t1"))

            wait_until(said, what="a failed observation", log=observer.server.log)
            assert observer.moves("t1") == [("created", str(others["t1"]))]
            tokens.away = False
            observer.wait_for("t1", others["t1"], second)


def _image(up: Upstream, tag: str, *layers: bytes) -> Digest:
    config = b'{"architecture":"amd64","os":"linux"}'
    document = {
        "schemaVersion": 2,
        "mediaType": KIND,
        "config": descriptor(media_types.OCI_CONFIG, up.blob("own/app", config), len(config)),
        "layers": [
            descriptor(media_types.OCI_LAYER, up.blob("own/app", layer), len(layer)) for layer in layers
        ],
    }
    return up.manifest("own/app", document, tag)


@pytest.mark.long
@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_has_no_room_for_what_is_to_be_kept(small_disk: SmallDisk) -> None:
    """It says so, leaves the room to others, and fetches the content when there is room again."""
    large = os.urandom(6 << 20)
    with (
        upstream() as up,
        observing(small_disk.path, up.url, 'every = "1s"\nkeep = true\ntags = "1.5"', _FAST) as observer,
    ):
        first = up.image("own/app", "1.5", layer=b"small")
        observer.wait_for("1.5", first)
        small_disk.fill(leave=4 << 20)
        second = up.image("own/app", "1.5", layer=large)
        observer.wait_for("1.5", first, second)
        log = observer.server.log

        def said() -> int:
            return log.read_text().count("not all content of its images can be kept now: ")

        wait_until(lambda: said() > 0, what="the log says it", log=log)
        assert "no room here" in log.read_text()
        # What had come is given back: clients can push, and the moves are written.
        wait_until(lambda: small_disk.free > 3 << 20, what="room", log=log)
        observer.server.push_image("team/app", "1", os.urandom(100_000))
        third = up.image("own/app", "1.5", layer=b"small again")
        observer.wait_for("1.5", first, second, third)
        assert said() < 10
        small_disk.make_room()
        layer = f"/v2/{observer.name}/blobs/{Digest.of(large)}"
        wait_until(
            lambda: observer.server.request("GET", layer).body == large,
            what="the large layer",
            log=log,
        )
