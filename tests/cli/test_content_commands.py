"""``manifest``, ``blob``, ``referrers``, ``history`` and ``validate``."""

from __future__ import annotations

import gzip
import io
import json
import secrets
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from digestry.cli import exit_codes
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.cli.conftest import Run
from tests.support import RegistryServer, descriptor


@pytest.fixture(params=["ours", "docker-registry"])
def name(request: pytest.FixtureRequest, registry: RegistryServer) -> str:
    """A repository of a registry."""
    host = registry.host if request.param == "ours" else request.getfixturevalue("docker_registry")
    return f"{host}/content/{secrets.token_hex(6)}"


def archive(files: Mapping[str, bytes]) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as made:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                made.addfile(entry, io.BytesIO(content))
        return file.getvalue()


class Image:
    """A small image of two layers, put together with the commands."""

    def __init__(self, run: Run, directory: Path, name: str, **config: Any) -> None:
        self.run, self.directory, self.name = run, directory, name
        self.archives = [archive({"a": b"one"}), archive({"b": b"two", "c": b"three"})]
        self.layers = [gzip.compress(content, mtime=0) for content in self.archives]
        self.config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(one)) for one in self.archives]},
            "history": [
                {"created": "2026-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:a in /"},
                {"created_by": "ENV A=\x1b[31mred", "empty_layer": True},
                {"created": "2026-01-02T00:00:00Z", "created_by": "RUN make" + " everything" * 20},
            ],
            **config,
        }

    def put_blob(self, content: bytes) -> str:
        file = self.directory / "blob"
        file.write_bytes(content)
        digest = self.run("blob", "put", self.name, file).stdout.strip()
        assert digest == str(Digest.of(content))
        return digest

    def push(self, tag: str = "1", **changes: Any) -> str:
        config = json.dumps(self.config).encode()
        for content in (config, *self.layers):
            self.put_blob(content)
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config)),
            "layers": [descriptor(media_types.OCI_LAYER_GZIP, Digest.of(x), len(x)) for x in self.layers],
            "x-unknown": {"kept": 1.5},
            **changes,
        }
        return self.put(tag, document)

    def put(self, tag: str, document: Mapping[str, Any]) -> str:
        file = self.directory / "manifest"
        file.write_text(json.dumps(document))
        return self.run("manifest", "put", f"{self.name}:{tag}", file).stdout.strip()


@pytest.fixture
def image(run: Run, tmp_path: Path, name: str) -> Image:
    return Image(run, tmp_path, name)


# -- manifest -------------------------------------------------------------------------------------


def test_a_manifest_goes_and_comes_as_it_is(image: Image, run: Run, tmp_path: Path) -> None:
    digest = image.push()
    raw = (tmp_path / "manifest").read_text()
    assert run("digest", f"{image.name}:1").stdout.strip() == digest
    assert run("manifest", "get", f"{image.name}:1").stdout == raw
    assert run("manifest", "get", f"{image.name}@{digest[7:19]}").stdout == raw
    run("manifest", "get", f"{image.name}@{digest}", "-o", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == raw
    again = run("manifest", "put", f"{image.name}:2", given=raw)
    assert again.stdout.strip() == digest
    assert run("manifest", "put", f"{image.name}@{digest}", given=raw).stdout.strip() == digest
    wrong = f"{image.name}@sha256:{'0' * 64}"
    run("manifest", "put", wrong, given=raw, status=exit_codes.CONTENT)


@pytest.mark.parametrize("raw", ["", "{", "[]", '{"schemaVersion":2}', '{"schemaVersion":1,"fsLayers":[]}'])
def test_what_is_no_manifest_is_not_put(run: Run, registry: RegistryServer, raw: str) -> None:
    run("manifest", "put", f"{registry.host}/content/odd:1", given=raw, status=exit_codes.USAGE)


def test_a_manifest_of_the_local_store(image: Image, run: Run, tmp_path: Path) -> None:
    digest = image.push()
    run("pull", f"{image.name}:1", "--platform", "linux/amd64", "-q")
    raw = run("manifest", "get", "--local", f"{image.name}:1").stdout
    assert str(Digest.of(raw.encode())) == digest
    made = run("manifest", "annotate", "--local", f"{image.name}:1", "--annotation", "a=b", "-t", "local:2")
    new = made.stdout.strip()
    assert json.loads(run("manifest", "get", "--local", "local:2").stdout)["annotations"] == {"a": "b"}
    assert run("digest", "--local", "local:2").stdout.strip() == new
    assert run("digest", "--local", f"{image.name}:1").stdout.strip() == digest


def test_annotations(image: Image, run: Run) -> None:
    digest = image.push(annotations={"old": "1", "kept": "2"})
    before = json.loads(run("manifest", "get", f"{image.name}:1").stdout)
    done = run(
        *("manifest", "annotate", f"{image.name}:1", "--annotation", "a=b=c"),
        *("--annotation", "e=", "--remove-annotation", "old"),
    )
    assert f"pointed to {digest} before" in done.stderr
    after = json.loads(run("manifest", "get", f"{image.name}@{done.stdout.strip()}").stdout)
    assert after == {**before, "annotations": {"kept": "2", "a": "b=c", "e": ""}}
    assert run("digest", f"{image.name}:1").stdout == done.stdout
    other = run(
        "manifest", "annotate", f"{image.name}@{digest}", "--annotation", "x=y", "-t", f"{image.name}:x"
    )
    assert run("digest", f"{image.name}:x").stdout == other.stdout


def test_an_entry_of_an_index(image: Image, run: Run) -> None:
    digest = image.push()
    size = len(run("manifest", "get", f"{image.name}:1").stdout)
    entry = descriptor(
        media_types.OCI_MANIFEST,
        Digest.parse(digest),
        size,
        platform={"os": "linux", "architecture": "amd64"},
        **{"x-odd": [1]},
    )
    image.put("index", {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry]})
    name = f"{image.name}:index"
    run(
        *("manifest", "annotate", name, "--entry", "linux/amd64", "--annotation", "a=b"),
        *("--set-platform", "linux/arm64"),
    )
    index = json.loads(run("manifest", "get", name).stdout)
    assert index["manifests"] == [
        {**entry, "annotations": {"a": "b"}, "platform": {"architecture": "arm64", "os": "linux"}}
    ]
    assert "annotations" not in index
    run("manifest", "annotate", name, "--entry", digest[7:16], "--remove-annotation", "a")
    missing = run(
        *("manifest", "annotate", name, "--entry", "linux/s390x", "--annotation", "a=b"),
        status=exit_codes.NOT_FOUND,
    )
    assert "linux/arm64" in missing.stderr
    assert json.loads(run("manifest", "get", name, "--platform", "linux/arm64").stdout)["layers"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--annotation", "x"],
        ["--annotation", "=x"],
        ["--set-platform", "linux/arm64"],
        ["--entry", "linux/arm64"],
    ],
)
def test_what_cannot_be_annotated(run: Run, registry: RegistryServer, options: list[str]) -> None:
    run("manifest", "annotate", f"{registry.host}/content/any:1", *options, status=exit_codes.USAGE)


# -- blob -----------------------------------------------------------------------------------------


def test_a_blob_goes_and_comes(image: Image, run: Run, tmp_path: Path) -> None:
    content = secrets.token_bytes(3_000_000)
    digest = image.put_blob(content)
    run("blob", "get", f"{image.name}@{digest}", "-o", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert "had it already" in run("blob", "put", image.name, tmp_path / "copy").stderr
    text = run("blob", "put", image.name, given="some text").stdout.strip()
    assert run("blob", "get", f"{image.name}@{text}").stdout == "some text"
    missing = f"{image.name}@sha256:{'0' * 64}"
    run("blob", "get", missing, "-o", tmp_path / "none", status=exit_codes.NOT_FOUND)
    assert not (tmp_path / "none").exists()


def test_a_blob_of_the_local_store(image: Image, run: Run) -> None:
    image.push()
    run("pull", f"{image.name}:1", "--platform", "linux/amd64", "-q")
    config = json.loads(run("manifest", "get", "--local", f"{image.name}:1").stdout)["config"]["digest"]
    assert json.loads(run("blob", "get", "--local", config).stdout)["os"] == "linux"


# -- referrers ------------------------------------------------------------------------------------


def test_what_refers_to_an_image(image: Image, run: Run) -> None:
    digest = image.push()
    subject = descriptor(
        media_types.OCI_MANIFEST, Digest.parse(digest), len(run("manifest", "get", f"{image.name}:1").stdout)
    )
    created = {
        "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
        "dev.sigstore.bundle.predicateType": "https://openvex.dev/ns",
    }
    artifact = image.push(
        "a", subject=subject, artifactType="application/x.\x1f".strip("\x1f"), annotations=created
    )
    image.push("b", subject=subject, artifactType="application/y.test")
    run("manifest", "put", f"{image.name}:sha256-{digest[7:]}.sig", image.directory / "manifest")
    rows = json.loads(
        run("referrers", f"{image.name}:1", "--format", "json", "--sort", "artifact_type").stdout
    )
    assert [row["artifact_type"] for row in rows] == ["application/x.", "application/y.test", None]
    assert (rows[0]["digest"], rows[0]["created_at"]) == (artifact, "2026-01-01T00:00:00Z")
    assert rows[0]["annotations"] == created
    assert [row["predicate_type"] for row in rows] == ["https://openvex.dev/ns", None, None]
    assert rows[2]["tag"] == f"sha256-{digest[7:]}.sig"
    only = run("referrers", f"{image.name}:1", "--artifact-type", "application/x.", "--format", "{{.Digest}}")
    assert only.stdout.strip() == artifact


# -- history --------------------------------------------------------------------------------------


def test_the_steps_of_an_image(image: Image, run: Run) -> None:
    image.push()
    rows = json.loads(run("history", f"{image.name}:1", "--format", "json").stdout)
    assert [row["digest"] for row in rows] == [
        str(Digest.of(image.layers[1])),
        None,
        str(Digest.of(image.layers[0])),
    ]
    assert [row["size"] for row in rows] == [len(image.layers[1]), 0, len(image.layers[0])]
    assert rows[0]["diff_id"] == str(Digest.of(image.archives[1]))
    shown = run("history", f"{image.name}:1").stdout
    assert "\x1b" not in shown
    assert "RUN make everything" in shown
    assert "…" in shown
    assert " everything" * 20 in run("history", f"{image.name}:1", "--no-trunc").stdout
    run("pull", f"{image.name}:1", "--platform", "linux/amd64", "-q")
    assert json.loads(run("history", f"{image.name}:1", "--format", "json").stdout) == rows


def test_an_image_with_a_wrong_history(image: Image, run: Run) -> None:
    image.config["history"] = [{"created_by": "x"}] * 3
    image.push()
    assert len(json.loads(run("history", f"{image.name}:1", "--format", "json").stdout)) == 3
    image.config["history"] = None
    image.push()
    assert len(json.loads(run("history", f"{image.name}:1", "--format", "json").stdout)) == 2


# -- validate -------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_valid_image(image: Image, run: Run) -> None:
    image.push()
    done = run("validate", f"{image.name}:1", "-q")
    assert done.stdout.startswith(f"{image.name}:1 is valid: 1 manifest and 3 blobs were read")
    run("pull", f"{image.name}:1", "--platform", "linux/amd64", "-q")
    found = json.loads(run("validate", "--local", f"{image.name}:1", "--format", "json").stdout)
    assert found["valid"] is True
    assert (found["manifests"], found["blobs"], found["problems"]) == (1, 3, [])
    assert found["bytes"] > sum(map(len, image.layers))
    fast = json.loads(run("validate", "--fast", f"{image.name}:1", "--format", "json").stdout)
    assert (fast["blobs"], len(fast["not_checked"])) == (1, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": []}}, "0 diff_ids for 2 layers"),
        ({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{'1' * 64}"] * 2}}, "hashes to"),
        ({"rootfs": {"type": "odd", "diff_ids": []}}, "type of its rootfs"),
        ({"history": [{"created_by": "x"}]}, "1 steps with a layer"),
        ({"os": 5}, "not valid"),
    ],
)
def test_a_wrong_config(
    run: Run, tmp_path: Path, registry: RegistryServer, change: Mapping[str, Any], said: str
) -> None:
    image = Image(run, tmp_path, f"{registry.host}/content/{secrets.token_hex(6)}", **change)
    image.push()
    done = run("validate", f"{image.name}:1", "--format", "json", status=exit_codes.FINDINGS)
    found = json.loads(done.stdout)
    assert any(said in one["problem"] for one in found["problems"]), found
    assert found["valid"] is False


def test_damage_in_the_local_store(image: Image, run: Run, tmp_path: Path) -> None:
    image.push()
    run("pull", f"{image.name}:1", "--platform", "linux/amd64", "-q")
    blobs = tmp_path / "home" / "images" / "blobs" / "sha256"
    damaged = blobs / Digest.of(image.layers[0]).encoded
    damaged.chmod(0o644)
    damaged.write_bytes(image.layers[0][:-1] + b"x")
    gone = blobs / Digest.of(image.layers[1]).encoded
    gone.unlink()
    done = run("validate", "--local", f"{image.name}:1", status=exit_codes.FINDINGS)
    assert f"layer sha256:{damaged.name}" in done.stdout
    assert f"layer sha256:{gone.name}" in done.stdout
    assert "has 2 problems" in done.stdout


@pytest.mark.long
def test_an_index_that_lies(image: Image, run: Run) -> None:
    digest = image.push()
    size = len(run("manifest", "get", f"{image.name}:1").stdout)
    entry = descriptor(
        media_types.OCI_MANIFEST,
        Digest.parse(digest),
        size + 1,
        platform={"os": "linux", "architecture": "arm64"},
    )
    image.put("index", {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [entry]})
    done = run("validate", f"{image.name}:index", status=exit_codes.FINDINGS)
    assert f"it has {size} bytes, and is listed with {size + 1}" in done.stdout
    assert "it is for linux/amd64, and its index lists it for linux/arm64" in done.stdout


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ("oci:backup:1", "oci: names a place for copy and sync"),
        ("docker-archive:saved.tar:app:1", "docker-archive: names a place for copy and sync"),
        ("local:app:1", "write app:1, with --local"),
        ("app:1:2", "letters, digits"),
    ],
)
def test_a_place_is_no_name(run: Run, place: str, hint: str) -> None:
    said = run("validate", place, status=exit_codes.USAGE).stderr
    assert hint in said
