"""What a policy says of images in podman's storage, where podman says where that is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support import run_digestry

_PODMAN = """#!/bin/sh
case "$1 $2" in
"info --format") printf 'overlay\\n/var/lib/storage\\n' ;;
*) echo "Error: $3: image not known" >&2; exit 125 ;;
esac
"""


@pytest.mark.parametrize(
    ("scope", "name", "rejected"),
    [
        ("[overlay@/var/lib/storage]registry.example/team", "registry.example/team/app:1", True),
        ("[overlay@/var/lib/storage]registry.example/team", "registry.example/other:1", False),
        ("[overlay@/var/lib/storage]docker.io/library/app:1", "app:1", True),
        ("[/var/lib/storage]", "app:1", True),
        ("[overlay@/elsewhere]", "app:1", False),
    ],
)
def test_the_scopes_of_podmans_storage(tmp_path: Path, scope: str, name: str, *, rejected: bool) -> None:
    programs, settings = tmp_path / "bin", tmp_path / "config" / "containers"
    for directory in (programs, settings):
        directory.mkdir(parents=True)
    (programs / "podman").write_text(_PODMAN)
    (programs / "podman").chmod(0o755)
    policy = {
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"containers-storage": {scope: [{"type": "reject"}]}},
    }
    (settings / "policy.json").write_text(json.dumps(policy))
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    done = run_digestry(
        "copy", f"containers-storage:{name}", f"oci:{tmp_path}/layout:1", timeout=60, env=environment
    )
    said = "is rejected" if rejected else "podman has no image"
    assert said in done.stderr, done.stderr
    assert done.returncode != 0
