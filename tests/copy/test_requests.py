"""The requests that a copy makes: over a long line each of them is a wait."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.copy.copy import CopyOptions
from digestry.copy.location import parse_location
from digestry.copy.places import Surroundings
from digestry.copy.request import CopyRequest, run_copy
from digestry.images.store import ImageStore
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from tests.support import PATIENCE, RegistryServer


class Asked:
    """The requests of a session, such as ``HEAD manifests``: ``lines`` in their order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        match = re.match(r"(\w+) \S+?/(manifests|blobs/uploads|blobs|referrers)/", line)
        assert match is not None, line
        self.lines.append(f"{match[1]} {match[2]}")

    def take(self) -> Counter[str]:
        """Return how often each was made since the last time."""
        found = Counter(self.lines)
        self.lines.clear()
        return found


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def around(asked: Asked, tmp_path: Path) -> Iterator[Surroundings]:
    options = ClientOptions(timeout=PATIENCE, retries=1, tell_request=asked.note)
    with Session(options) as session:
        yield Surroundings(session, ImageStore(tmp_path / "images"), tmp_path / "transfers", Reference.parse)


@pytest.fixture
def name(registry: RegistryServer) -> str:
    """An image of a config and one layer, in a repository of its own."""
    repository = f"requests/{secrets.token_hex(6)}"
    registry.push_image(repository, "1", layer=secrets.token_bytes(500))
    return f"docker://{registry.host}/{repository}"


def copy(around: Surroundings, source: str, target: str, *platforms: str) -> None:
    options = CopyOptions(platforms=tuple(map(Platform.parse, platforms)))
    request = CopyRequest(parse_location(source, around.read), parse_location(target, around.read))
    run_copy(request, around, options)


def test_what_is_new_comes_without_a_question_before(
    around: Surroundings, asked: Asked, name: str, tmp_path: Path
) -> None:
    copy(around, f"{name}:1", f"oci:{tmp_path / 'layout'}:1")
    assert asked.take() == {"GET manifests": 1, "GET blobs": 2}
    copy(around, f"{name}:1", f"oci:{tmp_path / 'layout'}:1")
    assert asked.take() == {"GET manifests": 1}


def test_the_config_that_names_the_platform_comes_once(
    around: Surroundings, asked: Asked, name: str, tmp_path: Path
) -> None:
    copy(around, f"{name}:1", f"oci:{tmp_path / 'layout'}:1", "linux/amd64")
    assert asked.take() == {"GET manifests": 1, "GET blobs": 2}
    copy(around, f"oci:{tmp_path / 'layout'}:1", f"{name}:again")  # the content is right
    assert asked.take()["PUT manifests"] == 1


def test_what_a_registry_lacks_is_asked_for_once(
    around: Surroundings, asked: Asked, name: str, tmp_path: Path
) -> None:
    layout = f"oci:{tmp_path / 'layout'}:1"
    copy(around, f"{name}:1", layout)
    asked.take()
    copy(around, layout, f"{name}-copy:1")
    assert asked.take() == {
        "HEAD manifests": 1,
        "HEAD blobs": 2,
        "POST blobs/uploads": 2,
        "PUT blobs/uploads": 2,
        "PUT manifests": 1,
    }


def test_a_mount_needs_no_bytes(around: Surroundings, asked: Asked, name: str) -> None:
    copy(around, f"{name}:1", f"{name}-copy:1")
    assert asked.take() == {
        "HEAD manifests": 2,
        "GET manifests": 1,
        "HEAD blobs": 2,
        "POST blobs/uploads": 2,
        "PUT manifests": 1,
    }


def test_another_tag_of_the_same_repository(around: Surroundings, asked: Asked, name: str) -> None:
    copy(around, f"{name}:1", f"{name}:2")
    assert asked.take() == {"HEAD manifests": 2, "GET manifests": 1, "PUT manifests": 1}
