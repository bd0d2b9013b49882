"""Reports of an agent, sent to a registry's ``_digestry/fleet/reports``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from digestry.client.transport import Call, Transport
from digestry.client.wait_budget import retry_after
from digestry.errors import InvalidConfiguration, ProtocolViolation, RemoteError
from digestry.model.digest import shown
from digestry.model.fleet import FleetReceipt

_PATH: Final = "/v2/_digestry/fleet/reports"
_LARGEST_ANSWER: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class ReportRefusal:
    """The response of a registry that did not take a report.

    ``pause`` is how many seconds it asks to wait.
    """

    status: int
    message: str
    hint: str = ""
    pause: float | None = None


class FleetIntake:
    """A registry that takes reports, at ``registry``: ``host[:port]`` or its URL.

    Raises :class:`InvalidConfiguration` for anything else, and for plain HTTP where the client's options do
    not allow it: a token goes with each report.
    """

    def __init__(self, transport: Transport, registry: str) -> None:
        parts = urlsplit(registry if "://" in registry else f"//{registry}")
        try:
            host = parts.netloc if parts.hostname and parts.port != 0 else ""
        except ValueError:
            host = ""
        if not host or parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
            raise InvalidConfiguration(
                f"{shown(registry)} is not a registry", hint="write https://HOST[:PORT], or HOST[:PORT]"
            )
        if parts.scheme not in {"", "http", "https"}:
            raise InvalidConfiguration(f"{shown(registry)}: only http and https are spoken to registries")
        if parts.scheme == "http" and not transport.options.may_be_plain(host):
            raise InvalidConfiguration(
                f"{shown(registry)}: the agent's token would go over plain HTTP",
                hint=f"let the registry have TLS, or: digestry config set insecure-registries {host}",
            )
        self._transport = transport
        self.host = host
        if parts.scheme:
            transport.place(host, f"{parts.scheme}://{host}")

    def send(self, report: bytes, token: str) -> FleetReceipt | ReportRefusal:
        """Send an encoded report with the agent's token, and return the registry's receipt, or its refusal.

        Raises :class:`~digestry.errors.Unreachable`, and :class:`ProtocolViolation` for any other answer.
        """
        url = self._transport.base(self.host) + _PATH
        call = Call(
            "POST",
            url,
            {"Content-Type": "application/json"},
            report,
            repeatable=False,
            secret=True,
            registry=self.host,
        )
        with self._transport.send(call, authorization=f"Bearer {token}") as response:
            if response.status == 200:
                return response.json(FleetReceipt, _LARGEST_ANSWER)
            pause = retry_after(response.headers)
            try:
                response.fail("report what runs")
            except ProtocolViolation:
                raise
            except RemoteError as error:
                return ReportRefusal(response.status, error.message, error.hint, pause)
