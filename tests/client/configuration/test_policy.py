"""Containers' ``policy.json``: which scope decides, as skopeo has it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from digestry.client.configuration.policy import Policy, image_scopes, storage_scopes
from digestry.errors import Forbidden, InvalidConfiguration
from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Reply, lying
from tests.support import descriptor, program

_DIGEST = "sha256:" + "0" * 64
_CONFIG = b"{}"
_IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG, Digest.of(_CONFIG), len(_CONFIG)),
        "layers": [],
    }
).encode()
_ACCEPT, _REJECT = "insecureAcceptAnything", "reject"


def write(directory: Path, default: str = _ACCEPT, **scopes: str) -> Path:
    path = directory / "policy.json"
    said = {scope: [{"type": kind}] for scope, kind in scopes.items()}
    path.write_text(json.dumps({"default": [{"type": default}], "transports": {"docker": said}}))
    return path


def rejects(path: Path, image: str) -> bool:
    policy = Policy.read(path)
    assert policy is not None
    try:
        policy.check(image, "docker", image_scopes(image), None)
    except Forbidden:
        return True
    return False


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("[overlay@/var/lib/s]host/a/b:1", True),
        ("[overlay@/var/lib/s]host/a/b", True),
        ("[overlay@/var/lib/s]host", True),
        ("[overlay@/var/lib/s]", True),
        ("[/var/lib/s]", True),
        ("", True),
        ("[vfs@/var/lib/s]", False),
        ("[overlay@/var/lib/other]host/a/b:1", False),
        ("[overlay@/var/lib/s]host/a/b:2", False),
        ("host/a/b:1", False),
        ("[overlay@/var/lib/s]*.lib", False),
    ],
)
def test_the_scopes_of_a_storage(tmp_path: Path, scope: str, expected: bool) -> None:
    path = tmp_path / "policy.json"
    said = {"containers-storage": {scope: [{"type": _REJECT}]}}
    path.write_text(json.dumps({"default": [{"type": _ACCEPT}], "transports": said}))
    policy = Policy.read(path)
    assert policy is not None
    assert policy.has_scopes("containers-storage") is (scope != "")
    scopes = list(storage_scopes("overlay", "/var/lib/s", "host/a/b:1"))
    _, demanded = policy.requirements("containers-storage", scopes)
    assert (_REJECT in demanded) is expected
    assert list(storage_scopes("vfs", "/s", "")) == ["[vfs@/s]", "[vfs@/s]", "[/s]"]


_SCOPES = [
    ({"host": _REJECT}, True),
    ({"host/a": _REJECT}, True),
    ({"host/a/b": _REJECT}, True),
    ({"host/a/b:1": _REJECT}, True),
    ({"host/a/b:2": _REJECT}, False),
    ({"host/a/bc": _REJECT}, False),
    ({"host": _REJECT, "host/a": _ACCEPT}, False),
    ({"host": _ACCEPT, "host/a/b:1": _REJECT}, True),
    ({"": _REJECT}, True),
    ({"": _REJECT, "host": _ACCEPT}, False),
]


@pytest.mark.parametrize(("scopes", "expected"), _SCOPES)
def test_the_narrowest_scope_decides(tmp_path: Path, scopes: dict[str, str], expected: bool) -> None:
    path = write(tmp_path, **scopes)
    assert rejects(path, "host/a/b:1") is expected


@pytest.mark.peer("skopeo")
@pytest.mark.parametrize(("scopes", "expected"), _SCOPES)
def test_skopeo_decides_the_same(tmp_path: Path, scopes: dict[str, str], expected: bool) -> None:
    with lying(lambda _: Reply(200, _IMAGE, {"Content-Type": media_types.OCI_MANIFEST})) as server:
        path = write(tmp_path, **{scope.replace("host", server.host): kind for scope, kind in scopes.items()})
        assert rejects(path, f"{server.host}/a/b:1") is expected
        image = f"docker://{server.host}/a/b:1"
        skopeo = [program("skopeo"), "--policy", str(path), "copy", "--src-tls-verify=false", image]
        done = subprocess.run(
            [*skopeo, f"dir:{tmp_path}/d"],
            env=os.environ | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ("rejected by policy" in done.stderr) is expected, done.stderr


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("*.example.com", True), ("*.com", True), ("*.a.example.com", False), ("*.b.example.com", False)],
)
def test_wildcards(tmp_path: Path, scope: str, expected: bool) -> None:
    path = write(tmp_path, **{scope: _REJECT})
    assert rejects(path, "a.example.com:5000/x:1") is expected
    assert not rejects(path, "localhost/x:1")


def test_the_default_and_a_digest(tmp_path: Path) -> None:
    path = write(tmp_path, _REJECT, **{f"a.example/x@{_DIGEST}": _ACCEPT})
    assert not rejects(path, f"a.example/x@{_DIGEST}")
    assert rejects(path, "a.example/x:1")


def test_one_reject_among_others_rejects(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"default": [{"type": "signedBy"}, {"type": "reject"}]}))
    assert rejects(path, "a.example/x:1")


def test_a_demanded_signature_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    policy = Policy.read(write(tmp_path, "sigstoreSigned"))
    assert policy is not None
    policy.check("a.example/x:1", "docker", image_scopes("a.example/x:1"), said.append)
    assert "sigstoreSigned for default" in said[0]
    assert "does NOT verify" in said[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must be an object"),
        ("{}", "default must be a list of requirements"),
        ('{"default": []}', "is not empty"),
        ('{"default": [{"type": "rejct"}]}', "'rejct' is not a type"),
        ('{"default": [{"type": "reject"}], "transports": []}', "transports must be an object"),
    ],
)
def test_a_wrong_policy_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(InvalidConfiguration, match=message) as caught:
        Policy.read(path)
    assert str(path) in caught.value.message


def test_no_policy(tmp_path: Path) -> None:
    assert Policy.read(tmp_path / "policy.json") is None
