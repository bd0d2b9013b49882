"""Damaged content comes back by an ordinary push of the same image: clients ask, and send what is missing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, tar
from tests.support import RegistryServer, digestry, running_registry


@pytest.fixture
def served() -> Iterator[RegistryServer]:
    """A registry of this test's own, for it is damaged."""
    with running_registry() as server:
        yield server


def scrub(server: RegistryServer) -> int:
    """The exit code of a whole pass."""
    command = digestry("scrub", "--root", server.root, "--from-start", "--rate", "1 GiB")
    while True:
        status = subprocess.run(command, capture_output=True, check=False).returncode
        if status != 2:  # the server is at it
            return status
        time.sleep(0.2)


def file(server: RegistryServer, digest: str | Digest) -> Path:
    return server.root / "blobs" / str(digest).replace(":", "/")


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


HARMS: tuple[Callable[[Path], object], ...] = (flip, truncate, Path.unlink)


@pytest.mark.long
def test_skopeo_puts_every_part_of_an_image_back(
    served: RegistryServer, skopeo: Engine, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "layout")
    # One layer is verified at every read, the other is larger.
    layers = [tar({"small": os.urandom(2000)}), tar({"large": os.urandom(400_000)})]
    digest = layout.name(layout.image(layers, "sh", compress=True), "one")
    target = f"docker://{served.host}/team/app:1"
    arguments = ("copy", "--dest-tls-verify=false", "--preserve-digests", f"oci:{layout.path}:one", target)
    skopeo(*arguments)
    manifest = asking.manifest(served, "team/app", "1")
    parts = [str(digest), manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    originals = {part: file(served, part).read_bytes() for part in parts}
    back = tmp_path / "back"
    for harm in HARMS:
        for part in parts:
            harm(file(served, part))
        assert scrub(served) == 1
        refused = skopeo.attempt("copy", "--src-tls-verify=false", target, f"oci:{back}:one")
        assert "damaged here, and not served" in refused.stderr
        skopeo(*arguments)
        assert scrub(served) == 0
        assert {part: file(served, part).read_bytes() for part in parts} == originals
        skopeo("copy", "--src-tls-verify=false", "--preserve-digests", target, f"oci:{back}:one")
    kept = {path.name.partition(".")[0] for path in (served.root / "quarantine/sha256").iterdir()}
    assert kept == {part.partition(":")[2] for part in parts}
