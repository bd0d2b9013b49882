"""``ls``, ``tags`` and ``rm``: what a registry has, ours and others, and deleting tags of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from digestry.cli import exit_codes
from digestry.client.session import Session
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.model.manifest import encode
from digestry.model.reference import Reference
from tests.cli.conftest import Run
from tests.client.docker_registry import running_docker_registry
from tests.client.liar import Liar, Reply, Request, lying
from tests.registry.access.support import guarded, of
from tests.support import RegistryServer


@pytest.fixture(scope="module")
def docker_registry() -> Iterator[str]:
    with running_docker_registry() as host:
        yield host


@pytest.fixture(params=["ours", "docker-registry"])
def host(request: pytest.FixtureRequest, registry: RegistryServer) -> str:
    return registry.host if request.param == "ours" else str(request.getfixturevalue("docker_registry"))


@pytest.fixture
def repository() -> str:
    return f"commands/{secrets.token_hex(6)}"


def push(host: str, repository: str, *tags: str, layer: bytes = b"layer") -> Digest:
    """Pushes a small image under ``tags``."""
    with Session() as session:
        remote = session.repository(Reference(host, repository))
        config = encode(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]},
            }
        )
        from io import BytesIO

        from digestry.model.descriptor import Descriptor

        parts = [
            Descriptor(kind, Digest.of(content), len(content))
            for kind, content in ((media_types.OCI_CONFIG, config), (media_types.OCI_LAYER, layer))
        ]
        for part, content in zip(parts, (config, layer), strict=True):
            remote.push_blob(part, lambda content=content: BytesIO(content))  # type: ignore[misc]
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": parts[0],
            "layers": parts[1:],
        }
        return remote.push_manifest(encode(manifest), media_types.OCI_MANIFEST, tags=tags)


def tags_of(run: Run, name: str) -> list[str]:
    done = run("tags", name, "-q")
    return sorted(done.stdout.split())


# -- ls -------------------------------------------------------------------------------------------


def test_the_repositories_of_a_registry(run: Run, host: str, repository: str) -> None:
    for name in (f"{repository}/b", f"{repository}/a", f"{repository}x"):
        push(host, name, "1")
    listed = run("ls", host).stdout.splitlines()
    assert listed[0] == "REPOSITORY"
    assert {f"{repository}/a", f"{repository}/b", f"{repository}x"} <= set(listed)
    assert run("ls", f"{host}/{repository}").stdout.split()[1:] == [f"{repository}/a", f"{repository}/b"]
    rows = json.loads(run("ls", f"{host}/{repository}", "-n", "1", "--format", "json").stdout)
    assert rows == [{"repository": f"{repository}/a", "registry": host, "name": f"{host}/{repository}/a"}]
    run("config", "set", "registry", host)
    assert f"{repository}/a" in run("ls", "--filter", f"repository={repository}/*").stdout


def test_a_long_list_comes_in_pages(run: Run) -> None:
    names = [f"app{number:04}" for number in range(2500)]

    def answer(request: Request) -> Reply:
        if not request.path.endswith("/_catalog"):
            return Reply(200, b"{}")
        after = names.index(request.query["last"][0]) + 1 if "last" in request.query else 0
        page = names[after : after + 1000]
        more = {"Link": f'</v2/_catalog?n=1000&last={page[-1]}>; rel="next"'} if page[-1] != names[-1] else {}
        return Reply(200, json.dumps({"repositories": page}).encode(), more)

    with lying() as liar:
        liar.answer = answer
        assert run("ls", liar.host, "--format", "{{.Repository}}").stdout.split() == names


@pytest.mark.parametrize(
    ("reply", "status", "said"),
    [
        (
            Reply(200, b'{"repositories":["ok","\\u001b[31m",7,"UPPER"]}'),
            exit_codes.REMOTE,
            "invalid repository",
        ),
        (Reply(200, b"[]"), exit_codes.REMOTE, "not the JSON"),
        (Reply(404, b"{}"), exit_codes.REMOTE, "does not list its repositories"),
        (Reply(401, b"{}"), exit_codes.REMOTE, "digestry login"),
        (
            Reply(200, b'{"repositories":["ok"]}', {"Link": '<http://elsewhere.example/>; rel="next"'}),
            exit_codes.REMOTE,
            "another host",
        ),
    ],
)
def test_odd_lists(run: Run, reply: Reply, status: int, said: str) -> None:
    with lying() as liar:
        liar.answer = lambda request: reply if request.path.endswith("/_catalog") else Reply(200, b"{}")
        done = run("ls", liar.host, status=status)
    assert said in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.long
def test_only_what_a_user_may_see(run: Run) -> None:
    rules = '[[rule]]\nwho = "alice"\nactions = ["admin"]\n[[rule]]\nwho = "bob"\nrepository = "bob/**"\n'
    with guarded(rules + 'actions = ["pull"]\n') as server:
        for name in ("bob/app", "alice/app"):
            assert of(server, "alice").push_image(name, "1").status == 201
        run("ls", server.host, status=exit_codes.REMOTE)
        run("login", "-u", "bob", "--password-stdin", server.host, given="builder")
        assert run("ls", server.host).stdout.split() == ["REPOSITORY", "bob/app"]


# -- tags -----------------------------------------------------------------------------------------


def test_the_tags_of_any_registry(run: Run, host: str, repository: str) -> None:
    digest = push(host, repository, "1", "2")
    other = push(host, repository, "3", layer=b"other")
    rows = json.loads(run("tags", f"{host}/{repository}", "--format", "json", "--sort", "-tag").stdout)
    assert [(row["tag"], row["digest"]) for row in rows] == [
        ("3", str(other)),
        ("2", str(digest)),
        ("1", str(digest)),
    ]
    assert all(row["media_type"] == media_types.OCI_MANIFEST and row["size"] > 100 for row in rows)
    filtered = run("tags", f"{host}/{repository}", "--filter", f"digest={digest}", "--columns", "tag")
    assert sorted(filtered.stdout.split()) == ["1", "2", "TAG"]


# -- rm -------------------------------------------------------------------------------------------


def test_a_tag_is_removed_and_the_digest_stays(run: Run, registry: RegistryServer, repository: str) -> None:
    digest = push(registry.host, repository, "1", "2")
    name = f"{registry.host}/{repository}"
    done = run("rm", f"{name}:1", status=exit_codes.USAGE)
    assert "--yes" in done.stderr
    assert "other tags that point to it: 2" in done.stderr
    dry = json.loads(run("rm", f"{name}:1", "--dry-run", "--format", "json").stdout)
    assert (dry[0]["digest"], dry[0]["other_tags"], dry[0]["deleted"]) == (str(digest), ["2"], None)
    assert tags_of(run, name) == ["1", "2"]
    assert run("rm", f"{name}:1", "--yes").stdout == f"Deleted: {name}:1\n"
    assert tags_of(run, name) == ["2"]
    run("digest", f"{name}@{digest}")
    run("rm", f"{name}:1", "--yes", status=exit_codes.NOT_FOUND)


def test_what_refers_to_the_digest_is_said(run: Run, registry: RegistryServer, repository: str) -> None:
    digest = push(registry.host, repository, "1")
    size = json.loads(run("tags", f"{registry.host}/{repository}", "--format", "json").stdout)[0]["size"]
    child: dict[str, Any] = {"mediaType": media_types.OCI_MANIFEST, "digest": str(digest), "size": size}
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [child]}
    registry.push_manifest(repository, "index", index)
    artifact = registry.image(repository, artifactType="application/x.test", subject=child)
    registry.push_manifest(repository, str(Digest.of(json.dumps(artifact).encode())), artifact)
    said = run("rm", f"{registry.host}/{repository}:1", "--dry-run").stderr
    assert "1 index in the repository list" in said
    assert "1 referrer (" in said
    assert "no other tag points to it" in said


def test_a_digest_is_removed_with_its_tags(run: Run, host: str, repository: str) -> None:
    digest = push(host, repository, "1", "2")
    kept = push(host, repository, "3", layer=b"other")
    name = f"{host}/{repository}"
    refused = run("rm", f"{name}@{digest}", "--yes", status=exit_codes.USAGE)
    assert "deletes its tags too: 1, 2" in refused.stderr
    assert tags_of(run, name) == ["1", "2", "3"]
    run("rm", f"{name}@{digest.encoded[:12]}", "--yes", "--all-tags")
    assert tags_of(run, name) == ["3"]
    assert run("digest", f"{name}:3").stdout.strip() == str(kept)


def test_a_registry_that_deletes_digests_only(run: Run, docker_registry: str, repository: str) -> None:
    push(docker_registry, repository, "1", "2")
    push(docker_registry, repository, "3", layer=b"other")
    name = f"{docker_registry}/{repository}"
    refused = run("rm", f"{name}:1", "--yes", status=exit_codes.USAGE)
    assert "cannot delete a tag alone" in refused.stderr
    assert "beside 1, these: 2" in refused.stderr
    assert tags_of(run, name) == ["1", "2", "3"]
    run("rm", f"{name}:1", "--yes", "--all-tags")
    assert tags_of(run, name) == ["3"]


def test_a_registry_that_deletes_more_than_it_was_asked_to(run: Run) -> None:
    with lying() as liar:
        done = run("rm", deleting_too_much(liar), "--yes", status=exit_codes.REMOTE)
    assert "with all its tags: b" in done.stderr


def deleting_too_much(liar: Liar) -> str:
    """Makes the liar delete a digest that is asked to delete a tag; returns the name of that tag."""
    raw = b'{"schemaVersion":2,"manifests":[]}'
    there = {"a", "b"}

    def answer(request: Request) -> Reply:
        target = request.path.rpartition("/")[2]
        if request.path.endswith("/tags/list"):
            return Reply(200, json.dumps({"tags": sorted(there)}).encode())
        if "/manifests/" not in request.path:
            return Reply(404, b"{}") if "app" in request.path else Reply(200, b"{}")
        if target not in there and ":" not in target:
            return Reply(404, b"{}")
        if request.method == "DELETE":
            there.clear()
            return Reply(202)
        headers = {"Content-Type": media_types.OCI_INDEX, "Docker-Content-Digest": str(Digest.of(raw))}
        return Reply(200, raw, headers)

    liar.answer = answer
    return f"{liar.host}/app:a"


@pytest.mark.parametrize("name", ["app", "app:1@sha256:" + "0" * 64])
def test_what_is_not_a_tag(run: Run, registry: RegistryServer, name: str) -> None:
    assert "is not a tag" in run("rm", f"{registry.host}/{name}", "--yes", status=exit_codes.USAGE).stderr
