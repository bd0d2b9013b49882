"""A registry whose journal and log a test writes, honest or not, in the formats of the real one."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import structs

from digestry.model import media_types
from digestry.model.descriptor import encode_hook
from digestry.model.digest import Digest
from digestry.model.history import JournalPage, TagEvent
from digestry.model.timestamps import parse
from digestry.translog.checkpoints import Checkpoint
from digestry.translog.cosignatures import cosign
from digestry.translog.entries import Leaf, Openings, make_leaf
from digestry.translog.log_keys import LogKey, LogKeys
from digestry.translog.merkle import leaf_hash, root_of
from digestry.translog.notes import COSIGNATURE, Note, SignerKey
from digestry.translog.tiles import WIDTH, Tile, encode_bundle, parse_path, whole_hash
from tests.client.liar import Liar, Reply, Request, lying, not_found

ORIGIN: Final = "registry.test/log"
BEGAN: Final = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


def image(number: int) -> bytes:
    """The manifest of an image without layers."""
    config = {"mediaType": media_types.OCI_CONFIG, "digest": f"sha256:{number:064x}", "size": 2}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": config,
            "layers": [],
            "annotations": {"number": str(number)},
        }
    ).encode()


@dataclass
class LogServer:
    """``events`` are the journal in order; ``size`` is how many of them are signed (None: all).

    ``shown`` changes what the journal shows, ``hidden`` are entries without an opening, and ``answers`` are
    whole answers, by a part of their path.
    """

    liar: Liar
    key: SignerKey = field(default_factory=lambda: SignerKey.new(ORIGIN))
    witnesses: list[SignerKey] = field(default_factory=list)
    origin: str = ORIGIN
    events: list[TagEvent] = field(default_factory=list)
    sealed: set[str] = field(default_factory=set)
    size: int | None = None
    audits: bool = False
    keys: list[SignerKey] = field(default_factory=list)
    declarations: list[str] = field(default_factory=list)
    shown: Callable[[list[TagEvent]], list[TagEvent]] = lambda events: events
    hidden: set[int] = field(default_factory=set)
    answers: dict[str, Reply] = field(default_factory=dict)
    tags: dict[tuple[str, str], bytes] = field(default_factory=dict)
    cosigned_at: datetime.datetime | None = None
    manifests: dict[Digest, bytes] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return self.liar.host

    def move(self, repository: str, tag: str, number: int) -> TagEvent:
        """Point a tag at the image ``number``, and write that down."""
        raw = image(number)
        digest = Digest.of(raw)
        self.manifests[digest] = raw
        before = self.tags.get((repository, tag))
        mine = [event for event in self.events if event.repository == repository]
        event = TagEvent(
            at=BEGAN + datetime.timedelta(minutes=len(self.events)),
            repository=repository,
            tag=tag,
            event="created" if before is None else "moved",
            from_digest=None if before is None else Digest.of(before),
            to_digest=digest,
            media_type=media_types.OCI_MANIFEST,
            size=len(raw),
            actor="ann",
            address="10.0.0.1",
            client="test",
            number=len(mine) + 1,
            sequence=len(self.events) + 1,
            previous_hash="a" * 64,
            hash="b" * 64,
        )
        self.tags[repository, tag] = raw
        self.events.append(event)
        return event

    def fill(self, count: int) -> None:
        """Write so many moves of other repositories."""
        for number in range(count):
            self.move(f"others/{number % 7}", f"t{number}", number)

    def leaf(self, index: int) -> Leaf:
        event = self.events[index]
        secret = index.to_bytes(16, "big")
        return make_leaf(event, secret, sealed=event.repository in self.sealed)

    def hashes(self) -> list[bytes]:
        count = len(self.events) if self.size is None else self.size
        return [leaf_hash(self.leaf(index).content) for index in range(count)]

    def note(self) -> Note:
        hashes = self.hashes()
        checkpoint = Checkpoint(self.origin, len(hashes), root_of(hashes))
        signed = checkpoint.sign(self.keys or [self.key])
        seconds = int((self.cosigned_at or datetime.datetime.now(datetime.UTC)).timestamp())
        lines = [cosign(checkpoint.text, witness, seconds) for witness in self.witnesses]
        return Note(signed.text, (*signed.signatures, *lines))

    # -- answers ------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply:
        for part, reply in self.answers.items():
            if part in request.path:
                return reply
        path = request.path.removeprefix("/v2/")
        if path.startswith("_digestry/log/"):
            return self._log(path.removeprefix("_digestry/log/"))
        if path == "_catalog":
            return _json({"repositories": sorted({event.repository for event in self.events})})
        for end, handler in (
            ("/_digestry/journal", self._journal),
            ("/_digestry/log/openings", self._openings),
        ):
            if path.endswith(end):
                return handler(path.removesuffix(end), request)
        name, slash, target = path.partition("/manifests/")
        if slash:
            return self._manifest(name, target, request)
        return not_found(request)

    def _log(self, path: str) -> Reply:
        if path == "checkpoint":
            return Reply(200, self.note().encode()) if self.events else not_found(Request("", "", {}, b""))
        if path == "keys":
            keys = tuple(LogKey(str(key.verifier), "2026-11-01T00:00:00Z") for key in self.keys or [self.key])
            return _json(LogKeys(self.origin, keys, declarations=tuple(self.declarations)))
        tile = parse_path(path)
        if tile.level is None:
            entries = [self.leaf(index).content for index in range(tile.first, tile.first + tile.width)]
            return Reply(200, encode_bundle(entries))
        return Reply(200, b"".join(self._level(tile.level)[tile.first : tile.first + tile.width]))

    def _level(self, level: int) -> list[bytes]:
        hashes = self.hashes()
        for _ in range(level):
            whole = len(hashes) // WIDTH * WIDTH
            hashes = [whole_hash(hashes[at : at + WIDTH]) for at in range(0, whole, WIDTH)]
        return hashes

    def _journal(self, name: str, request: Request) -> Reply:
        tag = request.query.get("tag", [None])[0]
        limit = int(request.query["n"][0])
        before = request.query.get("before", [None])[0]
        mine = [event for event in self.events if event.repository == name and tag in {None, event.tag}]
        page = self.shown(mine[::-1])
        if not self.audits:
            page = [_withheld(event) for event in page]
        if before is not None and before.isdigit():
            page = [event for event in page if (event.sequence or 0) < int(before)]
        elif before is not None:
            page = [event for event in page if event.at < parse(before).first]
        headers = {"Link": f'<{request.path}?n={limit}>; rel="next"'} if len(page) > limit else {}
        return _json(JournalPage(name, tuple(page[:limit])), headers)

    def _openings(self, name: str, request: Request) -> Reply:
        tag = request.query.get("tag", [None])[0]
        limit, first = int(request.query["n"][0]), int(request.query["from"][0])
        found = [
            self.leaf(index).opening(index, audits=self.audits)
            for index, event in enumerate(self.events)
            if event.repository == name and tag in {None, event.tag} and index >= first
            if index not in self.hidden
        ]
        headers = {"Link": f'<{request.path}>; rel="next"'} if len(found) > limit else {}
        return _json(Openings(name, tuple(found[:limit])), headers)

    def _manifest(self, name: str, target: str, request: Request) -> Reply:
        raw = self.manifests.get(Digest.parse(target)) if ":" in target else self.tags.get((name, target))
        if raw is None:
            return not_found(request)
        headers = {"Content-Type": media_types.OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(raw))}
        if request.method == "HEAD":
            return Reply(200, b"", headers, length=len(raw))
        return Reply(200, raw, headers)


def _withheld(event: TagEvent) -> TagEvent:
    empty: dict[str, Any] = {"actor": "", "address": "", "client": "", "previous_hash": "", "hash": ""}
    return structs.replace(event, withheld=True, sequence=None, **empty)


def _json(value: object, headers: dict[str, str] | None = None) -> Reply:
    body = msgspec.json.encode(value, enc_hook=encode_hook)
    return Reply(200, body, {"Content-Type": "application/json", **(headers or {})})


@contextlib.contextmanager
def log_server() -> Iterator[LogServer]:
    with lying() as liar:
        server = LogServer(liar)
        liar.answer = server.answer
        yield server


def witness(name: str = "witness.test") -> SignerKey:
    return SignerKey.new(name, COSIGNATURE)


def tile_path(level: int | None, index: int, width: int = WIDTH) -> str:
    return Tile(level, index, width).path
