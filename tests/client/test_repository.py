"""What a repository can do, against digestry's registry and against docker's."""

from __future__ import annotations

import datetime
import io
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import pytest

from digestry.blobs.disk import DiskBlobs
from digestry.client.repository import Repository
from digestry.client.session import Session
from digestry.errors import ProtocolViolation, Refused, RemoteDamaged, RemoteNotFound, TooLarge
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.history import TAG_EVENT, TAG_TIMESTAMP
from digestry.model.manifest import Manifest
from digestry.model.reference import Reference
from tests.client.liar import Liar, Reply, Request, not_found
from tests.stores import blob_file
from tests.support import RegistryServer, run_digestry


@pytest.fixture(
    params=["digestry", pytest.param("docker-registry", marks=pytest.mark.peer("docker-registry"))]
)
def host(request: pytest.FixtureRequest) -> str:
    if request.param == "digestry":
        server: RegistryServer = request.getfixturevalue("registry")
        return server.host
    peer: str = request.getfixturevalue("docker_registry")
    return peer


@pytest.fixture
def repository(host: str, session: Session) -> Repository:
    return session.repository(Reference(host, f"client/{secrets.token_hex(6)}"))


def push_blob(repository: Repository, content: bytes, algorithm: str = "sha256") -> Descriptor:
    descriptor = Descriptor(media_types.OCI_LAYER, Digest.of(content, algorithm), len(content))
    repository.push_blob(descriptor, lambda: io.BytesIO(content))
    return descriptor


def plain(descriptor: Descriptor, kind: str = media_types.OCI_LAYER) -> dict[str, object]:
    return {"mediaType": kind, "digest": str(descriptor.digest), "size": descriptor.size}


def image(repository: Repository, note: str = "", **extra: object) -> bytes:
    config = push_blob(repository, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": plain(config, media_types.OCI_CONFIG),
        "layers": [],
        "annotations": {"note": note},
        **extra,
    }
    return json.dumps(document).encode()


def test_a_blob_there_and_back(repository: Repository, tmp_path: Path) -> None:
    content = secrets.token_bytes(6_000_000)
    descriptor = Descriptor(media_types.OCI_LAYER, Digest.of(content), len(content))
    assert repository.has_blob(descriptor.digest) is False
    sent: list[int] = []
    outcome = repository.push_blob(descriptor, lambda: io.BytesIO(content), progress=sent.append)
    assert outcome == "sent"
    assert sum(sent) == len(content)
    assert repository.has_blob(descriptor.digest) is True
    assert repository.push_blob(descriptor, lambda: io.BytesIO(content)) == "present"
    store = DiskBlobs(tmp_path)
    store.prepare()
    with store.begin(descriptor.digest, descriptor.size) as sink:
        repository.pull_blob(descriptor, sink)
    assert store.read(descriptor.digest) == content
    with pytest.raises(TooLarge):
        repository.read_blob(descriptor, limit=10)


def test_an_empty_blob(repository: Repository, tmp_path: Path) -> None:
    descriptor = push_blob(repository, b"")
    assert repository.read_blob(descriptor) == b""
    store = DiskBlobs(tmp_path)
    store.prepare()
    with store.begin(descriptor.digest, 0) as sink:
        repository.pull_blob(descriptor, sink)
    assert store.stat(descriptor.digest) == 0


def test_a_blob_is_mounted(repository: Repository, session: Session) -> None:
    content = secrets.token_bytes(1000)
    descriptor = push_blob(repository, content)
    other = session.repository(Reference(repository.reference.host, f"client/{secrets.token_hex(6)}"))
    origin = repository.reference.repository
    outcome = other.push_blob(descriptor, lambda: io.BytesIO(content), mount_from=origin)
    assert outcome == "mounted"
    assert other.read_blob(descriptor) == content
    third = session.repository(Reference(repository.reference.host, f"client/{secrets.token_hex(6)}"))
    nowhere = "client/nowhere"
    assert third.push_blob(descriptor, lambda: io.BytesIO(content), mount_from=nowhere) == "sent"


def test_manifests_by_tag_and_digest(repository: Repository) -> None:
    raw = image(repository)
    digest = repository.push_manifest(raw, media_types.OCI_MANIFEST, tags=["1", "2", "3"])
    assert digest == Digest.of(raw)
    assert sorted(repository.tags()) == ["1", "2", "3"]
    expected = Descriptor(media_types.OCI_MANIFEST, digest, len(raw))
    assert repository.resolve("2") == expected
    assert repository.resolve(str(digest)) == expected
    assert repository.pull_manifest("3").raw == raw
    untagged = image(repository, "untagged")
    other = repository.push_manifest(untagged, media_types.OCI_MANIFEST)
    assert repository.pull_manifest(str(other)).raw == untagged
    assert sorted(repository.tags()) == ["1", "2", "3"]


def test_what_is_not_there(repository: Repository) -> None:
    for ask in (repository.resolve, repository.pull_manifest):
        with pytest.raises(RemoteNotFound):
            ask("nope")
        with pytest.raises(RemoteNotFound):
            ask(str(Digest.of(b"nope")))
    with pytest.raises(RemoteNotFound):
        list(repository.tags())
    with pytest.raises(RemoteNotFound):
        repository.read_blob(Descriptor(media_types.OCI_LAYER, Digest.of(b"nope"), 4))


def test_delete(repository: Repository) -> None:
    digest = repository.push_manifest(image(repository), media_types.OCI_MANIFEST, tags=["1"])
    repository.delete(str(digest))
    with pytest.raises(RemoteNotFound):
        repository.resolve(str(digest))
    with pytest.raises(RemoteNotFound):
        repository.delete(str(digest))


def test_referrers(repository: Repository) -> None:
    """docker-registry 2.8 has no such endpoint: there the referrers tag is used."""
    subject = Manifest.parse(image(repository))
    repository.push_manifest(subject.raw, subject.media_type, tags=["1"])
    assert repository.referrers(subject.digest) == []
    target = plain(subject.descriptor(), media_types.OCI_MANIFEST)
    pushed = []
    for kind in ("a/b", "c/d"):
        raw = image(repository, kind, subject=target, artifactType=kind)
        pushed.append(repository.push_manifest(raw, media_types.OCI_MANIFEST))
        repository.push_manifest(raw, media_types.OCI_MANIFEST)  # again: it is listed once
    assert {d.digest for d in repository.referrers(subject.digest)} == set(pushed)
    (found,) = repository.referrers(subject.digest, "c/d")
    assert found.digest == pushed[1]
    assert found.artifact_type == "c/d"
    assert found.annotations == {"note": "c/d"}


def test_what_is_deleted_is_no_referrer_any_more(repository: Repository) -> None:
    """Also where another client has kept a list at the referrers tag."""
    subject = Manifest.parse(image(repository))
    repository.push_manifest(subject.raw, subject.media_type, tags=["1"])
    target = plain(subject.descriptor(), media_types.OCI_MANIFEST)
    raws = [image(repository, kind, subject=target, artifactType=kind) for kind in ("a/b", "c/d")]
    pushed = [repository.push_manifest(raw, media_types.OCI_MANIFEST) for raw in raws]
    listing = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            {"mediaType": media_types.OCI_MANIFEST, "digest": str(digest), "size": len(raw)}
            for digest, raw in zip(pushed, raws, strict=True)
        ],
        "annotations": {"kept": "by others"},
    }
    tag = f"sha256-{subject.digest.encoded}"
    repository.push_manifest(json.dumps(listing).encode(), media_types.OCI_INDEX, tags=[tag])
    for gone, left in ((pushed[0], pushed[1:]), (pushed[1], [])):
        repository.delete(str(gone))
        assert [entry.digest for entry in repository.referrers(subject.digest)] == left
        kept = repository.pull_manifest(tag)
        assert [entry.digest for entry in kept.manifests] == left
        assert kept.annotations == {"kept": "by others"}


@pytest.mark.peer("docker-registry")
def test_referrers_that_are_added_and_deleted_at_once_are_all_listed_right(
    docker_registry: str, session: Session
) -> None:
    """Of two clients that put the list at the referrers tag at once, one overwrites the other's."""
    repository = session.repository(Reference(docker_registry, f"client/{secrets.token_hex(6)}"))
    subject = Manifest.parse(image(repository))
    repository.push_manifest(subject.raw, subject.media_type, tags=["1"])
    target = plain(subject.descriptor(), media_types.OCI_MANIFEST)

    def attach(number: int) -> Digest:
        raw = image(repository, f"note {number}", subject=target, artifactType="a/b")
        return repository.push_manifest(raw, media_types.OCI_MANIFEST)

    gone = [attach(number) for number in range(2)]
    with ThreadPoolExecutor(6) as pool:
        deleted = [pool.submit(repository.delete, str(digest)) for digest in gone]
        added = {future.result() for future in [pool.submit(attach, number) for number in range(2, 6)]}
        for future in deleted:
            future.result()
    assert {entry.digest for entry in repository.referrers(subject.digest)} == added


def test_a_list_of_referrers_that_others_overwrite_is_an_error(liar: Liar, hostile: Repository) -> None:
    """The tag never shows what was put there."""
    liar.answer = lambda request: Reply(201) if request.method == "PUT" else not_found(request)
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {"mediaType": media_types.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2},
            "layers": [],
            "subject": {"mediaType": media_types.OCI_MANIFEST, "digest": str(Digest.of(b"s")), "size": 1},
        }
    ).encode()
    with (
        patch("digestry.client.referrers._LONGEST_PAUSE", 0.01),
        pytest.raises(ProtocolViolation, match="other clients overwrote it"),
    ):
        hostile.push_manifest(raw, media_types.OCI_MANIFEST)


@pytest.mark.peer("docker-registry")
def test_the_image_at_its_own_referrers_tag_is_no_list(docker_registry: str, session: Session) -> None:
    """``cosign copy`` leaves the image there, an index too, whose images are no referrers of it."""
    repository = session.repository(Reference(docker_registry, f"client/{secrets.token_hex(6)}"))
    child = Manifest.parse(image(repository))
    repository.push_manifest(child.raw, child.media_type)
    entries = [plain(child.descriptor(), child.media_type)]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    whole = Manifest.parse(json.dumps(index).encode())
    for subject in (child, whole):
        tag = f"sha256-{subject.digest.encoded}"
        repository.push_manifest(subject.raw, subject.media_type, tags=[tag])
        assert repository.referrers(subject.digest) == []
        target = plain(subject.descriptor(), subject.media_type)
        with pytest.raises(ProtocolViolation, match="is the image itself"):
            repository.push_manifest(
                image(repository, subject=target, artifactType="a/b"), media_types.OCI_MANIFEST
            )
        assert repository.resolve(tag).digest == subject.digest


def test_a_tag_that_moved_meanwhile_is_not_overwritten(registry: RegistryServer, session: Session) -> None:
    repository = session.repository(Reference(registry.host, f"client/{secrets.token_hex(6)}"))
    raws = [image(repository, note) for note in ("first", "second", "third")]
    first, second = (repository.push_manifest(raw, media_types.OCI_MANIFEST, tags=["1"]) for raw in raws[:2])
    with pytest.raises(Refused) as error:
        repository.push_manifest(raws[2], media_types.OCI_MANIFEST, tags=["1"], replaces=first)
    assert error.value.status == 412
    assert repository.resolve("1").digest == second
    third = repository.push_manifest(raws[2], media_types.OCI_MANIFEST, tags=["1"], replaces=second)
    assert repository.resolve("1").digest == third


# -- what only digestry's registry has --------------------------------------------------------------


@pytest.fixture
def own(registry: RegistryServer, session: Session) -> Repository:
    return session.repository(Reference(registry.host, f"client/{secrets.token_hex(6)}"))


def move(repository: Repository, tag: str, note: str) -> Digest:
    return repository.push_manifest(image(repository, note), media_types.OCI_MANIFEST, tags=[tag])


def test_history_and_journal_agree(own: Repository) -> None:
    first, second = move(own, "1", "first"), move(own, "1", "second")
    move(own, "other", "other")
    own.delete("1")
    third = move(own, "1", "third")
    expected = [
        ("created", None, third),
        ("deleted", second, None),
        ("moved", first, second),
        ("created", None, first),
    ]
    history = own.tag_history("1")
    assert history is not None
    assert [(e.event, e.from_digest, e.to_digest) for e in history] == expected
    journal = own.journal("1")
    assert journal is not None
    assert [(e.event, e.from_digest, e.to_digest) for e in journal] == expected
    assert all(event.client.startswith("digestry/") for event in journal)
    assert [e.at for e in history] == [e.at for e in journal]
    latest = own.journal("1", limit=1)
    assert latest is not None
    assert [e.event for e in latest] == ["created"]
    whole = own.journal()
    assert whole is not None
    assert len(whole) == 5


def test_sha512(own: Repository) -> None:
    content = b"content with a long digest"
    descriptor = push_blob(own, content, "sha512")
    assert own.read_blob(descriptor) == content
    raw = image(own, "long")
    digest = own.push_manifest(raw, media_types.OCI_MANIFEST, tags=["1"], digest=Digest.of(raw, "sha512"))
    assert own.pull_manifest(str(digest)).digest == digest


def test_holders(own: Repository) -> None:
    digest = move(own, "1", "held")
    held = own.holders(digest)
    assert held is not None
    assert [holder.digest for holder in held.holders] == [digest]
    by_config = own.holders(Digest.of(b"{}"))
    assert by_config is not None
    assert digest in [holder.digest for holder in by_config.holders]


@pytest.mark.peer("docker-registry")
def test_a_registry_without_memory(docker_registry: str, session: Session) -> None:
    repository = session.repository(Reference(docker_registry, f"client/{secrets.token_hex(6)}"))
    digest = move(repository, "1", "x")
    assert repository.tag_history("1") is None
    assert repository.journal("1") is None
    assert repository.holders(digest) is None


# -- histories of others, as the draft has them -------------------------------------------------------


def history_page(*events: tuple[str, str, str]) -> bytes:
    entries = [
        {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(Digest.of(content.encode())),
            "size": 3,
            "annotations": {TAG_EVENT: event, TAG_TIMESTAMP: at},
        }
        for event, content, at in events
    ]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
    return json.dumps(index).encode()


def test_a_move_is_one_more_creation_on_the_wire(liar: Liar, hostile: Repository) -> None:
    def answer(request: Request) -> Reply:
        if "before" in request.query:
            return Reply(200, history_page(("created", "a", "2026-01-01T00:00:00Z")))
        page = history_page(
            ("deleted", "b", "2026-01-03T00:00:00Z"), ("created", "b", "2026-01-02T01:00:00+01:00")
        )
        return Reply(200, page, {"Link": '<?before=2>; rel="next"'})

    liar.answer = answer
    events = hostile.tag_history("1")
    assert events is not None
    a, b = Digest.of(b"a"), Digest.of(b"b")
    assert [(e.event, e.from_digest, e.to_digest) for e in events] == [
        ("deleted", b, None),
        ("moved", a, b),
        ("created", None, a),
    ]
    assert events[1].at == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def test_what_a_registry_has_damaged_is_not_what_it_has_not(
    registry: RegistryServer, session: Session
) -> None:
    name = f"client/{secrets.token_hex(6)}"
    layer = secrets.token_bytes(10)
    digest = registry.push_image(name, "1", layer)
    repository = session.repository(Reference(registry.host, name))
    for damaged in (digest, Digest.of(layer)):
        blob_file(registry.root, damaged).write_bytes(b"evil")
    # The manifest is in memory: nobody else has looked at its file yet.
    assert run_digestry("scrub", "--root", registry.root, str(digest)).returncode == 1
    with pytest.raises(RemoteDamaged, match="damaged here"):
        repository.pull_manifest("1")
    with pytest.raises(RemoteDamaged, match="damaged here"):
        repository.pull_manifest(str(digest))
    with pytest.raises(RemoteDamaged, match="damaged here"):
        repository.read_blob(Descriptor(media_types.OCI_LAYER, Digest.of(layer), len(layer)))
    with pytest.raises(RemoteNotFound) as caught:
        repository.pull_manifest("2")
    assert not isinstance(caught.value, RemoteDamaged)
