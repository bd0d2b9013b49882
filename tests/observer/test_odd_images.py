"""What is no ordinary image: its moves are told by what is known, and alarm nobody for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.observer.support import Observing, report
from tests.registry.pull_through.support import Upstream
from tests.support import descriptor, wait_until

_APP = "own/app"


def child(up: Upstream, layer: bytes, platform: dict[str, str] | None, **config: Any) -> dict[str, Any]:
    body = {
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"base")), str(Digest.of(layer))]},
        **config,
    }
    raw = json.dumps(body).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, up.blob(_APP, raw), len(raw)),
        "layers": [descriptor(media_types.OCI_LAYER, up.blob(_APP, layer), len(layer))],
    }
    digest = up.manifest(_APP, document)
    listed = descriptor(media_types.OCI_MANIFEST, digest, len(up.manifests[_APP, str(digest)]))
    return listed if platform is None else {**listed, "platform": platform}


def index(up: Upstream, tag: str, *children: dict[str, Any]) -> Digest:
    body = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(children)}
    return up.manifest(_APP, body, tag)


def artifact(up: Upstream, tag: str, content: bytes) -> Digest:
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": "application/x-thing",
        "config": descriptor("application/vnd.oci.empty.v1+json", up.blob(_APP, b"{}"), 2),
        "layers": [descriptor("application/x-thing", up.blob(_APP, content), len(content))],
    }
    return up.manifest(_APP, document, tag)


def facts(observer: Observing, tag: str, *digests: Digest) -> dict[str, Any]:
    """What is told of the last move of a tag that has had these digests."""
    observer.wait_for(tag, *digests)

    def told() -> list[dict[str, Any]]:
        return [one["facts"] for one in report(observer)["moves"] if one["tag"] == tag and "facts" in one]

    wait_until(told, what=f"the facts of {tag}", log=observer.server.log)
    return told()[0]


Images = Callable[[Upstream, str], tuple[Digest, Callable[[], Digest]]]


def no_platforms(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    first = index(up, tag, child(up, b"one", None))
    return first, lambda: index(up, tag, child(up, b"two", None))


def config_has_platform(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    told = {"os": "linux", "architecture": "arm64"}
    first = index(up, tag, child(up, b"one", None, **told))
    return first, lambda: index(up, tag, child(up, b"two", None, **told))


def windows(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    def of(build: str) -> dict[str, str]:
        return {"os": "windows", "architecture": "amd64", "os.version": f"10.0.20348.{build}"}

    first = index(up, tag, child(up, b"one", of("1")))
    return first, lambda: index(up, tag, child(up, b"two", of("2")))


def attested(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    unknown, linux = {"os": "unknown", "architecture": "unknown"}, {"os": "linux", "architecture": "amd64"}
    first = index(up, tag, child(up, b"one", linux), child(up, b"provenance 1", unknown))
    return first, lambda: index(up, tag, child(up, b"two", linux), child(up, b"provenance 2", unknown))


def artifacts(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    return artifact(up, tag, b"one"), lambda: artifact(up, tag, b"two")


def index_of_artifacts(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    def listed(content: bytes) -> dict[str, Any]:
        digest = artifact(up, "part", content)
        return descriptor(media_types.OCI_MANIFEST, digest, len(up.manifests[_APP, str(digest)]))

    first = index(up, tag, listed(b"one"))
    return first, lambda: index(up, tag, listed(b"two"))


def without_a_config(up: Upstream, tag: str) -> tuple[Digest, Callable[[], Digest]]:
    """The registry has lost the config of the new one, which names no author then."""
    first = index(up, tag, child(up, b"one", {"os": "linux", "architecture": "amd64"}, author="team"))

    def second() -> Digest:
        made = index(
            up, tag, child(up, b"two", {"os": "linux", "architecture": "amd64"}, author="team", x="y")
        )
        for name, content in list(up.blobs.items()):
            if b'"x"' in content:
                del up.blobs[name]
        return made

    return first, second


@pytest.mark.long
def test_a_rebuild_of_something_odd_concerns_nobody(up: Upstream, observer: Observing) -> None:
    kinds: list[Images] = [
        no_platforms,
        config_has_platform,
        windows,
        attested,
        artifacts,
        index_of_artifacts,
        without_a_config,
    ]
    made = {kind.__name__: kind(up, kind.__name__) for kind in kinds}
    for name, (first, _) in made.items():
        observer.wait_for(name, first)
    seconds = {name: (first, rebuild()) for name, (first, rebuild) in made.items()}
    told = {name: facts(observer, name, *digests) for name, digests in seconds.items()}
    assert {name: one["concerns"] for name, one in told.items() if one.get("concerns")} == {}
    assert [one for one in told["without_a_config"]["unknown"] if one.startswith("config ")]
    assert told["config_has_platform"]["base"] == "same"


@pytest.mark.long
def test_an_image_that_became_an_artifact(up: Upstream, observer: Observing) -> None:
    first = up.image(_APP, "1.5")
    observer.wait_for("1.5", first)
    second = artifact(up, "1.5", b"not an image")
    assert {"kind-changed", "platforms-lost"} <= set(facts(observer, "1.5", first, second)["concerns"])


@pytest.mark.long
def test_a_platform_of_windows_that_went(up: Upstream, observer: Observing) -> None:
    def of(version: str) -> dict[str, str]:
        return {"os": "windows", "architecture": "amd64", "os.version": version}

    both = child(up, b"one", of("10.0.17763.1")), child(up, b"two", of("10.0.20348.1"))
    first = index(up, "1.5", *both)
    observer.wait_for("1.5", first)
    second = index(up, "1.5", child(up, b"three", of("10.0.20348.9")))
    told = facts(observer, "1.5", first, second)
    assert told.get("platformsLost") == ["windows/amd64 10.0.17763"], told
