"""How much memory a large layer takes: the same as a small one, wherever it goes."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from digestry.client.session import Session
from digestry.model import media_types
from digestry.model.descriptor import Descriptor
from digestry.model.digest import Digest
from digestry.model.reference import Reference
from tests.cli.measuring import at_the_end
from tests.support import RegistryServer, descriptor

_MOST = 60 << 20
"""Bytes of memory of a command; half of them are the program itself."""
_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
_PIECE = 1 << 20


class _Noise(io.RawIOBase):
    """A file of ``size`` bytes that compress badly, and of which no two pieces are the same."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        count = min(count if count >= 0 else self._size, self._size - self._position, _PIECE)
        piece = hashlib.shake_128(self._position.to_bytes(8, "big")).digest(1 << 10) * (_PIECE >> 10)
        self._position += count
        return piece[:count]


@pytest.fixture(params=[96 << 20, pytest.param(2 << 30, marks=pytest.mark.long)], ids=["96 MB", "2 GB"])
def image(request: pytest.FixtureRequest, registry: RegistryServer) -> str:
    """The name of an image with one layer of that size, in a registry."""
    size: int = request.param
    hasher = hashlib.sha256()
    noise = _Noise(size)
    while piece := noise.read(_PIECE):
        hasher.update(piece)
    layer = Descriptor(media_types.OCI_LAYER, Digest("sha256", hasher.hexdigest()), size)
    config = Descriptor(media_types.OCI_CONFIG, Digest.of(_CONFIG), len(_CONFIG))
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(config.media_type, config.digest, config.size),
        "layers": [descriptor(layer.media_type, layer.digest, layer.size)],
    }
    name = Reference(registry.host, f"memory/of-{size}", "1")
    with Session() as session:
        repository = session.repository(name)
        repository.push_blob(layer, lambda: _Noise(size))  # type: ignore[arg-type,return-value]
        repository.push_blob(config, lambda: io.BytesIO(_CONFIG))
        repository.push_manifest(json.dumps(manifest).encode(), media_types.OCI_MANIFEST, tags=["1"])
    return str(name)


def peak(home: Path, *arguments: str) -> int:
    """The most bytes of memory that a command has had when it ends well."""
    report = (
        "for line in open('/proc/self/status'):\n"
        "    if line.startswith('VmHWM'): print(line.split()[1], file=sys.stderr)"
    )
    return int(at_the_end(report, home, *arguments)[-1]) << 10


@pytest.mark.long
def test_no_command_holds_a_layer_in_memory(image: str, tmp_path: Path) -> None:
    host, _, path = image.partition("/")
    other = f"localhost:{host.rpartition(':')[2]}/{path.replace('memory/', 'memory/copied-')}"
    home = tmp_path / "home"
    assert peak(home, "pull", "--quiet", image) < _MOST
    assert peak(home, "copy", "--quiet", f"local:{image}", f"{other}-pushed") < _MOST
    assert peak(home, "copy", "--quiet", image, f"{other}-copied") < _MOST  # from one host to another
    layout, archive = tmp_path / "layout", tmp_path / "archive.tar"
    assert peak(home, "copy", "--quiet", image, f"oci:{layout}:1") < _MOST
    assert peak(home, "copy", "--quiet", image, f"oci-archive:{archive}:1") < _MOST
    archive.unlink()
    assert peak(home, "save", "--output", str(archive), image) < _MOST
