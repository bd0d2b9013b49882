"""Image configs, with what docker, BuildKit, buildah and kaniko write in them."""

from __future__ import annotations

from typing import Any

import pytest

from digestry.errors import InvalidManifest
from digestry.model.digest import Digest
from digestry.model.image_config import HistoryEntry, ImageConfig
from tests.model.documents import OTHER, SOME, config, without


def test_a_config() -> None:
    raw = config(variant="v8", created="2026-01-02T03:04:05Z")
    parsed = ImageConfig.parse(raw)
    assert parsed.raw is raw
    assert parsed.digest == Digest.of(raw)
    assert (parsed.os, parsed.architecture, parsed.variant) == ("linux", "amd64", "v8")
    assert parsed.created == "2026-01-02T03:04:05Z"
    assert parsed.diff_ids == (SOME,)
    assert parsed.rootfs_type == "layers"
    assert parsed.settings["Cmd"] == ["/bin/sh"]
    assert parsed.history == (
        HistoryEntry(created_by="ADD"),
        HistoryEntry(created_by="ENV", empty_layer=True),
    )
    assert ImageConfig.parse(raw, algorithm="sha512").digest == Digest.of(raw, "sha512")


@pytest.mark.parametrize("name", ["architecture", "os", "variant", "created", "config", "rootfs", "history"])
def test_every_field_may_be_null_or_absent(name: str) -> None:
    for raw in (config(**{name: None}), without(config(), name)):
        parsed = ImageConfig.parse(raw)
        value = {
            "architecture": parsed.architecture,
            "os": parsed.os,
            "variant": parsed.variant,
            "created": parsed.created,
            "config": parsed.settings,
            "rootfs": parsed.diff_ids,
            "history": parsed.history,
        }[name]
        assert not value
        assert parsed.raw == raw


def test_the_least_config() -> None:
    parsed = ImageConfig.parse(b"{}")
    assert (parsed.os, parsed.architecture, parsed.rootfs_type) == ("", "", "")
    assert parsed.settings == {}


@pytest.mark.parametrize("rootfs", [{}, {"type": None, "diff_ids": None}, {"type": "layers"}])
def test_an_image_without_layers(rootfs: dict[str, Any]) -> None:
    assert ImageConfig.parse(config(rootfs=rootfs)).diff_ids == ()


def test_history_with_nulls() -> None:
    step = dict.fromkeys(("created", "created_by", "comment", "author", "empty_layer"))
    assert ImageConfig.parse(config(history=[step, {}])).history == (HistoryEntry(), HistoryEntry())


def test_what_docker_writes_beside() -> None:
    settings = {
        "Hostname": "", "AttachStdin": False, "ExposedPorts": {"80/tcp": {}}, "Cmd": None, "Volumes": None,
        "Entrypoint": ["/a"], "OnBuild": None, "Labels": None, "ArgsEscaped": True,
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30_000_000_000}, "Memory": 0,
    }  # fmt: skip
    raw = config(
        config=settings,
        container="abc",
        container_config=settings,
        docker_version="20.10",
        author=None,
        parent=str(OTHER),
        **{"os.version": "10.0", "os.features": ["win32k"], "moby.buildkit.buildinfo.v1": "e30="},
    )
    parsed = ImageConfig.parse(raw)
    assert parsed.settings == settings
    assert parsed.raw == raw


def test_an_unknown_rootfs_type_is_told_not_hidden() -> None:
    assert ImageConfig.parse(config(rootfs={"type": "other"})).rootfs_type == "other"


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"[]", "`array`"),
        (b"", "not JSON"),
        (config()[:-1], "not JSON"),
        (config(os=5), "$.os"),
        (config(config=[]), "$.config"),
        (config(rootfs=[]), "$.rootfs"),
        (config(rootfs={"diff_ids": str(SOME)}), "$.rootfs.diff_ids"),
        (config(rootfs={"diff_ids": [str(SOME), "md5:abc"]}), "$.rootfs.diff_ids[1]"),
        (config(history={}), "$.history"),
        (config(history=[{"empty_layer": "yes"}]), "$.history[0].empty_layer"),
        (config(history=[{"created": 5}]), "$.history[0].created"),
        (config()[:-1] + b', "config": {"a": ' + b"9" * 5000 + b"}}", "$.config"),
        (config()[:-1] + b', "config": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "nested too deeply"),
    ],
)
def test_a_wrong_field_is_named(raw: bytes, place: str) -> None:
    with pytest.raises(InvalidManifest) as raised:
        ImageConfig.parse(raw)
    assert place in raised.value.message
    assert "image config" in raised.value.message
