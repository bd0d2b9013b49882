"""An observer that is killed before each of its steps: another one goes on, and each move is told once.

By default some of the steps are taken; ``DIGESTRY_FAULTS=all`` takes them all, which takes some minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from digestry.registry.config import load
from digestry.registry.server import prepare
from tests.observer.support import HOST
from tests.postgresql import Cluster
from tests.registry.pull_through.support import KIND, Upstream
from tests.registry.webhook_receiver import SECRET
from tests.support import descriptor, run_digestry

_EVERY = 1 if os.environ.get("DIGESTRY_FAULTS") == "all" else 37


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_killed_before_any_step(
    tmp_path: Path, up: Upstream, database: str, request: pytest.FixtureRequest
) -> None:
    places = [] if database == "sqlite" else _on(request.getfixturevalue("postgresql"))
    config, root = tmp_path / "registry.toml", tmp_path / "root"
    stores = f'[storage]\ndatabase = "{places[0]}"\n' if places else ""
    config.write_text(
        f'[observe]\nrequests-per-second = 1000\n[observe-registry."{HOST}"]\nurl = "{up.url}"\n'
        f'[observe."{HOST}/own/app"]\nevery = "1h"\nkeep = true\n{stores}'
        f'[[webhook]]\nname = "h"\nurl = "http://127.0.0.1:1/"\nsecret = "{SECRET}"\n'
        'events = ["upstream-moved"]\n'
    )
    prepare(load(config, {"root": root}))
    first, stays, gone = (up.image("own/app", tag, layer=tag.encode()) for tag in ("1.5", "1.6", "old"))
    observed = run_digestry("observe", "run", "--config", config, "--root", root)
    assert observed.returncode == 0, observed.stderr
    second = _index(up, "1.5", b"one", b"two")
    third = up.image("own/app", "2.0", layer=b"three")
    del up.tags["own/app", "old"]
    wanted = {
        "1.5": [str(first), str(second)],
        "1.6": [str(stays)],
        "old": [str(gone), None],
        "2.0": [str(third)],
    }
    options = ["--server", places[1], "--template", places[0].rpartition("/")[2]] if places else []
    result = _campaign(config, root, wanted, *options)
    assert result["failed"] == 0
    assert result["steps"] > 200


def _on(postgresql: Cluster) -> list[str]:
    """The URLs of an empty database, and of the server for its superuser."""
    return [postgresql.new_database(), f"postgresql://postgres@127.0.0.1:{postgresql.port}/postgres"]


def _index(up: Upstream, tag: str, *layers: bytes) -> Digest:
    children = []
    for number, layer in enumerate(layers):
        digest = up.image("own/app", layer=layer, annotations={"n": str(number)})
        children.append(descriptor(KIND, digest, len(up.manifests["own/app", str(digest)])))
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": children}
    return up.manifest("own/app", document, tag)


def _campaign(config: Path, root: Path, wanted: object, *options: str) -> dict[str, Any]:
    top = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.observer.steps", str(config), str(root), json.dumps(wanted)]
    run = subprocess.run(
        [*command, "--every", str(_EVERY), *options],
        cwd=top,
        env={**os.environ, "PYTHONPATH": f"{top}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert run.stdout, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    print(result)
    assert run.returncode == 0, run.stderr
    return result
