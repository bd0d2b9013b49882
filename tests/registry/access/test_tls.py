"""TLS: which versions, whose certificate, and a new one while requests come in."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.access.support import PASSWORDS, htpasswd
from tests.support import (
    PATIENCE,
    RegistryServer,
    program,
    run_digestry,
    start_registry,
    wait_for_line,
    wait_until,
)


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    files = directory / f"{name}.pem", directory / f"{name}.key"
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", files[1], "-out", files[0]),
        ],
        check=True,
        capture_output=True,
    )
    return files


def install(files: tuple[Path, Path], directory: Path) -> None:
    """Puts a certificate and its key where the server looks for them."""
    for file, name in zip(files, ("certificate.pem", "key.pem"), strict=True):
        shutil.copy(file, directory / f"{name}.new")
        (directory / f"{name}.new").replace(directory / name)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    install(certificate(tmp_path, "first"), tmp_path)
    (tmp_path / "users").write_text(htpasswd(PASSWORDS))
    file = tmp_path / "registry.toml"
    file.write_text(
        '[auth]\nhtpasswd = "users"\n[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'
        '[[rule]]\nwho = "anonymous"\nactions = ["pull"]\n'
    )
    server = start_registry(tmp_path / "root", "--config", str(file), "--workers", "2")
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def trusting(file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(file))


def ask(server: RegistryServer, context: ssl.SSLContext) -> http.client.HTTPResponse:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=context)
    try:
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


@pytest.mark.long
@pytest.mark.peer("openssl")
def test_versions(server: RegistryServer, tmp_path: Path) -> None:
    context = trusting(tmp_path / "first.pem")
    answer = ask(server, context)
    assert answer.status == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert f'realm="https://{server.host}/token"' in challenge
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(server, context).status == 401
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(server, old)


@pytest.mark.long
@pytest.mark.peer("openssl")
def test_a_new_certificate_while_it_runs(server: RegistryServer, tmp_path: Path) -> None:
    first, second = trusting(tmp_path / "first.pem"), certificate(tmp_path, "second")
    both = ssl.create_default_context(cafile=str(tmp_path / "first.pem"))
    both.load_verify_locations(str(second[0]))
    failures: list[BaseException] = []
    answers: list[int] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                answers.append(ask(server, both).status)
            except OSError as error:
                failures.append(error)
            time.sleep(0.005)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        # One file alone cannot be used: nothing happens.
        shutil.copy(second[0], tmp_path / "certificate.pem")
        wait_for_line(server.log, "stays as it was")
        assert ask(server, first).status == 401
        install(second, tmp_path)

        def renewed() -> bool:
            for _ in range(40):  # each worker gets some
                try:
                    ask(server, first)
                except ssl.SSLCertVerificationError:
                    continue
                except (ssl.SSLError, ConnectionError):
                    pass  # cut off with a worker that ended: nothing is known from it
                return False
            return True

        wait_until(renewed, what="the new certificate", log=server.log)
        time.sleep(1)
        # On a busy machine all of these requests may come to the worker that was replaced first.
        wait_until(renewed, what="the end of the workers before", log=server.log)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert ask(server, trusting(second[0])).status == 401
    assert set(answers) == {401}
    # Requests are finished. What was only being connected to a worker that ended may be cut off: for each
    # of the two clients and each of the two workers one or two.
    assert all(isinstance(error, ssl.SSLError | ConnectionError) for error in failures)
    assert len(failures) <= max(8, len(answers) // 50)


@pytest.mark.long
@pytest.mark.peer("openssl")
def test_a_worker_that_starts_while_the_files_cannot_be_used(server: RegistryServer, tmp_path: Path) -> None:
    """It gets what was used before: else a worker that dies would take the whole registry along."""
    context = trusting(tmp_path / "first.pem")
    shutil.copy(certificate(tmp_path, "second")[0], tmp_path / "certificate.pem")
    (tmp_path / "key.pem").unlink()
    wait_for_line(server.log, "stays as it was")
    before = set(server.processes()) - {server.process.pid}
    for worker in before:
        os.kill(worker, signal.SIGKILL)

    def answers() -> bool:
        try:
            return ask(server, context).status == 401
        except (ConnectionError, ssl.SSLError):
            return False

    wait_until(answers, what="a new worker", log=server.log)
    assert server.process.poll() is None
    assert not before & set(server.processes())
    for copy in (server.root / "tls").rglob("*.pem"):
        assert copy.stat().st_mode & 0o777 == 0o600
    server.stop()
    assert not (server.root / "tls").exists()


@pytest.mark.peer("openssl")
def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    certificate(tmp_path, "one"), certificate(tmp_path, "two")
    (tmp_path / "garbage").write_text("garbage")
    pairs: list[tuple[str, str]] = [("one.pem", "two.key"), ("one.pem", "none"), ("garbage", "one.key")]
    for pair in pairs:
        file = tmp_path / "registry.toml"
        file.write_text(f'[tls]\ncertificate = "{pair[0]}"\nkey = "{pair[1]}"\n')
        done = run_digestry(
            "serve",
            "--config",
            file,
            "--root",
            tmp_path / "root",
            "--listen",
            "127.0.0.1:0",
            timeout=PATIENCE,
        )
        assert done.returncode == 2
        assert "[tls]: " in done.stderr
        assert "[Errno" not in done.stderr
        if pair[1] == "none":
            assert f"cannot read {tmp_path / 'none'}: no such file" in done.stderr
            assert "[tls] of registry.toml" in done.stderr
        else:
            assert "cannot be used for TLS" in done.stderr
