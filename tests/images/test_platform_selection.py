"""Indexes that do not say all, or have indexes in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from digestry.client.session import Session
from digestry.errors import ContentError, NotFound
from digestry.images.listing import list_images
from digestry.images.pull import pull
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, lying

AMD, ARM = Platform("amd64", "linux"), Platform("arm64", "linux")


class Shelf:
    """A registry with what was put there."""

    def __init__(self, liar: Liar) -> None:
        self.liar = liar
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        liar.answer = self.answer

    def answer(self, request: Request) -> Reply:
        kind, _, what = request.path.removeprefix("/v2/app/").partition("/")
        if kind == "manifests" and what in self.manifests:
            media_type, raw = self.manifests[what]
            return Reply(200, raw, {"Content-Type": media_type})
        if kind == "blobs" and what in self.blobs:
            return Reply(200, self.blobs[what])
        return Reply(404)

    def _put(self, media_type: str, document: Mapping[str, Any], tag: str | None = None) -> dict[str, Any]:
        raw = json.dumps(document).encode()
        digest = str(Digest.of(raw))
        self.manifests[digest] = media_type, raw
        if tag is not None:
            self.manifests[tag] = media_type, raw
        return {"mediaType": media_type, "digest": digest, "size": len(raw)}

    def image(self, kind: str = media_types.OCI_CONFIG, **config: Any) -> dict[str, Any]:
        content = json.dumps({"rootfs": {"type": "layers", "diff_ids": []}, **config}).encode()
        digest = str(Digest.of(content))
        self.blobs[digest] = content
        described = {"mediaType": kind, "digest": digest, "size": len(content)}
        return self._put(media_types.OCI_MANIFEST, {"schemaVersion": 2, "config": described, "layers": []})

    def index(self, entries: Sequence[Mapping[str, Any]], tag: str | None = None) -> dict[str, Any]:
        return self._put(media_types.OCI_INDEX, {"schemaVersion": 2, "manifests": entries}, tag)


@pytest.fixture
def shelf() -> Any:
    with lying() as liar:
        yield Shelf(liar)


def pulled(shelf: Shelf, session: Session, store: ImageStore, platform: Platform) -> str:
    """The digest of what is pulled, and then found in the store, for ``platform``."""
    name = Reference(shelf.liar.host, "app", "1")
    result = pull(session, name, store, platform=platform)
    assert [str(store.image(store.find(name), platform).digest)] == [str(one) for one in result.images]
    return str(result.images[0])


def stated(entry: dict[str, Any], architecture: str, **more: Any) -> dict[str, Any]:
    return {**entry, "platform": {"os": "linux", "architecture": architecture, **more}}


@pytest.mark.parametrize("platform", [None, {}, {"os": "linux"}, {"os": None, "architecture": None}])
def test_the_config_tells_what_an_entry_does_not(
    shelf: Shelf, session: Session, store: ImageStore, platform: object
) -> None:
    arm, amd = shelf.image(os="linux", architecture="arm64"), shelf.image(os="linux", architecture="amd64")
    shelf.index([{**arm, "platform": platform}, {**amd, "platform": platform}], "1")
    assert pulled(shelf, session, store, AMD) == amd["digest"]
    assert pulled(shelf, session, store, ARM) == arm["digest"]


def test_what_says_that_it_is_the_right_one_comes_first(
    shelf: Shelf, session: Session, store: ImageStore
) -> None:
    untold, told = shelf.image(os="linux", architecture="amd64"), shelf.image(created="2026-01-01T00:00:00Z")
    shelf.index([untold, stated(told, "amd64")], "1")
    assert pulled(shelf, session, store, AMD) == told["digest"]
    assert not any(untold["digest"] in request.target for request in shelf.liar.seen)


def test_what_nobody_says_anything_of_comes_last(shelf: Shelf, session: Session, store: ImageStore) -> None:
    silent = shelf.image()
    shelf.index([silent, stated(shelf.image(os="linux", architecture="s390x"), "s390x")], "1")
    assert pulled(shelf, session, store, AMD) == silent["digest"]


def test_what_is_no_image_is_not_taken(shelf: Shelf, session: Session, store: ImageStore) -> None:
    artifact = shelf.image("application/vnd.example.config+json")
    attestation = {**shelf.image(), "platform": {"os": "unknown", "architecture": "unknown"}}
    shelf.index([artifact, attestation], "1")
    with pytest.raises(NotFound, match="unknown/unknown"):
        pulled(shelf, session, store, AMD)


def test_an_index_in_an_index(shelf: Shelf, session: Session, store: ImageStore) -> None:
    amd, arm = shelf.image(os="linux", architecture="amd64"), shelf.image(os="linux", architecture="arm64")
    inner = shelf.index([stated(amd, "amd64"), stated(arm, "arm64")])
    shelf.index([shelf.index([inner])], "1")
    assert pulled(shelf, session, store, AMD) == amd["digest"]
    assert pulled(shelf, session, store, ARM) == arm["digest"]
    with pytest.raises(NotFound, match="it has linux/amd64, linux/arm64"):
        pulled(shelf, session, store, Platform("s390x", "linux"))
    everything = pull(session, Reference(shelf.liar.host, "app", "1"), store, all_platforms=True)
    assert {str(one) for one in everything.images} == {amd["digest"], arm["digest"]}
    by_digest = Reference(shelf.liar.host, "app").with_digest(Digest.parse(arm["digest"]))
    assert str(store.find(by_digest).digest) == arm["digest"]


def test_an_index_for_one_platform_in_an_index(shelf: Shelf, session: Session, store: ImageStore) -> None:
    v6, v7 = (shelf.image(os="linux", architecture="arm", variant=variant) for variant in ("v6", "v7"))
    inner = shelf.index([stated(v6, "arm", variant="v6"), stated(v7, "arm", variant="v7")])
    other = shelf.image(os="linux", architecture="amd64")
    shelf.index([stated(other, "amd64"), stated(inner, "arm", variant="v7")], "1")
    assert pulled(shelf, session, store, Platform("arm", "linux", "v7")) == v7["digest"]


def test_indexes_that_go_ever_deeper(shelf: Shelf, session: Session, store: ImageStore) -> None:
    entry = shelf.image(os="linux", architecture="amd64")
    for _ in range(40):
        entry = shelf.index([entry, entry])
    shelf.index([entry, entry], "1")
    name = Reference(shelf.liar.host, "app", "1")
    with pytest.raises(NotFound):
        pull(session, name, store, platform=AMD)
    with pytest.raises(ContentError, match="inside of each other"):
        pull(session, name, store, all_platforms=True)
    assert len(shelf.liar.seen) < 40


def test_an_image_for_less_than_what_is_wanted(shelf: Shelf, session: Session, store: ImageStore) -> None:
    image = shelf.image(os="linux", architecture="arm", variant="v6")
    shelf.manifests["1"] = shelf.manifests[image["digest"]]
    assert pulled(shelf, session, store, Platform("arm", "linux", "v7")) == image["digest"]
    with pytest.raises(NotFound, match="not for linux/amd64"):
        pulled(shelf, session, store, AMD)


def test_not_everything_is_looked_into(shelf: Shelf, session: Session, store: ImageStore) -> None:
    """Indexes that list indexes that list indexes: as many questions as there are paths through them."""
    said = {"os": "linux", "architecture": "s390x"}
    inner = [shelf.index([shelf.image(n=n, m=m, **said) for m in range(2)]) for n in range(200)]
    shelf.index([*inner, stated(shelf.image(), "s390x")], "1")
    with pytest.raises(NotFound, match="s390x"):
        pulled(shelf, session, store, Platform("riscv64", "linux"))
    assert len(shelf.liar.seen) <= 2 * 256 + 2  # and a config for each


def test_a_list_of_more_than_anybody_wants(
    shelf: Shelf, session: Session, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("digestry.images.index_content.MOST_MANIFESTS", 10)
    shelf.index([shelf.image(n=n) for n in range(12)], "1")
    with pytest.raises(ContentError, match="more than 10 manifests"):
        pull(session, Reference(shelf.liar.host, "app", "1"), store, all_platforms=True)
    assert list_images(store) == []


@pytest.mark.parametrize("turned", [False, True])
def test_an_entry_that_is_not_what_the_index_says(
    shelf: Shelf, session: Session, store: ImageStore, turned: bool
) -> None:
    image = shelf.image(os="linux", architecture="amd64")
    inner = shelf.index([{**image, "platform": {"os": "linux", "architecture": "amd64"}}])
    entry, kind = (image, media_types.OCI_INDEX) if turned else (inner, media_types.OCI_MANIFEST)
    entry = {**entry, "mediaType": kind, "platform": {"os": "linux", "architecture": "amd64"}}
    shelf.index([entry], "lies")
    with pytest.raises(ContentError, match=r"is listed as .*, and is"):
        pull(session, Reference.parse(f"{shelf.liar.host}/app:lies"), store, platform=AMD)
    assert list(list_images(store)) == []


def test_attestations_are_no_platform_to_choose(shelf: Shelf, session: Session, store: ImageStore) -> None:
    arm = stated(shelf.image(os="linux", architecture="arm64"), "arm64")
    attestation = {**shelf.image(n="1"), "platform": {"os": "unknown", "architecture": "unknown"}}
    shelf.index([arm, attestation], "1")
    with pytest.raises(NotFound, match=r"it has linux/arm64$"):
        pull(session, Reference.parse(f"{shelf.liar.host}/app:1"), store, platform=AMD)
