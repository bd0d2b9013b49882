"""What a user sees of registries that lie, in every command: an error in plain words, and nothing kept."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import json
import os
import pty
import re
import subprocess
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from digestry.model import media_types
from digestry.model.digest import Digest
from tests.client.liar import Reply, Request, lying
from tests.support import PATIENCE, digestry, run_digestry

EVIL = "\x1b[31mE\x1b]0;t\x07\x9b31m\u202e\u2066\r\nnew\x08\x7f\x85"
SECRET = "s3cret-passw0rd"
DIGEST = str(Digest.of(b"nothing"))
CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": DIGEST, "size": 7}
IMAGE = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "config": CONFIG, "layers": []}
ITSELF = {
    "schemaVersion": 2,
    "mediaType": media_types.OCI_INDEX,
    "manifests": [{"mediaType": media_types.OCI_INDEX, "digest": DIGEST, "size": 7}],
}

Answering = Callable[[Request], Reply]


@functools.cache
def bomb() -> bytes:
    """A hundred megabytes of zeros, compressed."""
    return gzip.compress(bytes(100 << 20), 9)


def said(document: object, media_type: str = media_types.OCI_MANIFEST, **headers: str) -> Reply:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Reply(200, raw, {"Content-Type": media_type, **headers})


LIES: dict[str, Answering] = {
    "other bytes": lambda _: said(
        {**IMAGE, "annotations": {EVIL: EVIL}}, **{"Docker-Content-Digest": DIGEST}
    ),
    "an error with escapes": lambda _: Reply(
        403, json.dumps({"errors": [{"code": EVIL, "message": EVIL}]}).encode()
    ),
    "a bomb": lambda _: Reply(200, bomb(), {"Content-Encoding": "gzip"}),
    "an error that is a bomb": lambda _: Reply(500, bomb(), {"Content-Encoding": "gzip"}),
    "an index of itself": lambda _: said(ITSELF, media_types.OCI_INDEX),
    "a page": lambda _: Reply(200, f"<html>{EVIL}".encode(), {"Content-Type": "text/html"}),
    "text": lambda _: Reply(418, EVIL.encode()),
    "brackets": lambda _: said(b'{"schemaVersion":2,"a":' + b"[" * 200_000),
    "a circle": lambda request: Reply(307, headers={"Location": request.target}),
    "a cloud": lambda _: Reply(307, headers={"Location": "http://169.254.169.254/latest/meta-data"}),
    "another login": lambda _: Reply(401, headers={"WWW-Authenticate": 'Bearer realm="http://x\x9b31m/"'}),
    "a length": lambda _: Reply(200, b"{}", {"Content-Type": media_types.OCI_MANIFEST}, length=1 << 40),
    "no end": lambda _: Reply(200, headers={"Content-Type": media_types.OCI_INDEX}, endless=True),
    "the same page": lambda request: Reply(
        200, b'{"tags":["a"],"repositories":["a"]}', {"Link": f"<{request.target}>; rel=next"}
    ),
}
COMMANDS: dict[str, list[str]] = {
    "pull": ["pull", "{host}/app:1"],
    "pull all": ["pull", "--all-platforms", "{host}/app@" + DIGEST],
    "copy": ["copy", "--all-tags", "--referrers", "{host}/app", "oci-archive:{path}/x.tar"],
    "copy one": ["copy", "{host}/app@" + DIGEST, "oci:{path}/layout"],
    "tags": ["tags", "{host}/app"],
    "ls": ["ls", "{host}"],
    "referrers": ["referrers", "{host}/app@" + DIGEST],
    "inspect": ["inspect", "{host}/app@" + DIGEST],
    "history": ["history", "{host}/app:1"],
    "export": ["export", "{host}/app:1", "-o", "{path}/x.tar"],
    "manifest get": ["manifest", "get", "{host}/app@" + DIGEST],
    "blob get": ["blob", "get", "{host}/app@" + DIGEST, "-o", "{path}/x"],
    "log": ["log", "{host}/app:1"],
    "whose": ["whose", "{host}/app@" + DIGEST],
    "rm": ["rm", "--yes", "{host}/app:1"],
}
SHORT = [("other bytes", "pull all"), ("an error with escapes", "copy"), ("a bomb", "copy one"),
         ("an index of itself", "inspect"), ("the same page", "tags"), ("text", "log"), ("a page", "ls"),
         ("another login", "referrers"), ("a cloud", "blob get")]  # fmt: skip
ALL = [(lie, command) for lie in LIES for command in COMMANDS]


@pytest.mark.parametrize(
    ("lie", "command"),
    [*SHORT, *(pytest.param(*one, marks=pytest.mark.long) for one in ALL if one not in SHORT)],
)
def test_a_lie_is_an_error_and_nothing_is_kept(lie: str, command: str, tmp_path: Path) -> None:
    with lying(LIES[lie]) as liar:
        (tmp_path / "docker").mkdir()
        login = base64.b64encode(f"ann:{SECRET}".encode()).decode()
        config = json.dumps({"auths": {liar.host: {"auth": login}}})
        (tmp_path / "docker/config.json").write_text(config)
        words = [word.format(host=liar.host, path=tmp_path) for word in COMMANDS[command]]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DIGESTRY_")}
        environment |= {"DIGESTRY_HOME": str(tmp_path / "home"), "DOCKER_CONFIG": str(tmp_path / "docker")}
        done = run_digestry(*words, env=environment)
    assert done.returncode in {2, 3, 4, 5}, done.stdout + done.stderr
    output = done.stdout + done.stderr
    assert SECRET not in output
    assert login not in output
    assert [one for one in output if one != "\n" and unicodedata.category(one) in {"Cc", "Cf"}] == []
    assert "digestry: " in done.stderr or done.stderr.startswith(f"{liar.host}: ")
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and "docker" not in path.parts]
    assert [path for path in kept if "blobs" in path.parts or path.name.startswith("x")] == []


LABELLED = [
    ["manifest", "get", "{name}"],
    ["inspect", "{name}"],
    ["history", "--format", "{{{{.CreatedBy}}}} {{{{.Comment}}}}", "{name}"],
    ["referrers", "--format", "{{{{.Annotations}}}}", "{name}"],
    ["tags", "{repository}"],
    ["pull", "{name}"],
]


@pytest.mark.parametrize("words", LABELLED, ids=lambda words: " ".join(words[:2]))
def test_an_image_writes_nothing_but_text_to_a_terminal(words: list[str], tmp_path: Path) -> None:
    """Whatever its labels, annotations, history and platform have in them."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "os.version": EVIL,
            "variant": EVIL,
            "author": EVIL,
            "config": {"Labels": {EVIL: EVIL}, "User": EVIL, "Env": [EVIL], "Cmd": [EVIL]},
            "history": [{"created_by": EVIL, "comment": EVIL, "empty_layer": True}],
            "rootfs": {"type": "layers", "diff_ids": []},
        }
    ).encode()
    described = {"mediaType": media_types.OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)}
    # Of these, JSON has none but the last five as they are.
    shown = EVIL.translate(dict.fromkeys(range(32)))
    image = {**IMAGE, "config": described, "annotations": {shown: shown}}
    raw = json.dumps(image, ensure_ascii=False).encode()
    referrer = {"mediaType": media_types.OCI_MANIFEST, "digest": DIGEST, "size": 1, "artifactType": "a/b"}
    referrers = {"schemaVersion": 2, "manifests": [{**referrer, "annotations": {EVIL: EVIL}}]}

    def answer(request: Request) -> Reply:
        kind = request.path.removeprefix("/v2/app/").partition("/")[0]
        if request.path.endswith("/tags/list"):
            return Reply(200, json.dumps({"tags": ["1", EVIL]}).encode())
        if kind == "referrers":
            return said(referrers, media_types.OCI_INDEX)
        if kind == "manifests":
            return said(raw)
        return Reply(200, config) if kind == "blobs" else Reply(404, EVIL.encode())

    with lying(answer) as liar:
        line = [word.format(name=f"{liar.host}/app:1", repository=f"{liar.host}/app") for word in words]
        environment = os.environ | {"DIGESTRY_HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
        output = on_a_terminal(line, environment)
    text = re.sub(r"\x1b\[(?:[0-9;]*[mK]|\?25[lh]|[0-9]*A)", "", output.replace("\r", ""))  # digestry's own
    assert [one for one in text if one != "\n" and unicodedata.category(one) in {"Cc", "Cf"}] == []
    assert "\nnew" not in text
    assert "31mE" in text or words[0] == "pull"


def on_a_terminal(words: list[str], environment: dict[str, str]) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(digestry(*words), env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        parts = []
        with contextlib.suppress(OSError):  # how the end of a terminal is told
            while part := os.read(ours, 65536):
                parts.append(part)
        process.wait(PATIENCE)
    os.close(ours)
    return b"".join(parts).decode()
