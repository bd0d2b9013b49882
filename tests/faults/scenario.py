"""A day of a registry in some forty requests: every way in which it changes what it holds.

Each :class:`Act` says what is true once it was acknowledged. The contents are the same in every run,
so that whoever looks at what a crash left knows them from the number of acts alone.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from digestry.backend import open_backend
from digestry.catalog import clock
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.scrub import Scrub
from tests.backends import collect
from tests.faults.inside import Inside, Unanswered
from tests.stores import blob_file
from tests.support import descriptor

A: Final = "a"
B: Final = "team/b"

Facts = Mapping[str, bytes | None]
"""What a GET of each path gives: these bytes, or 404."""

Move = tuple[str, str, str | None]
"""A repository, a tag, and the digest that it came to; None for its deletion."""


class Refusal(Exception):
    """A request was answered otherwise than it should be."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Stage:
    """What acts work with: the registry, where its uploads are, and its clock."""

    def __init__(self, registry: Inside, told: Callable[[str, str], None], clock_: Clock) -> None:
        self.registry = registry
        self.clock = clock_
        self.uploads: dict[str, str] = {}
        self._told = told

    def ask(
        self, expect: int, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        answer = self.registry.request(method, path, body, headers)
        if answer.status != expect:
            raise Refusal(f"{method} {path}: {answer.status} {answer.body[:300]!r}", answer.status)
        return answer.headers

    def begun(self, key: str, location: str) -> None:
        """The server told where an upload is."""
        self.uploads[key] = location
        self._told(key, location)


class Clock:
    """The machine's clock, which an act may set."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return clock.now() + self.ahead


@dataclass(frozen=True, slots=True)
class Act:
    """One request, or one piece of the registry's own work, and what it changes."""

    name: str
    run: Callable[[Stage], object]
    facts: Facts = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    damages: bytes | None = None
    """What it makes unservable, until it has been acknowledged."""
    uploads: Mapping[str, int | None] = field(default_factory=dict)
    """Uploads by their keys, and the bytes of each that count now; None once it has ended."""


def _bytes(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _as_json(**content: Any) -> bytes:
    return json.dumps(content).encode()


CONFIG: Final = _as_json(architecture="amd64", os="linux", rootfs={"type": "layers", "diff_ids": []})
SMALL: Final = _bytes("small", 700)
LARGE: Final = _bytes("large", 150_000)
PIECES: Final = _bytes("pieces", 30_000)
LONG_NAME: Final = _bytes("sha512", 2_000)
PASSING: Final = _bytes("passing", 1_000)
BROKEN_OFF: Final = _bytes("broken off", 20_000)


def _image(*layers: bytes, **extra: Any) -> bytes:
    return _as_json(
        schemaVersion=2,
        mediaType=media_types.OCI_MANIFEST,
        config=descriptor(media_types.OCI_CONFIG, Digest.of(CONFIG), len(CONFIG)),
        layers=[descriptor(media_types.OCI_LAYER, Digest.of(layer), len(layer)) for layer in layers],
        **extra,
    )


FIRST: Final = _image(SMALL, LARGE)
SECOND: Final = _image(PIECES)
THIRD: Final = _image(SMALL, PIECES)
SHORT_LIVED: Final = _image(PASSING)
INDEX: Final = _as_json(
    schemaVersion=2,
    mediaType=media_types.OCI_INDEX,
    manifests=[descriptor(media_types.OCI_MANIFEST, Digest.of(raw), len(raw)) for raw in (FIRST, SECOND)],
)
REFERRER: Final = _image(SMALL, subject=descriptor(media_types.OCI_MANIFEST, Digest.of(SECOND), len(SECOND)))

BLOBS: Final = (CONFIG, SMALL, LARGE, PIECES, PASSING)
MANIFESTS: Final = (FIRST, SECOND, THIRD, SHORT_LIVED, INDEX, REFERRER)
UPLOADS: Final[Mapping[str, tuple[str, bytes]]] = {
    "large": (A, LARGE),
    "pieces": (A, PIECES),
    "cancelled": (A, SMALL),
    "broken off": (A, BROKEN_OFF),
    "left": (A, PASSING),
}
"""Where each upload goes, and what it would be in the end."""


def blob_path(repository: str, content: bytes, algorithm: str = "sha256") -> str:
    return f"/v2/{repository}/blobs/{Digest.of(content, algorithm)}"


def manifest_path(repository: str, target: bytes | str) -> str:
    return f"/v2/{repository}/manifests/{target if isinstance(target, str) else Digest.of(target)}"


def whole(repository: str, content: bytes, algorithm: str = "sha256") -> Act:
    digest = Digest.of(content, algorithm)
    return Act(
        f"push {len(content)} bytes in one request",
        lambda stage: stage.ask(201, "POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content),
        {blob_path(repository, content, algorithm): content},
    )


def _begin(key: str) -> Act:
    def run(stage: Stage) -> None:
        answer = stage.ask(202, "POST", f"/v2/{UPLOADS[key][0]}/blobs/uploads/")
        stage.begun(key, answer["location"])

    return Act(f"begin the upload {key}", run, uploads={key: 0})


def _patch(key: str, start: int, end: int, *, ranges: bool = True) -> Act:
    piece = UPLOADS[key][1][start:end]
    headers = {"Content-Range": f"{start}-{end - 1}"} if ranges else {}
    # In parts, as they come from a connection.
    parts = [piece[at : at + 7_000] for at in range(0, len(piece), 7_000)]
    return Act(
        f"send {key} up to byte {end}",
        lambda stage: stage.ask(202, "PATCH", stage.uploads[key], parts, headers),
        uploads={key: end},
    )


def _leave(key: str, start: int, end: int) -> Act:
    def run(stage: Stage) -> None:
        headers = {"Content-Range": f"{start}-{len(UPLOADS[key][1]) - 1}"}
        try:
            answer = stage.registry.request(
                "PATCH", stage.uploads[key], [UPLOADS[key][1][start:end]], headers, leaves=True
            )
        except Unanswered:
            return
        raise Refusal(f"a client that left was answered {answer.status}", answer.status)

    return Act(f"a client leaves at byte {end} of {key}", run, uploads={key: end})


def _finish(key: str, start: int) -> Act:
    repository, content = UPLOADS[key]
    query = f"?digest={Digest.of(content)}"
    return Act(
        f"finish the upload {key}",
        lambda stage: stage.ask(201, "PUT", stage.uploads[key] + query, content[start:]),
        {blob_path(repository, content): content},
        uploads={key: None},
    )


def _cancel(key: str) -> Act:
    return Act(
        f"cancel the upload {key}",
        lambda stage: stage.ask(204, "DELETE", stage.uploads[key]),
        uploads={key: None},
    )


def _mount(source: str, repository: str, content: bytes) -> Act:
    query = f"?mount={Digest.of(content)}&from={source}"
    return Act(
        f"mount {len(content)} bytes",
        lambda stage: stage.ask(201, "POST", f"/v2/{repository}/blobs/uploads/{query}"),
        {blob_path(repository, content): content},
    )


def manifest(repository: str, raw: bytes, *tags: str, moved: Sequence[str] | None = None) -> Act:
    digest = str(Digest.of(raw))
    kind = {"Content-Type": str(json.loads(raw)["mediaType"])}
    target = tags[0] if len(tags) == 1 else digest + "?" + "&".join(f"tag={tag}" for tag in tags)
    return Act(
        f"push a manifest of {len(raw)} bytes as {', '.join(tags) or 'its digest'}",
        lambda stage: stage.ask(201, "PUT", manifest_path(repository, target), raw, kind),
        {manifest_path(repository, name): raw for name in (digest, *tags)},
        tuple((repository, tag, digest) for tag in (tags if moved is None else moved)),
    )


def _drop_tag(repository: str, tag: str) -> Act:
    return Act(
        f"delete the tag {tag}",
        lambda stage: stage.ask(202, "DELETE", manifest_path(repository, tag)),
        {manifest_path(repository, tag): None},
        ((repository, tag, None),),
    )


def _drop_manifest(repository: str, raw: bytes, *tags: str) -> Act:
    return Act(
        f"delete a manifest with {len(tags)} tags",
        lambda stage: stage.ask(202, "DELETE", manifest_path(repository, raw)),
        {manifest_path(repository, target): None for target in (str(Digest.of(raw)), *tags)},
        tuple((repository, tag, None) for tag in tags),
    )


def _drop_blob(repository: str, content: bytes) -> Act:
    return Act(
        f"delete the blob of {len(content)} bytes",
        lambda stage: stage.ask(202, "DELETE", blob_path(repository, content)),
        {blob_path(repository, content): None},
    )


def _restore(repository: str, tag: str, raw: bytes) -> Act:
    path = f"/v2/{repository}/_digestry/restore/{tag}?to={Digest.of(raw)}"
    return Act(
        f"restore the tag {tag}",
        lambda stage: stage.ask(200, "POST", path),
        {manifest_path(repository, tag): raw},
        ((repository, tag, str(Digest.of(raw))),),
    )


def _sweep(*keys: str) -> Act:
    def run(stage: Stage) -> None:
        stage.clock.ahead += 2 * 24 * 3600 * clock.SECOND
        stage.registry.service.upload_sweep.clocks.jump()  # as if the time had passed
        stage.registry.service.upload_sweep.run()

    return Act("two days later, sweep the uploads that nobody went on with", run, uploads=dict.fromkeys(keys))


def _collect(days: int, facts: Facts) -> Act:
    def run(stage: Stage) -> None:
        stage.clock.ahead += days * 24 * 3600 * clock.SECOND
        tally = collect(stage.registry.config, now=stage.clock)
        assert tally.blobs > 0

    return Act(f"{days} days later, collect", run, facts)


def _heal(repository: str, content: bytes) -> Act:
    """The disk damages a blob, the scrub finds it, and a client pushes it once more."""
    digest = Digest.of(content)

    def run(stage: Stage) -> None:
        service = stage.registry.service
        blob_file(service.config.scratch, digest).write_bytes(bytes(len(content)))
        backend = open_backend(stage.registry.root, now=stage.clock)
        scrub = Scrub(service.stores.catalog, backend, rate=1 << 30)
        assert scrub.run(threading.Event()).damaged == 1
        stage.ask(404, "GET", blob_path(repository, content))
        whole(repository, content).run(stage)

    facts = {blob_path(repository, content): content}
    return Act(f"damage {len(content)} bytes, scrub, and heal them", run, facts, damages=content)


def play() -> tuple[Act, ...]:
    """All acts, in their order."""
    return (
        whole(A, CONFIG),
        whole(A, SMALL),
        _begin("large"),
        _patch("large", 0, len(LARGE), ranges=False),
        _finish("large", len(LARGE)),
        _begin("pieces"),
        _patch("pieces", 0, 10_000),
        _patch("pieces", 10_000, 20_000),
        _finish("pieces", 20_000),
        whole(A, LONG_NAME, "sha512"),
        _mount(A, B, SMALL),
        manifest(A, FIRST, "1"),
        manifest(A, SECOND, "1", "2"),
        manifest(A, INDEX, "multi"),
        manifest(A, REFERRER),
        _begin("cancelled"),
        _patch("cancelled", 0, 500),
        _cancel("cancelled"),
        _begin("broken off"),
        _leave("broken off", 0, 9_000),
        _drop_tag(A, "2"),
        _restore(A, "1", FIRST),
        manifest(A, THIRD, "3", "4"),
        _drop_manifest(A, THIRD, "3", "4"),
        whole(A, PASSING),
        manifest(A, SHORT_LIVED, "short"),
        _drop_manifest(A, SHORT_LIVED, "short"),
        _drop_blob(A, PASSING),
        whole(A, PASSING),
        manifest(A, SHORT_LIVED, "short"),
        manifest(A, SHORT_LIVED, "short", moved=()),
        _begin("left"),
        _patch("left", 0, 600),
        _patch("broken off", 9_000, 15_000),
        _sweep("left", "broken off"),
        manifest(A, THIRD, "3"),
        _heal(A, SMALL),
        _drop_tag(A, "short"),
        _collect(
            100,
            {
                manifest_path(A, SHORT_LIVED): None,
                blob_path(A, PASSING): None,
                blob_path(A, LONG_NAME, "sha512"): None,
                blob_path(B, SMALL): None,
            },
        ),
        whole(A, PASSING),
        manifest(A, SHORT_LIVED, "short"),
        _mount(A, B, SMALL),
    )
