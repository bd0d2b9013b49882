"""An S3 store that does not accept the registry's credentials any more, and then does again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from digestry.blobs.s3 import credentials as s3_credentials
from digestry.blobs.s3.config import S3Config
from digestry.errors import StorageDenied
from tests import seaweed
from tests.blobs.contract import HELLO, HELLO_DIGEST
from tests.blobs.s3.stores import make_store
from tests.registry.observability.support import Metrics
from tests.s3_proxy import running_proxy
from tests.support import start_registry, wait_until

pytestmark = pytest.mark.long


def write_profile(file: Path, secret: str) -> None:
    file.write_text(
        f"[default]\naws_access_key_id = {seaweed.ACCESS_KEY}\naws_secret_access_key = {secret}\n"
    )


@pytest.fixture
def profile(s3_config: S3Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file with the credentials of a profile, which are right."""
    file = tmp_path / "credentials"
    write_profile(file, seaweed.SECRET_KEY)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return file


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "RequestTimeTooSkewed", "AccessDenied", "InvalidAccessKeyId", ""]
)
def test_clients_are_told_to_try_again_and_health_says_it(
    s3_config: S3Config, tmp_path: Path, code: str
) -> None:
    with running_proxy(s3_config.endpoint) as proxy:
        file = tmp_path / "registry.toml"
        file.write_text(f'[storage]\nblobs = "{s3_config.location}"\nendpoint = "{proxy.endpoint}"\n')
        server = start_registry(tmp_path / "root", "--config", str(file))
        try:
            digest = server.push_image("app", "1", layer=b"l" * 300_000)
            layer = server.request("GET", f"/v2/app/manifests/{digest}").json()["layers"][0]["digest"]
            body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
            status = 400 if code == "ExpiredToken" else 403
            faults = [
                proxy.fail(method, times=100_000, status=status, answer=body)
                for method in ("GET", "PUT", "HEAD", "POST", "DELETE")
            ]
            pulled = server.request("GET", f"/v2/app/blobs/{layer}")
            assert (pulled.status, pulled.code) == (503, "UNAVAILABLE")
            assert pulled.headers["retry-after"] == "5"
            pushed = server.request("POST", f"/v2/app/blobs/uploads/?digest={HELLO_DIGEST}", HELLO)
            assert (pushed.status, pushed.code) == (503, "UNAVAILABLE")
            wait_until(lambda: server.request("GET", "/readyz").status == 503, what="the server is not ready")
            assert server.request("GET", "/readyz").json()["checks"]["store"] != "ok"
            said = server.log.read_text()
            assert f"the store answers {code or f'status {status}'}" in said

            def counted() -> bool:
                return Metrics(server).sum("digestry_refused_requests_total", reason="store") >= 2

            wait_until(counted, what="the refusals are counted")
            for fault in faults:
                fault.times = 0
            wait_until(
                lambda: server.request("GET", "/readyz").status == 200, what="the server is ready again"
            )
            assert server.request("GET", f"/v2/app/blobs/{layer}").body == b"l" * 300_000
            assert (
                server.request("POST", f"/v2/app/blobs/uploads/?digest={HELLO_DIGEST}", HELLO).status == 201
            )
        finally:
            server.stop()


def test_credentials_of_a_file_that_was_written_again_are_used(
    s3_config: S3Config, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_credentials, "_AGAIN_SECONDS", 0.2)
    write_profile(profile, "of-yesterday")
    store = make_store(tmp_path / "a", s3_config)
    with pytest.raises(StorageDenied) as caught:
        store.put(HELLO)
    assert "of-yesterday" not in f"{caught.value} {caught.value.hint}"
    write_profile(profile, seaweed.SECRET_KEY)
    time.sleep(0.3)  # the time in which the file is not read again
    store.put(HELLO)
    assert store.read(HELLO_DIGEST) == HELLO


def test_files_that_are_gone_meanwhile_leave_the_error_of_the_store(
    s3_config: S3Config, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_credentials, "_AGAIN_SECONDS", 0.0)
    write_profile(profile, "of-yesterday")
    store = make_store(tmp_path / "a", s3_config)
    for _ in range(2):
        with pytest.raises(StorageDenied, match="the store answers"):
            store.put(HELLO)
        profile.unlink(missing_ok=True)
    write_profile(profile, seaweed.SECRET_KEY)
    store.put(HELLO)
    assert store.read(HELLO_DIGEST) == HELLO
