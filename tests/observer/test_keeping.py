"""``keep = true``: all content of the images outlives their registry, and garbage collection here."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.config import load
from tests.backends import collect
from tests.observer.support import Observing, observing
from tests.registry.garbage_collection.support import AT_ONCE, gathered
from tests.registry.pull_through.support import KIND, upstream
from tests.support import descriptor, run_digestry, running_registry, wait_until


def blob(observer: Observing, content: bytes) -> int:
    path = f"/v2/{observer.name}/blobs/{Digest.of(content)}"
    return observer.server.request("GET", path).status


@pytest.mark.long
def test_keeping_begins_with_a_reload_and_outlives_collection(tmp_path: Path) -> None:
    with upstream() as up, observing(tmp_path, up.url, more=AT_ONCE) as observer:
        first = up.image("own/app", "1.5", layer=b"the old layer")
        observer.wait_for("1.5", first)
        file = tmp_path / "registry.toml"
        file.write_text(file.read_text().replace('every = "1s"', 'every = "1s"\nkeep = true', 1))
        observer.server.process.send_signal(signal.SIGHUP)

        def kept() -> bool:
            return blob(observer, b"the old layer") == 200

        wait_until(kept, what="what was here before is fetched", log=observer.server.log)
        second = up.image("own/app", "1.5", layer=b"the new layer")
        observer.wait_for("1.5", first, second)
        up.manifests.clear()
        up.blobs.clear()
        gathered(collect, load(file, {"root": observer.server.root}))
        assert kept()
        path = f"/v2/{observer.name}/manifests/{first}"
        assert observer.server.request("GET", path).status == 200
        out = run_digestry("gc", "--root", str(observer.server.root), "--dry-run")
        assert out.returncode in {0, 2}
        assert str(first) not in out.stdout


@pytest.mark.long
def test_all_images_of_a_long_index_are_kept(tmp_path: Path) -> None:
    fast = "[observe]\nrequests-per-second = 1000\n"
    with upstream() as up, observing(tmp_path, up.url, 'every = "1s"\nkeep = true', fast) as observer:
        children = []
        for number in range(203):
            digest = up.image("own/app", layer=b"%d" % number)
            children.append(descriptor(KIND, digest, len(up.manifests["own/app", str(digest)])))
        body = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": children}
        observer.wait_for("1.5", up.manifest("own/app", body, "1.5"))
        last = "the last one is fetched"
        wait_until(lambda: blob(observer, b"202") == 200, what=last, log=observer.server.log)


@pytest.mark.parametrize(
    "keys", ['keep-for = "30d"', 'keep = true\nkeep-for = "soon"', "keep = true\nkeep-for = 0"]
)
def test_how_long_is_said_rightly_or_not_at_all(tmp_path: Path, keys: str) -> None:
    file = tmp_path / "registry.toml"
    file.write_text(f'[observe."up.test/own/app"]\n{keys}\n')
    with pytest.raises(InvalidConfiguration, match="keep-for"):
        load(file, {"root": tmp_path / "root"})


@pytest.mark.long
def test_by_command() -> None:
    with running_registry() as server:
        server.stop()
        add(str(server.root))


def add(root: str) -> None:
    made = run_digestry("observe", "add", "--root", root, "--keep", "--keep-for", "30d", "up.test/own/app")
    assert made.returncode == 0, made.stderr
    for wrong in (("--keep-for", "30d"), ("--keep", "--keep-for", "x")):
        assert run_digestry("observe", "add", "--root", root, *wrong, "up.test/b").returncode == 2
