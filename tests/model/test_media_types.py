from __future__ import annotations

import pytest

from digestry.model import media_types


@pytest.mark.parametrize(
    ("media_type", "foreign"),
    [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", True),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", True),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", True),
        (media_types.OCI_LAYER_GZIP, False),
        (media_types.DOCKER_LAYER_GZIP, False),
        ("", False),
    ],
)
def test_layers_that_a_registry_need_not_hold(media_type: str, foreign: bool) -> None:
    assert media_types.is_foreign(media_type) is foreign


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", " application/json ; charset=utf-8", "application/json;"],
)
def test_a_content_type_without_its_parameters(content_type: str) -> None:
    assert media_types.bare(content_type) == "application/json"


def test_manifests_are_of_one_kind() -> None:
    assert not media_types.IMAGE_MANIFESTS & media_types.INDEXES
    assert len(media_types.MANIFESTS) == 4
