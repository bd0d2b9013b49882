"""What changed between two images: their configs, layers and platforms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from digestry.errors import InvalidConfiguration, NotFound
from digestry.model import media_types
from digestry.model.config_comparison import ItemChanges, SettingChange, TextChange, VariableChange
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.image_comparison import ComparedContent, Comparison, ImageChanges, compare
from digestry.model.layer_comparison import BASE_DIGEST
from digestry.model.manifest import Image, Index, parse_manifest
from digestry.model.platform import Platform

Document = dict[str, Any]


class Place:
    """Content in memory, in which images are made."""

    def __init__(self) -> None:
        self.content: dict[Digest, bytes] = {}

    def manifest(self, descriptor: Descriptor) -> Image | Index:
        return parse_manifest(self.read_blob(descriptor))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        try:
            return self.content[descriptor.digest]
        except KeyError:
            raise NotFound(f"{descriptor.digest} is not here") from None

    def put(self, raw: bytes) -> Digest:
        digest = Digest.of(raw)
        self.content[digest] = raw
        return digest

    def image(
        self,
        *layers: str,
        settings: Document | None = None,
        history: list[Document] | None = None,
        annotations: dict[str, str] | None = None,
        architecture: str = "amd64",
        packed: str = "",
    ) -> Image:
        config = json.dumps({
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer.encode())) for layer in layers]},
            "history": history,
        }).encode()  # fmt: skip
        raw = json.dumps({
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": {
                "mediaType": media_types.OCI_CONFIG,
                "digest": str(self.put(config)),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": media_types.OCI_LAYER_GZIP,
                    "digest": str(Digest.of(f"{packed}gzip {layer}".encode())),
                    "size": 100 * len(layer),
                }
                for layer in layers
            ],
            "annotations": annotations or {},
        }).encode()  # fmt: skip
        self.put(raw)
        return Image.parse(raw)

    def index(self, *entries: tuple[str, Image], **more: Any) -> Index:
        raw = json.dumps({
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [
                {
                    "mediaType": image.media_type,
                    "digest": str(image.digest),
                    "size": image.size,
                    "platform": dict(zip(("os", "architecture", "variant"), name.split("/"), strict=False)),
                }
                for name, image in entries
            ],
            **more,
        }).encode()  # fmt: skip
        self.put(raw)
        return Index.parse(raw)

    def compare(self, old: Image | Index, new: Image | Index, platform: str | None = None) -> Comparison:
        preferred = Platform("amd64", "linux")
        return compare(
            ComparedContent(old, self), ComparedContent(new, self), platform=platform, preferred=preferred
        )

    def changes(self, old: Image | Index, new: Image | Index, platform: str | None = None) -> ImageChanges:
        found = self.compare(old, new, platform)
        assert found.image is not None, found.problem
        return found.image


@pytest.fixture
def place() -> Place:
    return Place()


def test_settings_and_collections(place: Place) -> None:
    old = place.image(
        settings={
            "Entrypoint": ["/app"],
            "Cmd": ["serve"],
            "User": "root",
            "WorkingDir": "/",
            "Env": ["PATH=/bin", "MODE=a", "GONE=1", "DB_PASSWORD=x", "TWICE=1", "TWICE=2"],
            "Labels": {"version": "1", "same": "yes"},
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Volumes": {"/data": {}},
            "Unknown": {"kept": True},
        }
    )
    new = place.image(
        settings={
            "Entrypoint": ["/app"],
            "Cmd": ["serve", "--fast"],
            "User": "1000",
            "Healthcheck": {"Test": ["CMD", "true"]},
            "Env": ["PATH=/bin", "MODE=b=c", "DB_PASSWORD=y", "TWICE=2", "API_TOKEN=t"],
            "Labels": {"version": "2", "same": "yes"},
            "ExposedPorts": {"443/tcp": {}, "8080/tcp": {}},
            "Unknown": {"kept": False},
        }
    )
    config = place.changes(old, new).config
    assert config is not None
    assert config.settings == (
        SettingChange("Cmd", ["serve"], ["serve", "--fast"]),
        SettingChange("Healthcheck", None, {"Test": ["CMD", "true"]}),
        SettingChange("Unknown", {"kept": True}, {"kept": False}),
        SettingChange("User", "root", "1000"),
        SettingChange("WorkingDir", "/", None),
    )
    assert config.environment == (
        VariableChange("API_TOKEN", None, "t", secret=True),
        VariableChange("DB_PASSWORD", "x", "y", secret=True),
        VariableChange("GONE", "1", None, secret=False),
        VariableChange("MODE", "a", "b=c", secret=False),
    )
    assert config.labels == (TextChange("version", "1", "2"),)
    assert config.exposed_ports == ItemChanges(("80/tcp",), ("8080/tcp",))
    assert config.volumes == ItemChanges(("/data",), ())


@pytest.mark.parametrize("empty", [None, "", [], {}, False])
def test_what_is_empty_is_not_set(place: Place, empty: object) -> None:
    config = place.changes(place.image(settings={"Cmd": empty}), place.image(settings={})).config
    assert config is not None
    assert config.settings == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"Env": "PATH=/bin"},
        {"Env": [1, None, {"a": 1}, "=nothing"]},
        {"Labels": ["a"]},
        {"Labels": {"a": None}},
        {"ExposedPorts": ["80"], "Volumes": 1},
    ],
)
def test_odd_settings_are_no_error(place: Place, settings: Document) -> None:
    config = place.changes(place.image("a"), place.image("b", settings=settings)).config
    assert config is not None
    assert config.environment == ()
    assert config.exposed_ports == config.volumes == ItemChanges()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("POSTGRES_PASSWORD", True),
        ("aws_secret_access_key", True),
        ("GITHUB_TOKEN", True),
        ("PGPASSFILE", False),
        ("GPG_KEY", False),
        ("PWD", True),
        ("AUTHOR", False),
        ("PATH", False),
    ],
)
def test_variables_that_look_secret(place: Place, name: str, secret: bool) -> None:
    config = place.changes(place.image(), place.image(settings={"Env": [f"{name}=value"]})).config
    assert config is not None
    assert config.environment == (VariableChange(name, None, "value", secret),)


def test_build_steps(place: Place) -> None:
    def steps(*commands: str) -> list[Document]:
        return [
            {"created": f"2026-01-0{n + 1}T00:00:00Z", "created_by": text} for n, text in enumerate(commands)
        ]

    old = place.image(history=steps("FROM", "apt", "COPY a", "CMD"))
    new = place.image(history=steps("FROM", "COPY b", "RUN", "CMD"))
    config = place.changes(old, new).config
    assert config is not None
    assert [step.created_by for step in config.history.removed] == ["apt", "COPY a"]
    assert [step.created_by for step in config.history.added] == ["COPY b", "RUN"]
    assert config.history.common == 2
    # A step that is there once more is added once.
    config = place.changes(
        place.image(history=steps("a", "a")), place.image(history=steps("a" * 1, "a", "a"))
    ).config
    assert config is not None
    assert (config.history.common, len(config.history.added), config.history.removed) == (2, 1, ())


def test_layers(place: Place) -> None:
    old = place.image("base", "app one", "data", history=[{"created_by": "FROM"}] * 3)
    new = place.image("base", "app two!", "data", "more")
    layers = place.changes(old, new).layers
    assert [layer.size for layer in layers.shared] == [400, 400]
    assert [layer.size for layer in layers.removed] == [700]
    assert [layer.size for layer in layers.added] == [800, 400]
    assert (layers.shared_size, layers.removed_size, layers.added_size) == (800, 700, 1200)
    assert layers.removed[0].created_by == "FROM"
    assert layers.added[0].created_by is None
    assert layers.added[0].diff_id == Digest.of(b"app two!")
    assert not layers.reordered
    assert place.changes(old, place.image("data", "base")).layers.reordered


def test_a_layer_that_is_there_twice_counts_twice(place: Place) -> None:
    layers = place.changes(place.image("a", "a", "b"), place.image("a", "b")).layers
    assert (len(layers.shared), len(layers.removed), layers.added) == (2, 1, ())


def test_a_layer_that_is_compressed_anew(place: Place) -> None:
    old, new = place.image("base", "base", "app"), place.image("base", "base", "tool", packed="another ")
    layers = place.changes(old, new).layers
    assert [pair.old.diff_id for pair in layers.recompressed] == [Digest.of(b"base")] * 2
    assert (len(layers.removed), len(layers.added), layers.shared) == (1, 1, ())


@pytest.mark.parametrize(
    ("layers", "stated", "verdict", "common"),
    [
        ((["base", "a"], ["base", "b"]), (None, None), "likely same", 1),
        ((["base", "a"], ["other", "b"]), (None, None), "different", 0),
        ((["base", "a"], ["base", "b"]), ("x", "x"), "same", 1),
        ((["base", "a"], ["base", "b"]), ("x", "y"), "different", 1),
        ((["base", "a"], ["base", "b"]), ("x", None), "likely same", 1),
        ((["base", "a"], ["other", "b"]), ("x", "x"), "different", 0),
        (([], ["other"]), (None, None), "unknown", 0),
        (([], []), ("x", "x"), "same", 0),
    ],
)
def test_the_base(
    place: Place,
    layers: tuple[list[str], list[str]],
    stated: tuple[str | None, str | None],
    verdict: str,
    common: int,
) -> None:
    old, new = (
        place.image(*names, annotations={} if text is None else {BASE_DIGEST: str(Digest.of(text.encode()))})
        for names, text in zip(layers, stated, strict=True)
    )
    base = place.changes(old, new).base
    assert (base.verdict, base.common_layers) == (verdict, common)


def test_a_base_that_is_no_digest_is_none(place: Place) -> None:
    base = place.changes(place.image("a", annotations={BASE_DIGEST: "<script>"}), place.image("a")).base
    assert (base.old, base.verdict) == (None, "likely same")


def test_platforms_of_indexes(place: Place) -> None:
    first, second, third = place.image("a"), place.image("b"), place.image("c", architecture="arm64")
    old = place.index(("linux/amd64", first), ("linux/s390x", first), ("unknown/unknown", second))
    new = place.index(("linux/arm64/v8", third), ("linux/amd64", second), annotations={"note": "new"})
    found = place.compare(old, new)
    assert [(change.platform, change.old, change.new) for change in found.platforms] == [
        ("linux/arm64", None, third.digest),
        ("linux/amd64", first.digest, second.digest),
        ("linux/s390x", first.digest, None),
    ]
    assert found.others == 1
    assert found.annotations == (TextChange("note", None, "new"),)
    assert found.image is not None
    assert (found.image.platform, found.image.new.digest) == ("linux/amd64", second.digest)


def test_the_platform_that_is_compared(place: Place) -> None:
    one, two = place.image("one"), place.image("two", architecture="arm64")
    old = place.index(("linux/amd64", one), ("linux/arm64", one))
    new = place.index(("linux/amd64", one), ("linux/arm64", two))
    # The one that differs, although the preferred one is there.
    assert place.changes(old, new).platform == "linux/arm64"
    assert place.changes(old, new, "linux/amd64").platform == "linux/amd64"
    assert place.changes(old, new, "linux/aarch64").platform == "linux/arm64"
    # An image beside an index is compared with the index's image of its platform.
    assert place.changes(two, old).old.digest == two.digest
    missing = place.compare(old, new, "linux/riscv64")
    assert missing.image is None
    assert "has no image for linux/riscv64" in (missing.problem or "")
    with pytest.raises(InvalidConfiguration):
        place.compare(old, new, "<b>")
    # Two images are compared whatever their platforms are.
    assert place.changes(one, two).new.digest == two.digest


def test_content_that_is_gone_is_said(place: Place) -> None:
    old, new = place.image("a"), place.image("b")
    both = place.index(("linux/amd64", old)), place.index(("linux/amd64", new))
    del place.content[old.digest]
    for pair in (both, both[::-1]):
        found = place.compare(*pair)
        assert found.image is None
        assert found.problem == f"{old.digest} is not here"
        assert found.platforms[0].platform == "linux/amd64"
    del place.content[new.config.digest]
    found = place.compare(place.image("c"), new)
    assert found.problem == f"{new.config.digest} is not here"


def test_a_config_that_is_none(place: Place) -> None:
    old, new = place.image("a"), place.image("b")
    place.content[new.config.digest] = b"[]"
    found = place.compare(old, new)
    assert found.image is None
    assert "image config" in (found.problem or "")


def test_artifacts_have_layers_and_no_config(place: Place) -> None:
    def artifact(text: str) -> Image:
        raw = json.dumps({
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": "text/plain",
            "config": {"mediaType": media_types.OCI_EMPTY, "digest": str(place.put(b"{}")), "size": 2},
            "layers": [{"mediaType": "text/plain", "digest": str(place.put(text.encode())), "size": 3}],
        }).encode()  # fmt: skip
        place.put(raw)
        return Image.parse(raw)

    changes = place.changes(artifact("one"), artifact("two"))
    assert changes.config is None
    assert len(changes.layers.added) == len(changes.layers.removed) == 1


def test_an_index_with_many_entries_of_one_platform(place: Place) -> None:
    images = [place.image(str(n)) for n in range(3)]
    old = place.index(*(("linux/amd64", image) for image in images))
    found = place.compare(old, place.index(("linux/amd64", images[0])))
    assert [change.platform for change in found.platforms] == [
        "linux/amd64",
        "linux/amd64 (2)",
        "linux/amd64 (3)",
    ]


@pytest.mark.long
def test_hostile_sizes_take_no_time_of_their_squares(place: Place) -> None:
    """Tens of thousands of layers, steps and variables are compared by look-ups, not each with each."""
    many = [str(n) for n in range(20_000)]
    others = [f"x{n}" for n in range(20_000)]
    steps = [{"created_by": text} for text in many]
    settings = {"Env": [f"A{n}={n}" for n in range(20_000)]}
    changes = place.changes(
        place.image(*many, history=steps, settings=settings),
        place.image(*others, history=steps[::-1], packed="other "),
    )
    assert len(changes.layers.added) == len(changes.layers.removed) == 20_000
    assert changes.config is not None
    assert len(changes.config.history.added) == 20_000
    assert len(changes.config.environment) == 20_000
