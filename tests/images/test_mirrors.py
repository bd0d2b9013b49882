"""Pulls of images that have mirrors, are blocked, or are rejected by a policy."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.client.configuration.registries_conf import read_registries
from digestry.client.configuration.rules import Mirror, NameRule, RegistryRules
from digestry.client.credentials import Credential, StaticCredentials
from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.errors import Forbidden, RemoteNotFound
from digestry.images.pull import PullResult, pull
from digestry.images.store import ImageStore
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, lying, not_found
from tests.support import PATIENCE, descriptor, free_port

_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
_LAYER = random.Random(7).randbytes(1 << 20)
_SMALL = b"a small layer"
_BLOBS = {str(Digest.of(blob)): blob for blob in (_CONFIG, _LAYER, _SMALL)}
_IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, Digest.of(_CONFIG), len(_CONFIG)),
        "layers": [
            descriptor(media_types.OCI_LAYER, Digest.of(blob), len(blob)) for blob in (_LAYER, _SMALL)
        ],
    }
).encode()
_DIGEST = Digest.of(_IMAGE)


def content(request: Request) -> Reply:
    """The answer of a registry, or a mirror, that has the image."""
    name = request.path.rpartition("/")[2]
    if "/manifests/" in request.path:
        said = {"Content-Type": media_types.OCI_MANIFEST, "Docker-Content-Digest": str(_DIGEST)}
        if request.method == "HEAD":
            said["Content-Length"] = str(len(_IMAGE))
        return Reply(200, _IMAGE, said)
    blob = _BLOBS[name]
    start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    if start:
        return Reply(206, blob[start:], {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"})
    return Reply(200, blob)


class World:
    """A registry and a mirror of it, and a store that is pulled into."""

    def __init__(self, registry: Liar, mirror: Liar, directory: Path) -> None:
        self.registry = registry
        self.mirror = mirror
        self._directory = directory
        self.store = ImageStore(directory / "images")
        self.said: list[str] = []
        self.name = Reference(registry.host, "team/app", "1")

    def forget(self) -> None:
        """Takes an empty store."""
        self.store = ImageStore(self._directory / "other")

    @property
    def place(self) -> str:
        """The repository on the mirror."""
        return f"{self.mirror.host}/cache/team/app"

    def pull(self, *mirrors: Mirror, reference: Reference | None = None, **options: object) -> PullResult:
        rule = NameRule(self.registry.host, "/a/config.toml", mirrors=mirrors)
        said = ClientOptions(
            timeout=PATIENCE,
            retries=1,
            registries=RegistryRules(names=((rule,),)),
            tell=self.said.append,
            **options,  # type: ignore[arg-type]
        )
        with Session(said) as session:
            return pull(session, reference or self.name, self.store)

    def cached(self, *, by_tag: bool = True, by_digest: bool = True) -> Mirror:
        return Mirror(f"{self.mirror.host}/cache", by_tag=by_tag, by_digest=by_digest)

    def has_all(self) -> bool:
        return all(self.store.blobs.read(Digest.parse(name)) == blob for name, blob in _BLOBS.items())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with lying(content) as registry, lying(content) as mirror:
        yield World(registry, mirror, tmp_path)


def test_all_of_an_image_comes_from_the_mirror_and_that_is_said(world: World) -> None:
    result = world.pull(world.cached())
    assert result.descriptor.digest == _DIGEST
    assert world.has_all()
    assert world.registry.seen == []
    assert all(path.split()[1].startswith("/v2/cache/team/app/") for path in world.mirror.paths())
    assert world.said == [f"{world.registry.host}/team/app is read from the mirror {world.place}"]
    assert world.name in [entry.reference for entry in world.store.entries()]


def test_what_a_mirror_lacks_comes_from_the_next_and_then_from_the_registry(world: World) -> None:
    world.mirror.answer = not_found
    with lying(
        lambda request: content(request) if "/blobs/" in request.path else not_found(request)
    ) as second:
        world.pull(world.cached(), Mirror(second.host))
        assert [path for path in second.paths() if "/blobs/" in path]
    assert world.has_all()
    assert world.registry.paths() == ["GET /v2/team/app/manifests/1"]
    assert not any("left out" in line for line in world.said)


def test_a_mirror_that_does_not_answer_is_named_and_asked_once(world: World) -> None:
    absent = f"127.0.0.1:{free_port()}"
    world.pull(Mirror(absent))
    assert world.has_all()
    (line,) = world.said
    assert line.startswith(f"the mirror {absent}/team/app is left out: cannot reach {absent}")


@pytest.mark.long
def test_a_mirror_that_hangs_leaves_time_for_the_registry(world: World) -> None:
    gate = threading.Event()

    def hang(_: Request) -> Reply:
        gate.wait(PATIENCE)
        return Reply(500)

    world.mirror.answer = hang
    try:
        world.pull(world.cached(), waiting=3.0, patience=3.0)
    finally:
        gate.set()
    assert world.has_all()
    assert "left out" in world.said[0]


def test_a_registry_that_has_nothing_is_the_one_to_say_so(world: World) -> None:
    world.mirror.answer = world.registry.answer = not_found
    with pytest.raises(RemoteNotFound, match=world.registry.host):
        world.pull(world.cached())


def wrong_manifest(request: Request) -> Reply:
    if "/manifests/" in request.path:
        return Reply(200, _IMAGE + b"\n", {"Content-Type": media_types.OCI_MANIFEST})
    return content(request)


def wrong_layers(request: Request) -> Reply:
    reply = content(request)
    if "/blobs/" in request.path and reply.body != _CONFIG:
        reply.body = reply.body[::-1]
    return reply


def long_layers(request: Request) -> Reply:
    reply = content(request)
    return Reply(200, reply.body + b"more") if "/blobs/" in request.path else reply


def half_layers(request: Request) -> Reply:
    reply = content(request)
    if "/blobs/" in request.path:
        return Reply(reply.status, reply.body[: len(reply.body) // 2], reply.headers, length=len(reply.body))
    return reply


@pytest.mark.parametrize("lie", [wrong_manifest, wrong_layers, long_layers])
def test_wrong_content_of_a_mirror_is_said_and_comes_from_the_registry(
    world: World, lie: Callable[[Request], Reply]
) -> None:
    world.mirror.answer = lie
    result = world.pull(world.cached(), reference=world.name.with_digest(_DIGEST))
    assert result.descriptor.digest == _DIGEST
    assert world.has_all()
    (line,) = [line for line in world.said if "left out" in line]
    assert line.startswith(f"the mirror {world.place} is left out: ")


def test_a_blob_that_a_mirror_cuts_off_goes_on_elsewhere(world: World) -> None:
    world.mirror.answer = half_layers
    world.pull(world.cached())
    assert world.has_all()
    (asked,) = [one for one in world.registry.seen if str(Digest.of(_LAYER)) in one.path]
    # Every attempt brought half of the rest.
    assert int(asked.headers["Range"].removeprefix("bytes=").removesuffix("-")) > len(_LAYER) // 2


def test_a_mirror_for_digests_is_not_asked_for_tags(world: World) -> None:
    world.pull(world.cached(by_tag=False))
    assert world.mirror.seen == []
    world.forget()
    world.pull(world.cached(by_tag=False), reference=world.name.with_digest(_DIGEST))
    assert f"GET /v2/cache/team/app/manifests/{_DIGEST}" in world.mirror.paths()


def test_a_mirror_for_tags_gives_their_blobs_too(world: World) -> None:
    world.pull(world.cached(by_digest=False))
    assert world.registry.seen == []
    world.forget()
    world.mirror.seen.clear()
    world.pull(world.cached(by_digest=False), reference=world.name.with_digest(_DIGEST))
    assert world.mirror.seen == []


def test_each_host_gets_its_own_login(world: World) -> None:
    def guarded(user: str) -> Callable[[Request], Reply]:
        expected = "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()

        def answer(request: Request) -> Reply:
            if request.headers.get("Authorization") != expected:
                return Reply(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
            return not_found(request) if user == "m" and "/blobs/" in request.path else content(request)

        return answer

    world.mirror.answer, world.registry.answer = guarded("m"), guarded("r")
    credentials = StaticCredentials(
        {world.mirror.host: Credential("m", "secret"), world.registry.host: Credential("r", "secret")}
    )
    rule = NameRule(world.registry.host, "f", mirrors=(world.cached(),))
    options = ClientOptions(timeout=PATIENCE, registries=RegistryRules(names=((rule,),)))
    with Session(options, credentials=credentials) as session:
        pull(session, world.name, world.store)
    assert world.has_all()
    for server, user in ((world.mirror, "m"), (world.registry, "r")):
        sent = {one.headers["Authorization"] for one in server.seen if "Authorization" in one.headers}
        assert sent == {"Basic " + base64.b64encode(f"{user}:secret".encode()).decode()}


def test_a_location_takes_the_place_of_the_registry(world: World) -> None:
    rule = NameRule(f"{world.registry.host}/team", "f", location=f"{world.mirror.host}/far/away")
    options = ClientOptions(timeout=PATIENCE, registries=RegistryRules(names=((rule,),)))
    with Session(options) as session:
        pull(session, world.name, world.store)
    assert world.registry.seen == []
    assert world.mirror.paths()[0] == "GET /v2/far/away/app/manifests/1"


def test_questions_about_a_registry_go_to_itself(world: World) -> None:
    rule = NameRule(world.registry.host, "f", mirrors=(world.cached(),))
    options = ClientOptions(timeout=PATIENCE, registries=RegistryRules(names=((rule,),)))
    with Session(options) as session:
        assert session.repository(world.name).resolve("1").digest == _DIGEST
    assert world.mirror.seen == []


@pytest.mark.parametrize("blocked", ["{host}", "{host}/team", "{host}/team/app:1"])
def test_nothing_is_asked_for_a_blocked_image(world: World, blocked: str) -> None:
    rule = NameRule(blocked.format(host=world.registry.host), "/a/registries.conf", blocked=True)
    options = ClientOptions(timeout=PATIENCE, registries=RegistryRules(names=((rule,),)))
    with Session(options) as session:
        with pytest.raises(Forbidden, match="conf blocks"):
            pull(session, world.name, world.store)
        if ":1" not in blocked:
            with pytest.raises(Forbidden):
                session.repository(world.name).resolve("1")
    assert world.registry.seen == []


def test_a_part_of_a_blocked_registry_may_be_allowed(world: World) -> None:
    rules = (
        NameRule(world.registry.host, "f", blocked=True),
        NameRule(f"{world.registry.host}/team", "f", blocked=False),
    )
    options = ClientOptions(timeout=PATIENCE, registries=RegistryRules(names=(rules,)))
    with Session(options) as session:
        pull(session, world.name, world.store)
        with pytest.raises(Forbidden):
            session.repository(Reference(world.registry.host, "other")).resolve("1")
    assert world.has_all()


def test_the_users_rules_go_before_containers(world: World, tmp_path: Path) -> None:
    file = tmp_path / "registries.conf"
    file.write_text(
        f'[[registry]]\nlocation = "{world.registry.host}"\nblocked = true\n'
        f'[[registry.mirror]]\nlocation = "{world.mirror.host}/cache"\n'
    )
    ours = NameRule(world.registry.host, "ours", blocked=False)
    theirs = tuple(read_registries([file]).names.values())
    for levels in ((theirs,), ((ours,), theirs)):
        options = ClientOptions(timeout=PATIENCE, registries=RegistryRules(names=levels))
        with Session(options) as session:
            if len(levels) == 1:
                with pytest.raises(Forbidden, match="conf blocks"):
                    pull(session, world.name, world.store)
            else:
                pull(session, world.name, world.store)
    assert world.has_all()
    assert world.registry.seen == []  # what the user did not say holds as the file has it


def policy(directory: Path, **scopes: str) -> Path:
    file = directory / "policy.json"
    said = {scope: [{"type": kind}] for scope, kind in scopes.items()}
    file.write_text(
        json.dumps({"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": said}})
    )
    return file


def test_a_policy_rejects(world: World, tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match=r"is rejected: .*policy\.json says reject"):
        world.pull(policy=policy(tmp_path, **{world.registry.host: "reject"}))
    assert world.registry.seen == []


def test_a_signature_that_a_policy_demands_is_said_not_to_be_verified(world: World, tmp_path: Path) -> None:
    world.pull(policy=policy(tmp_path, **{f"{world.registry.host}/team": "signedBy"}))
    assert world.has_all()
    (line,) = world.said
    assert "demands a signature" in line
    assert "does NOT verify" in line
