"""Real clients pull from a registry that was restored from a backup of one that was being served."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from digestry.model.digest import Digest
from tests.e2e import asking
from tests.e2e.engines import Engine, Layout, tar
from tests.support import digestry, running_registry, start_registry


@pytest.mark.long
@pytest.mark.parametrize("destination", ["backup", "backup.tar"])
def test_skopeo_pulls_what_it_pushed_before_the_backup(
    skopeo: Engine, tmp_path: Path, destination: str
) -> None:
    layout = Layout(tmp_path / "layout")
    layers = [tar({"mark": b"a", "body": b"a" * 2_000_000}), tar({"mark": b"b"})]
    entries = [layout.image(layers, "sh", architecture=name) for name in ("amd64", "arm64")]
    digest = layout.name(layout.index(entries), "all")
    with running_registry() as server:
        remote = f"docker://{server.host}/team/app:1"
        skopeo(
            "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout.path}:all", remote
        )
        subprocess.run(digestry("backup", "--root", server.root, tmp_path / destination), check=True)
    restored = tmp_path / "again"
    subprocess.run(digestry("restore-backup", tmp_path / destination, "--root", restored), check=True)
    again = start_registry(restored)
    try:
        assert asking.head(again, "team/app", "1") == digest
        back = tmp_path / "back"
        for source in (":1", f"@{digest}"):
            skopeo(
                "copy",
                "--all",
                "--preserve-digests",
                "--src-tls-verify=false",
                f"docker://{again.host}/team/app{source}",
                f"oci:{back}:all",
            )
            (entry,) = json.loads((back / "index.json").read_text())["manifests"]
            assert entry["digest"] == str(digest)
        for blob in (back / "blobs" / "sha256").iterdir():
            assert Digest.of(blob.read_bytes()).encoded == blob.name
        (event,) = again.request("GET", "/v2/team/app/_digestry/journal").json()["entries"]
        assert (event["event"], event["toDigest"]) == ("created", str(digest))
    finally:
        again.stop()
