"""The names of places that images are copied from and to."""

from __future__ import annotations

import pytest

from digestry.copy.location import parse_location
from digestry.errors import InvalidReference
from digestry.model.reference import Reference


@pytest.mark.parametrize("text", ["dir:out", "dir:/tmp/out", "sif:a.sif", "ostree:a@/b", "tarball:x.tar"])
def test_a_transport_that_is_missing_here_is_no_image_of_docker_hub(text: str) -> None:
    with pytest.raises(InvalidReference, match="transport of skopeo") as raised:
        parse_location(text, Reference.parse)
    head = text.partition(":")[0]
    assert f"docker://docker.io/library/{head}" in raised.value.hint
    assert "oci:DIR" in raised.value.hint


@pytest.mark.parametrize("text", ["docker://docker.io/library/dir:1", "docker.io/library/dir:1"])
def test_an_image_of_that_name_can_be_named(text: str) -> None:
    place = parse_location(text, Reference.parse)
    assert place.transport == "docker"
    assert str(place.reference) == "docker.io/library/dir:1"


def test_a_transport_that_nobody_has() -> None:
    with pytest.raises(InvalidReference, match="Did you mean oci"):
        parse_location("ocidir://x:1", Reference.parse)
