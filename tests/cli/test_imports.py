"""What each command loads: a short one has to start fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from digestry.cli import main
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.cli.measuring import at_the_end
from tests.client.liar import Reply, Request, lying
from tests.support import descriptor

_FRAMEWORKS = {
    "alembic",
    "asyncio",
    "granian",
    "rich",
    "sqlalchemy",
    "starlette",
    "tomlkit",
    "urllib3",
    "yaml",
}
_NETWORK = {"email.parser", "http.client", "socket", "ssl"}
_SLOW = {"concurrent.futures", "ctypes", "logging", "multiprocessing", "subprocess", "tempfile", "traceback"}
_OF_INDEXES = {"digestry.images.platform_selection"}
_LATE = {
    "calendar",
    "difflib",
    "gettext",
    "inspect",
    "ipaddress",
    "platform",
    "random",
    "selectors",
    "ssl",
    "typing_extensions",
}
_BEHIND_THEM = {"ast", "copy", "dataclasses", "dis", "locale", "tokenize"}

_LAYER = b"a layer"
_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
_IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, Digest.of(_CONFIG), len(_CONFIG)),
        "layers": [descriptor(media_types.OCI_LAYER, Digest.of(_LAYER), len(_LAYER))],
    }
).encode()


def registry(request: Request) -> Reply:
    """A registry with one image, which asks for no login."""
    if "/manifests/" in request.path:
        said = {"Content-Type": media_types.OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(_IMAGE))}
        length = {"Content-Length": str(len(_IMAGE))} if request.method == "HEAD" else {}
        return Reply(200, _IMAGE, {**said, **length})
    return Reply(200, _LAYER if str(Digest.of(_LAYER)) in request.path else _CONFIG)


def loaded_by(home: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends well."""
    report = (
        "late = late_modules.LateModule\n"
        "print(*(name for name, one in sys.modules.items() if type(one) is not late), file=sys.stderr)"
    )
    return set(at_the_end(report, home, *arguments))


@pytest.mark.parametrize("name", sorted(set(main._COMMANDS) - {"demo"}))  # which runs other programs
def test_help_loads_the_command_alone(name: str, tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, name, "--help")
    assert loaded.isdisjoint(_FRAMEWORKS | _NETWORK | _SLOW)
    assert not any(module.startswith(("digestry.client.", "digestry.registry.")) for module in loaded)


@pytest.mark.parametrize(
    "arguments",
    [("images",), ("version",), ("config", "get", "registry"), ("help", "pull"), ("schema", "images")],
    ids=" ".join,
)
def test_a_command_that_asks_nobody_loads_no_network(arguments: tuple[str, ...], tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, *arguments)
    assert loaded.isdisjoint(_FRAMEWORKS | _NETWORK | _SLOW)


@pytest.mark.parametrize(
    "command",
    [
        "pull IMAGE",
        "digest IMAGE",
        "inspect IMAGE",
        "history IMAGE",
        "manifest get IMAGE",
        "copy IMAGE oci:DIRECTORY/layout:1",
        "copy IMAGE local:localhost:5000/other:1",
    ],
)
def test_a_command_that_asks_a_registry_loads_what_it_asks_for(command: str, tmp_path: Path) -> None:
    with lying() as server:
        server.answer = registry
        words = command.replace("IMAGE", f"{server.host}/team/app:1").replace("DIRECTORY", str(tmp_path))
        loaded = loaded_by(tmp_path / "home", *words.split())
    assert "http.client" in loaded
    assert loaded.isdisjoint(_FRAMEWORKS | _SLOW | _OF_INDEXES)
    for part in (
        "auth",
        "configuration.policy",
        "configuration.registries_conf",
        "configuration.rules",
        "credentials",
        "journal",
        "mirrored_repository",
        "prefix_search",
        "refusal_hints",
        "referrers",
        "tag_history",
        "trust",
    ):
        assert f"digestry.client.{part}" not in loaded
    assert "digestry.blobs.protocols" not in loaded  # for type checkers alone


@pytest.mark.parametrize(
    "command",
    ["images", "tag IMAGE localhost:5000/b:1", "rmi IMAGE", "save IMAGE -o DIRECTORY/a.tar", "inspect IMAGE"],
)
def test_a_command_about_an_image_that_is_here_loads_no_network(command: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with lying() as server:
        server.answer = registry
        loaded_by(home, "pull", f"{server.host}/team/app:1")
    words = command.replace("IMAGE", f"{server.host}/team/app:1").replace("DIRECTORY", str(tmp_path))
    assert loaded_by(home, *words.split()).isdisjoint(_FRAMEWORKS | _NETWORK | _SLOW | _OF_INDEXES)


@pytest.mark.parametrize(
    "arguments",
    [("images",), ("images", "-q"), ("pull", "IMAGE"), ("pull", "-q", "IMAGE"), ("digest", "IMAGE")],
    ids=" ".join,
)
def test_the_quickest_commands_use_nothing_of_what_is_loaded_late(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    with lying() as server:
        server.answer = registry
        words = (word.replace("IMAGE", f"{server.host}/team/app:1") for word in arguments)
        loaded = loaded_by(tmp_path, *words)
    assert loaded.isdisjoint(_LATE | _BEHIND_THEM)


def test_a_pull_with_a_tag_loads_nothing_for_digests_and_layers(tmp_path: Path) -> None:
    with lying() as server:
        server.answer = registry
        loaded = loaded_by(tmp_path, "pull", f"{server.host}/team/app:1")
    assert loaded.isdisjoint({"digestry.model.digest_prefix", "digestry.images.layer_stream"})


def test_the_program_ends_with_the_commands_code(tmp_path: Path) -> None:
    script = "from digestry.cli.program import start\nstart()"
    for arguments, code in ((["version"], 0), (["rmi", "a"], 4), (["frobnicate"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, "DIGESTRY_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert (done.stdout + done.stderr).strip()
