"""Webhooks whose receiver has a certificate of a private authority, or only half of a handshake."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from digestry.errors import InvalidConfiguration
from digestry.registry import webhooks
from digestry.registry.toml import Where
from digestry.registry.webhook_dispatcher import Sender
from digestry.registry.webhooks import Webhook
from tests import certificates
from tests.registry.webhook_receiver import SECRET, Receiver

pytestmark = pytest.mark.peer("openssl")


@pytest.fixture
def made(tmp_path: Path) -> certificates.Certificates:
    return certificates.make(tmp_path / "tls")


@pytest.fixture
def receiver(made: certificates.Certificates) -> Iterator[Receiver]:
    """One that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*made.server)
    server = Receiver()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(receiver: Receiver, scheme: str = "https") -> str:
    return f"{scheme}://127.0.0.1:{receiver.server_address[1]}/hook"


MESSAGE = b'{"id": "1"}'
HEADERS = {"Webhook-Id": "1", "Webhook-Timestamp": "0"}


def sent(webhook: Webhook) -> str | None:
    refusal = Sender(webhook).send(MESSAGE, HEADERS)
    return None if refusal is None else refusal.problem


def test_an_authority_of_ones_own(receiver: Receiver, made: certificates.Certificates) -> None:
    stranger = sent(Webhook("h", url(receiver), SECRET.encode()))
    assert stranger is not None
    assert "certificate verify failed" in stranger
    assert receiver.asked == 0
    # The receiver finds that the message is not signed, and hangs up: it was believed, and got it.
    for scheme in ("https", "HTTPS"):
        trusted = sent(Webhook("h", url(receiver, scheme), SECRET.encode(), ca=Path(made.authority)))
        assert trusted is not None
        assert trusted.startswith("RemoteDisconnected")
    assert receiver.asked == 2


@pytest.mark.long
def test_a_handshake_that_drips_is_cut() -> None:
    """Each byte comes before the socket's own timeout does."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"\x16\x03\x03\x40\x00")
                while not over.wait(0.1):
                    try:
                        connection.sendall(b"\x02")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        try:
            address = f"https://127.0.0.1:{listening.getsockname()[1]}/"
            assert sent(Webhook("h", address, SECRET.encode(), timeout=1.0)) == "no answer within 1 s"
        finally:
            over.set()
            thread.join()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("content", "address", "complaint"),
    [
        (None, "https://h.example/", "No such file"),
        ("no certificate", "https://h.example/", "no certificate in PEM"),
        ("", "https://h.example/", "no certificate in PEM"),
        ("no certificate", "http://h.example/", "https:"),
    ],
)
def test_an_authority_that_cannot_be(
    tmp_path: Path, content: str | None, address: str, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    table = {"name": "h", "url": address, "secret": SECRET, "ca": "ca.pem"}
    with pytest.raises(InvalidConfiguration, match=complaint):
        webhooks.parse({"webhook": [table]}, Where(tmp_path / "registry.toml"))
