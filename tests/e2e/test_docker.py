"""A real docker engine pushes to the registry, pulls from it, and runs what it pulled."""

from __future__ import annotations

import itertools
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from digestry.model import media_types
from tests.e2e import asking
from tests.e2e.engines import Engine, docker_archive, root_file_system, tar
from tests.support import RegistryServer

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.long]

_PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64}) size: \d+")


def build(docker: Engine, name: str, says: str, *more: str) -> str:
    """Builds an image that prints ``says``; returns its ID."""
    lines = ["FROM base:1", "COPY says /says", *more, 'CMD ["cat", "/says"]', "ENV PATH=/bin"]
    context = tar({"Dockerfile": "\n".join(lines).encode(), "says": says.encode()})
    return docker("build", "--quiet", "--network=none", f"--tag={name}", "-", stdin=context)


def push(docker: Engine, name: str) -> str:
    """Pushes; returns the digest that docker says it pushed."""
    said = docker("push", name)
    found = _PUSHED.search(said)
    assert found, said
    return found[1]


def run(docker: Engine, name: str) -> str:
    return docker("run", "--rm", "--network=none", name)


def forget(docker: Engine, *names: str) -> None:
    docker("rmi", "--force", *names)


def digests_of(docker: Engine, name: str) -> list[str]:
    """What ``docker images --digests`` shows for a tag."""
    # With a tag in its argument this docker shows no digest at all.
    repository, _, tag = name.rpartition(":")
    shown = docker("images", "--digests", "--format={{.Tag}} {{.Digest}}", repository)
    rows = [line.split() for line in shown.splitlines()]
    return [digest for row_tag, digest in rows if row_tag == tag]


def test_push_pull_and_run(docker: Engine, registry: RegistryServer, repository: str) -> None:
    name = f"{registry.host}/{repository}:1"
    image_id = build(docker, name, "hello")
    digest = push(docker, name)
    assert str(asking.head(registry, repository, "1")) == digest
    assert digests_of(docker, name) == [digest]
    forget(docker, name)

    docker("pull", name)
    assert run(docker, name) == "hello"
    assert digests_of(docker, name) == [digest]
    assert docker("inspect", "--format={{.Id}}", name) == image_id
    forget(docker, name)

    by_digest = f"{registry.host}/{repository}@{digest}"
    docker("pull", by_digest)
    assert run(docker, by_digest) == "hello"
    assert docker("inspect", "--format={{.Id}}", by_digest) == image_id
    forget(docker, by_digest)


def test_the_image_id_is_the_digest_of_the_config(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    name = f"{registry.host}/{repository}:1"
    image_id = build(docker, name, "config")
    push(docker, name)
    content = asking.manifest(registry, repository, "1")
    assert content["mediaType"] == media_types.DOCKER_MANIFEST
    assert content["config"]["digest"] == image_id
    forget(docker, name)


def test_an_overwritten_tag_still_pulls_by_digest_and_runs(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    name = f"{registry.host}/{repository}:1.5"
    build(docker, name, "vulnerable")
    vulnerable = push(docker, name)
    build(docker, name, "fixed")
    fixed = push(docker, name)
    assert vulnerable != fixed
    forget(docker, name)

    docker("pull", name)
    assert run(docker, name) == "fixed"
    assert digests_of(docker, name) == [fixed]
    old = f"{registry.host}/{repository}@{vulnerable}"
    docker("pull", old)
    assert run(docker, old) == "vulnerable"
    assert asking.moves(registry, repository, "1.5") == [
        ("created", None, vulnerable),
        ("moved", vulnerable, fixed),
    ]
    forget(docker, name, old)


def test_an_unchanged_image_writes_no_event(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    name = f"{registry.host}/{repository}:1"
    build(docker, name, "unchanged")
    first = push(docker, name)
    said = docker("push", name)
    assert "Layer already exists" in said
    assert push(docker, name) == first
    forget(docker, name)
    docker("pull", name)  # and by an engine that only knows it from a pull
    assert push(docker, name) == first
    assert asking.moves(registry, repository, "1") == [("created", None, first)]
    forget(docker, name)


def test_the_journal_knows_who_pushed(docker: Engine, registry: RegistryServer, repository: str) -> None:
    name = f"{registry.host}/{repository}:1"
    build(docker, name, "who")
    digest = push(docker, name)
    (entry,) = asking.journal(registry, repository)
    assert entry["toDigest"] == digest
    assert entry["address"] == "127.0.0.1"
    assert entry["client"].startswith("docker/")
    forget(docker, name)


def test_two_tags_of_one_image(docker: Engine, registry: RegistryServer, repository: str) -> None:
    base = f"{registry.host}/{repository}"
    build(docker, f"{base}:1", "both")
    docker("tag", f"{base}:1", f"{base}:latest")
    docker("push", "--all-tags", base)
    assert asking.head(registry, repository, "1") == asking.head(registry, repository, "latest")
    assert {entry["tag"] for entry in asking.journal(registry, repository)} == {"1", "latest"}
    forget(docker, f"{base}:1", f"{base}:latest")


def test_a_push_to_another_repository_mounts(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    first, second = f"{registry.host}/{repository}/a:1", f"{registry.host}/{repository}/b:1"
    build(docker, first, "mounted")
    digest = push(docker, first)
    content = asking.manifest(registry, f"{repository}/a", "1")
    files = {
        path: path.stat().st_ino
        for layer in content["layers"]
        if (path := registry.root / "blobs" / layer["digest"].replace(":", "/"))
        and (registry.root / "blobs").is_dir()  # else its content is in a store
    }
    docker("tag", first, second)
    said = docker("push", second)
    assert said.count(f"Mounted from {repository}/a") == len(content["layers"])
    assert str(asking.head(registry, f"{repository}/b", "1")) == digest
    # A second upload would have put another file in its place.
    assert {path: path.stat().st_ino for path in files} == files
    forget(docker, first, second)
    docker("pull", second)
    assert run(docker, second) == "mounted"
    forget(docker, second)


def test_a_large_layer(docker: Engine, registry: RegistryServer, repository: str) -> None:
    name = f"{registry.host}/{repository}:1"
    noise = random.Random(5).randbytes(1 << 20)
    # 100 MB on the wire: each MB differs, and none can be compressed.
    large = b"".join(bytes([number]) + noise[number:] + noise[:number] for number in range(100))
    docker("load", stdin=docker_archive(name, [root_file_system(large=large)], "ls", "-l", "/large"))
    image_id = docker("inspect", "--format={{.Id}}", name)
    digest = push(docker, name)
    (layer,) = asking.manifest(registry, repository, "1")["layers"]
    assert layer["size"] > 100 << 20
    forget(docker, name)
    docker("pull", f"{registry.host}/{repository}@{digest}")
    pulled = f"{registry.host}/{repository}@{digest}"
    assert str(len(large)) in run(docker, pulled)
    assert docker("inspect", "--format={{.Id}}", pulled) == image_id
    forget(docker, pulled)


def test_many_layers(docker: Engine, registry: RegistryServer, repository: str) -> None:
    name = f"{registry.host}/{repository}:1"
    layers = [root_file_system(), *(tar({f"layer{number}": b"%d" % number}) for number in range(39))]
    docker("load", stdin=docker_archive(name, layers, "cat", "/layer0", "/layer38"))
    digest = push(docker, name)
    content = asking.manifest(registry, repository, digest)
    assert len(content["layers"]) == 40
    forget(docker, name)
    docker("pull", name)
    assert run(docker, name) == "038"
    forget(docker, name)


def test_concurrent_pushes_of_images_that_share_layers(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    shared = [root_file_system(shared=b"x" * 3_000_000), tar({"more": b"shared too"})]
    # Two tags of each of three repositories, so that uploads, mounts and tags of one repository meet.
    names = [f"{registry.host}/{repository}/{number // 2}:{number % 2}" for number in range(6)]
    for number, name in enumerate(names):
        own = tar({"own": b"%d" % number})
        docker("load", stdin=docker_archive(name, [*shared, own], "cat", "/own"))
    with ThreadPoolExecutor(len(names)) as pool:
        digests = list(pool.map(lambda name: push(docker, name), names))
    assert len(set(digests)) == len(names)
    forget(docker, *names)
    for number, (name, digest) in enumerate(zip(names, digests, strict=True)):
        docker("pull", name)
        assert digests_of(docker, name) == [digest]
        assert run(docker, name) == str(number)
    forget(docker, *names)


def test_a_tag_that_moves_often_has_a_whole_chain(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    local = [f"{repository}-{number}:1" for number in range(4)]
    for number, name in enumerate(local):
        layers = [root_file_system(), tar({"own": b"tag %d" % number})]
        docker("load", stdin=docker_archive(name, layers, "cat", "/own"))
    target = f"{registry.host}/{repository}:moving"
    pushed = []
    for name in local:
        docker("tag", name, target)
        pushed.append(push(docker, target))
    assert asking.moves(registry, repository, "moving") == [
        ("created", None, pushed[0]),
        *(("moved", old, new) for old, new in itertools.pairwise(pushed)),
    ]
    forget(docker, *local, target)


def test_a_manifest_list(docker: Engine, registry: RegistryServer, repository: str) -> None:
    base = f"{registry.host}/{repository}"
    for architecture in ("amd64", "arm64"):
        layers = [root_file_system(says=architecture.encode())]
        archive = docker_archive(f"{base}:{architecture}", layers, "cat", "/says", architecture=architecture)
        docker("load", stdin=archive)
        push(docker, f"{base}:{architecture}")
    for target in (base, f"{base}/elsewhere"):  # the second one has to mount all it lists
        docker("manifest", "create", "--insecure", f"{target}:1", f"{base}:amd64", f"{base}:arm64")
        digest = docker("manifest", "push", "--insecure", "--purge", f"{target}:1").split()[-1]
        name = target.removeprefix(f"{registry.host}/")
        assert str(asking.head(registry, name, "1")) == digest
        content = asking.manifest(registry, name, "1")
        assert content["mediaType"] == media_types.DOCKER_LIST
        assert [entry["platform"]["architecture"] for entry in content["manifests"]] == ["amd64", "arm64"]
        seen = docker.json("manifest", "inspect", "--insecure", f"{target}:1")
        assert seen == content
        docker("pull", "--platform=linux/amd64", f"{target}:1")
        assert run(docker, f"{target}:1") == "amd64"
        assert digest in digests_of(docker, f"{target}:1")
        docker("pull", "--platform=linux/arm64", f"{target}:1")
        assert docker("inspect", "--format={{.Architecture}}", f"{target}:1") == "arm64"
        forget(docker, f"{target}:1")
    forget(docker, f"{base}:amd64", f"{base}:arm64")


def test_what_is_not_there_is_said_in_words(
    docker: Engine, registry: RegistryServer, repository: str
) -> None:
    missing = docker.attempt("pull", f"{registry.host}/{repository}:1")
    assert missing.returncode != 0
    assert "not known to this registry" in missing.stderr or "not found" in missing.stderr
    name = f"{registry.host}/{repository}:1"
    build(docker, name, "there")
    push(docker, name)
    missing = docker.attempt("pull", f"{registry.host}/{repository}:2")
    assert "manifest unknown" in missing.stderr or "not found" in missing.stderr
    zeros = "0" * 64
    missing = docker.attempt("pull", f"{registry.host}/{repository}@sha256:{zeros}")
    assert missing.returncode != 0
    forget(docker, name)


def test_a_layer_that_was_damaged_on_the_disk_is_refused(
    docker: Engine, registry_on_disk: RegistryServer, repository: str
) -> None:
    registry = registry_on_disk
    name = f"{registry.host}/{repository}:1"
    layers = [root_file_system(noise=os.urandom(200_000)), tar({"small": os.urandom(50)})]
    docker("load", stdin=docker_archive(name, layers, "cat", "/small"))
    push(docker, name)
    large, small = asking.manifest(registry, repository, "1")["layers"]
    forget(docker, name)
    path = registry.root / "blobs" / large["digest"].replace(":", "/")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] + b"!" + whole[-19:])  # sent as a file: it is docker that finds it
    refused = docker.attempt("pull", name)
    assert refused.returncode != 0
    assert "verification failed" in refused.stderr
    assert digests_of(docker, name) == []
    path.write_bytes(whole)

    path = registry.root / "blobs" / small["digest"].replace(":", "/")
    whole = path.read_bytes()
    path.write_bytes(b"!" + whole[1:])  # sent from memory: the registry finds it
    answer = registry.request("GET", f"/v2/{repository}/blobs/{small['digest']}")
    assert answer.status == 404
    assert "damaged" in answer.body.decode()
    assert str(registry.root) not in answer.body.decode()
    refused = docker.attempt("pull", name)
    assert refused.returncode != 0

    # The same image again: docker finds the layer missing, and sends it.
    docker("load", stdin=docker_archive(name, layers, "cat", "/small"))
    assert "Layer already exists" in docker("push", name)
    assert path.read_bytes() == whole
    forget(docker, name)
    docker("pull", name)
    forget(docker, name)
