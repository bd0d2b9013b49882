"""What must hold when a registry comes back after the scenario was cut off at some point of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digestry.model.digest import Digest
from tests.crash.checks import (
    check_files,
    check_journal,
    check_nothing_under_way,
    check_nothing_unheld,
    check_served,
    check_story,
    check_usage,
)
from tests.faults.inside import Inside
from tests.faults.scenario import (
    BLOBS,
    MANIFESTS,
    UPLOADS,
    A,
    Act,
    B,
    Clock,
    Move,
    Stage,
    manifest,
    whole,
)


@dataclass
class Log:
    """How far the scenario came: acts that began, acts that were acknowledged, uploads' addresses."""

    begun: int = 0
    acknowledged: int = 0
    locations: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Log:
        log = cls()
        for line in file.read_text().splitlines():
            match json.loads(line):
                case ["begin", int(number)]:
                    log.begun = number + 1
                case ["ack", int(number)]:
                    log.acknowledged = number + 1
                case ["upload", str(key), str(location)]:
                    log.locations[key] = location
        return log


def check(root: Path, acts: tuple[Act, ...], log: Log, *, power_went: bool = False) -> None:
    """All of it, on a registry that is started here.

    After the power went, an upload's bytes may be gone; then the server must not say otherwise.
    """
    with Inside(root) as registry:
        check_running(registry, acts, log, lost=power_went)
    check_at_rest(root)


def check_running(registry: Inside, acts: tuple[Act, ...], log: Log, *, lost: bool = False) -> None:
    """What it serves, and that it goes on: with the uploads, and with new pushes of the same."""
    root = registry.root
    done, open_act = acts[: log.acknowledged], acts[log.acknowledged : log.begun]
    for act in open_act:
        if act.damages is not None:
            _heal(registry, act.damages)
    _check_facts(registry, done, open_act)
    _check_moves(registry, done, open_act)
    check_served(registry, root)
    check_files(root)
    _go_on_with_uploads(registry, done, open_act, log.locations, lost=lost)
    _push_again(registry)
    check_served(registry, root)


def check_at_rest(root: Path) -> None:
    """What is left once all that was under way is swept, and all that nothing holds collected."""
    with Inside(root, upload_timeout=-1.0) as registry:
        registry.service.upload_sweep.run()
    check_nothing_under_way(root)
    check_files(root)
    check_journal(root)
    check_usage(root)
    check_nothing_unheld(root)


def _heal(registry: Inside, content: bytes) -> None:
    """Damaged bytes are never served, and the next push of them is all that it takes."""
    act = whole(A, content)
    for path in act.facts:
        answer = registry.get(path)
        assert answer.status != 200 or answer.body == content, "damaged bytes were served"
    act.run(_stage(registry))


def _stage(registry: Inside) -> Stage:
    return Stage(registry, lambda *_: None, Clock())


def _check_facts(registry: Inside, done: Iterable[Act], open_act: Iterable[Act]) -> None:
    allowed: dict[str, set[bytes | None]] = {}
    for act in done:
        allowed.update({path: {content} for path, content in act.facts.items()})
    for act in open_act:
        for path, content in act.facts.items():
            allowed.setdefault(path, {None}).add(content)
    for path, contents in allowed.items():
        answer = registry.get(path)
        assert answer.status in {200, 404}, f"{path}: {answer.status} {answer.body[:300]!r}"
        found = answer.body if answer.status == 200 else None
        assert found in contents, f"{path}: {'wrong bytes' if found else 'nothing is there'}"


def _check_moves(registry: Inside, done: Iterable[Act], open_act: Iterable[Act]) -> None:
    """The journal has what was acknowledged, in its order, and of the act that was cut off all or nothing."""
    found = []
    for repository in (A, B):
        for tag, moves in check_story(registry, repository).items():
            found += [(move["sequence"], (repository, tag, move.get("toDigest"))) for move in moves]
    journal: list[Move] = [move for _, move in sorted(found)]
    certain = [move for act in done for move in act.moves]
    perhaps = [move for act in open_act for move in act.moves]
    assert journal in (certain, certain + perhaps), f"{journal} is neither {certain} nor with {perhaps}"


def _go_on_with_uploads(
    registry: Inside,
    done: Iterable[Act],
    open_act: Iterable[Act],
    locations: Mapping[str, str],
    *,
    lost: bool,
) -> None:
    """Each upload is where it was said to be, and the rest of its bytes makes it whole."""
    allowed: dict[str, set[int | None]] = {}
    for act in done:
        allowed.update({key: {offset} for key, offset in act.uploads.items()})
    for act in open_act:
        for key, offset in act.uploads.items():
            allowed.setdefault(key, {None}).add(offset)
    for key, location in locations.items():
        offset = _offset(registry, location)
        assert offset in allowed[key] or (lost and offset is None), f"{key} is at {offset}: {allowed[key]}"
        if offset is not None:
            _finish(registry, key, location, offset, lost=lost or None in allowed[key])


def _offset(registry: Inside, location: str) -> int | None:
    answer = registry.get(location)
    if answer.status == 404:
        return None
    assert answer.status == 204
    # Range: 0-0 says neither nothing nor one byte; no piece of the scenario is one byte long.
    last = int(answer.headers["range"].removeprefix("0-"))
    return last + 1 if last else 0


def _finish(registry: Inside, key: str, location: str, offset: int, *, lost: bool) -> None:
    repository, content = UPLOADS[key]
    digest = Digest.of(content)
    headers = {"Content-Range": f"{offset}-{len(content) - 1}"} if offset < len(content) else {}
    put = registry.request("PUT", f"{location}?digest={digest}", content[offset:], headers)
    if lost and put.status == 404:  # its bytes had gone on already, or not come as far as the disk
        assert put.code == "BLOB_UPLOAD_UNKNOWN"
        return
    assert put.status == 201, f"{key} from {offset}: {put.status} {put.body[:300]!r}"
    answer = registry.get(f"/v2/{repository}/blobs/{digest}")
    assert answer.body == content


def _push_again(registry: Inside) -> None:
    """The same content once more, as a client that heard nothing would."""
    stage = _stage(registry)
    acts: list[Any] = [whole(A, content) for content in BLOBS]
    acts += [manifest(A, raw, f"again-{number}") for number, raw in enumerate(MANIFESTS)]
    for act in acts:
        act.run(stage)
        for path, content in act.facts.items():
            answer = registry.get(path)
            assert (answer.status, answer.body) == (200, content), f"{act.name}: {path}"
