"""Every kind of image, through every format, with other programs on either end: digests are compared.

``there``: another program writes the format from a registry, and digestry reads it. ``back``: digestry writes
it, and the other program brings it to the registry. What a program cannot do with a kind of image is in
:data:`CANNOT`; it refuses that itself.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import zstandard

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.copy.test_odd_images import Entry, LayoutDirectory, on
from tests.e2e import asking
from tests.e2e.engines import Engine, tar
from tests.e2e.peers import built
from tests.images.making import HOST, OTHER
from tests.support import RegistryServer

pytestmark = pytest.mark.long

_EMPTY: Final = tar({})


class Form(NamedTuple):
    """The media types of a kind of image, and how its layers are compressed."""

    compress: Callable[[bytes], bytes]
    manifest: str = media_types.OCI_MANIFEST
    listing: str = media_types.OCI_INDEX
    config: str = media_types.OCI_CONFIG
    layer: str = media_types.OCI_LAYER_GZIP


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


_OCI: Final = Form(_gzip)
_ZSTD: Final = Form(zstandard.ZstdCompressor().compress, layer=media_types.OCI_LAYER_ZSTD)
_PLAIN: Final = Form(bytes, layer=media_types.OCI_LAYER)
_DOCKER: Final = Form(
    _gzip,
    media_types.DOCKER_MANIFEST,
    media_types.DOCKER_LIST,
    media_types.DOCKER_CONFIG,
    media_types.DOCKER_LAYER_GZIP,
)


def some(mark: str = "") -> bytes:
    """A layer that no other test has."""
    return tar({f"file{mark}": secrets.token_bytes(3000) + b"x" * 30_000})


def image(
    layout: LayoutDirectory,
    layers: Sequence[bytes],
    form: Form = _OCI,
    *,
    architecture: str = HOST.architecture,
    **more: Any,
) -> Entry:
    """Adds an image; returns its descriptor, with its platform."""
    config = {
        "os": HOST.os,
        "architecture": architecture,
        "config": {"Cmd": ["/file"], "Labels": {"made": secrets.token_hex(4)}},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
        },
    }
    document = {
        "schemaVersion": 2,
        "mediaType": form.manifest,
        "config": layout.blob(json.dumps(config).encode(), form.config),
        "layers": [layout.blob(form.compress(one), form.layer) for one in layers],
        **more,
    }
    return layout.blob(json.dumps(document, indent=1).encode(), form.manifest)


def index(layout: LayoutDirectory, *entries: Entry, form: Form = _OCI, **more: Any) -> Entry:
    document = {"schemaVersion": 2, "mediaType": form.listing, "manifests": entries, **more}
    return layout.blob(json.dumps(document, indent=2).encode(), form.listing)


def single(layout: LayoutDirectory) -> Entry:
    return image(layout, [some("a"), some("b")], annotations={"org.example.kept": "ü"})


def layers_again_and_empty(layout: LayoutDirectory) -> Entry:
    twice = some()
    return image(layout, [twice, _EMPTY, some(), twice, _EMPTY])


def zstd(layout: LayoutDirectory) -> Entry:
    return image(layout, [some("a"), some("b")], _ZSTD)


def not_compressed(layout: LayoutDirectory) -> Entry:
    return image(layout, [some()], _PLAIN)


def schema_2(layout: LayoutDirectory) -> Entry:
    return image(layout, [some("a"), some("b")], _DOCKER)


def two_platforms(layout: LayoutDirectory, form: Form = _OCI) -> Entry:
    shared = some()
    return index(
        layout,
        on(image(layout, [shared, some()], form), HOST.architecture),
        on(image(layout, [shared, some()], form, architecture=OTHER.architecture), OTHER.architecture),
        form=form,
    )


def manifest_list(layout: LayoutDirectory) -> Entry:
    return two_platforms(layout, _DOCKER)


def nested(layout: LayoutDirectory) -> Entry:
    other = image(layout, [some()], architecture=OTHER.architecture)
    inner = index(layout, on(other, OTHER.architecture))
    return index(layout, on(image(layout, [some()]), HOST.architecture), inner)


def artifact(layout: LayoutDirectory) -> Entry:
    empty = layout.blob(b"{}", media_types.OCI_EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": "application/x.notes",
        "config": empty,
        "layers": [layout.blob(secrets.token_bytes(100), "text/plain")],
    }
    return layout.blob(json.dumps(document).encode(), media_types.OCI_MANIFEST)


def sha512(layout: LayoutDirectory) -> Entry:
    layout.algorithm = "sha512"
    return image(layout, [some("a"), some("b")])


IMAGES: Final = (single, layers_again_and_empty, zstd, not_compressed, schema_2)
"""Kinds of one image."""
KINDS: Final = (*IMAGES, two_platforms, manifest_list, nested, artifact, sha512)


class Way(NamedTuple):
    """A program and a format. ``out`` writes a place from a registry's image, ``into`` the reverse."""

    place: str
    out: Callable[[Engine, str, str], object]
    into: Callable[[Engine, str, str], object]
    keeps_manifests: bool = True


def path_of(place: str) -> str:
    """The path of ``oci:PATH:TAG``."""
    return place.split(":")[1]


_THERE: Final = ("--src-tls-verify=false", "--all", "--preserve-digests")
_HERE: Final = ("--dest-tls-verify=false", "--all", "--preserve-digests")
_SKOPEO: Final[tuple[Callable[..., object], Callable[..., object]]] = (
    lambda skopeo, name, place: skopeo("copy", *_THERE, f"docker://{name}", place),
    lambda skopeo, place, name: skopeo("copy", *_HERE, place, f"docker://{name}"),
)
WAYS: Final = {
    "skopeo oci": Way("oci:{}/layout:1", *_SKOPEO),
    "skopeo oci-archive": Way("oci-archive:{}/layout.tar:1", *_SKOPEO),
    "skopeo docker-archive": Way(
        "docker-archive:{}/saved.tar:app:1",
        lambda skopeo, name, place: skopeo("copy", "--src-tls-verify=false", f"docker://{name}", place),
        lambda skopeo, place, name: skopeo("copy", "--dest-tls-verify=false", place, f"docker://{name}"),
        keeps_manifests=False,
    ),
    "crane oci": Way(
        "oci:{}/layout",
        lambda crane, name, place: crane("pull", "--format=oci", name, path_of(place)),
        lambda crane, place, name: crane("push", path_of(place), name),
    ),
    "crane docker-archive": Way(
        "docker-archive:{}/saved.tar",
        lambda crane, name, place: crane("pull", "--format=tarball", name, path_of(place)),
        lambda crane, place, name: crane("push", path_of(place), name),
        keeps_manifests=False,
    ),
    "oras oci": Way(
        "oci:{}/layout:1",
        lambda oras, name, place: oras(
            "copy", "--from-plain-http", name, "--to-oci-layout", f"{path_of(place)}:1"
        ),
        lambda oras, place, name: oras(
            "copy", "--from-oci-layout", f"{path_of(place)}:1", "--to-plain-http", name
        ),
    ),
}
CANNOT: Final = {
    ("skopeo", kind): why
    for kinds, why in (
        ((schema_2, manifest_list), "an OCI layout has no manifests of docker's for it"),
        ((nested,), "it does not copy an index in an index"),
        ((sha512,), "it knows sha256 alone"),
    )
    for kind in kinds
} | {
    ("crane", sha512): "it knows sha256 alone",
    ("skopeo docker-archive", zstd): "its docker archives have no zstd; ours it reads (test_copy_formats.py)",
    ("oras oci back", sha512): "it sends no digest with a tag, of which the registry makes one of sha256",
}


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """The program of the way."""
    program = request.node.callspec.params["way"].split()[0]
    if program == "skopeo":
        skopeo: Engine = request.getfixturevalue("skopeo")
        return skopeo
    return Engine((str(built(program)),), {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)})


def pairs() -> list[Any]:
    found = []
    for kind in KINDS:
        for way, about in WAYS.items():
            if {(way.split()[0], kind), (way, kind)} & CANNOT.keys():
                continue
            if kind not in IMAGES and not about.keeps_manifests:
                continue
            found.append(pytest.param(kind, way, id=f"{kind.__name__}-{way.replace(' ', '-')}"))
    return found


@pytest.mark.parametrize(("kind", "way"), pairs())
def test_there_and_back(
    *, tool: Engine, engine: Engine, registry: RegistryServer, repository: str, tmp_path: Path,
    kind: Callable[[LayoutDirectory], Entry], way: str,
) -> None:  # fmt: skip
    about = WAYS[way]
    layout = LayoutDirectory(tmp_path / "made")
    entry = kind(layout)
    layout.name(entry)
    wanted = Digest.parse(entry["digest"])
    base = f"{registry.host}/{repository}"
    tool("copy", f"oci:{layout.path}:1", f"{base}/made:1")
    assert asking.head(registry, f"{repository}/made", "1") == wanted

    def check(name: str) -> None:
        if about.keeps_manifests:
            assert asking.head(registry, f"{repository}/{name}", "1") == wanted
            assert "is valid" in tool("validate", f"{base}/{name}:1")
            return
        configs = [asking.manifest(registry, f"{repository}/{one}", "1")["config"] for one in ("made", name)]
        assert configs[0]["digest"] == configs[1]["digest"]
        assert "is valid" in tool("validate", f"{base}/{name}:1")

    (tmp_path / "theirs").mkdir()
    theirs = about.place.format(tmp_path / "theirs")
    about.out(engine, f"{base}/made:1", theirs)
    tool("copy", theirs, f"{base}/there:1")
    check("there")
    if (f"{way} back", kind) in CANNOT:
        return
    (tmp_path / "ours").mkdir()
    ours = about.place.format(tmp_path / "ours")
    tool("copy", f"{base}/made:1", ours)
    about.into(engine, ours, f"{base}/back:1")
    check("back")


def config_of(registry: RegistryServer, repository: str) -> str:
    return str(asking.manifest(registry, repository, "1")["config"]["digest"])


@pytest.fixture
def made(
    request: pytest.FixtureRequest, tool: Engine, registry: RegistryServer, repository: str, tmp_path: Path
) -> str:
    """The name of an image of the test's kind, in a registry."""
    layout = LayoutDirectory(tmp_path / "made")
    layout.name(request.node.callspec.params["kind"](layout))
    name = f"{registry.host}/{repository}/made:1"
    tool("copy", f"oci:{layout.path}:1", name)
    return name


def called(kind: Callable[[LayoutDirectory], Entry]) -> str:
    return kind.__name__


@pytest.mark.xdist_group("docker")
@pytest.mark.parametrize("kind", [kind for kind in IMAGES if kind is not zstd], ids=called)
def test_docker_has_the_same_image(
    *, tool: Engine, docker: Engine, registry: RegistryServer, repository: str, tmp_path: Path, made: str,
    kind: object,
) -> None:  # fmt: skip
    """An engine keeps no layers as they came: the config's digest is compared. Debian 12's docker takes no
    layers in zstd, which is said."""
    wanted = config_of(registry, f"{repository}/made")
    base = f"{registry.host}/{repository}"
    said = tool.attempt("copy", made, f"docker-archive:{tmp_path}/ours.tar:{base}/loaded:1")
    assert "zstd" not in said.stderr
    docker("load", "--input", tmp_path / "ours.tar")
    assert docker("image", "inspect", "--format={{.Id}}", f"{base}/loaded:1") == wanted
    docker("save", "--output", tmp_path / "theirs.tar", f"{base}/loaded:1")
    tool("copy", f"docker-archive:{tmp_path}/theirs.tar", f"{base}/saved:1")
    assert config_of(registry, f"{repository}/saved") == wanted
    docker("push", "--quiet", f"{base}/loaded:1")
    docker("rmi", "--force", f"{base}/loaded:1")
    assert config_of(registry, f"{repository}/loaded") == wanted
    docker("pull", "--quiet", made)
    assert docker("image", "inspect", "--format={{.Id}}", made) == wanted
    docker("rmi", "--force", made)
    for name in ("saved", "loaded"):
        assert "is valid" in tool("validate", f"{base}/{name}:1")


@pytest.mark.xdist_group("podman")
@pytest.mark.parametrize("program", ["podman", "buildah"])
@pytest.mark.parametrize("kind", IMAGES, ids=called)
def test_podman_and_buildah_have_the_same_image(
    *, request: pytest.FixtureRequest, tool: Engine, registry: RegistryServer, repository: str,
    tmp_path: Path, made: str, kind: object, program: str,
) -> None:  # fmt: skip
    engine: Engine = request.getfixturevalue(program)
    wanted = config_of(registry, f"{repository}/made")
    base = f"{registry.host}/{repository}"
    identity = ""
    # In a layout these find manifests of OCI's types alone.
    forms = ("docker-archive",) if kind is schema_2 else ("oci", "oci-archive", "docker-archive")
    for form in forms:
        (tmp_path / form).mkdir()
        tag = "app:1" if form == "docker-archive" else "1"
        ours, theirs = f"{form}:{tmp_path}/{form}/ours:{tag}", f"{form}:{tmp_path}/{form}/theirs:{tag}"
        tool("copy", made, ours)
        (identity,) = engine("pull", "--quiet", ours).split()
        assert f"sha256:{identity.removeprefix('sha256:')}" == wanted
        engine("push", "--quiet", identity, theirs)
        tool("copy", theirs, f"{base}/{form}:1")
        assert config_of(registry, f"{repository}/{form}") == wanted
        assert "is valid" in tool("validate", f"{base}/{form}:1")
    engine("push", "--quiet", "--tls-verify=false", identity, f"docker://{base}/pushed:1")
    assert config_of(registry, f"{repository}/pushed") == wanted
    engine("rmi", "--force", identity)
    (identity,) = engine("pull", "--quiet", "--tls-verify=false", made).split()
    assert f"sha256:{identity.removeprefix('sha256:')}" == wanted
    engine("rmi", "--force", identity)
