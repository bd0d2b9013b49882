"""The webhook as a service: its servers, what it watches, and how it ends without losing a request."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from digestry.admission.answer_cache import AnswerCache
from digestry.admission.certificate_files import CertificateFiles, ServerCertificate
from digestry.admission.change_watch import AskChanges, ChangeWatch
from digestry.admission.configuration import AdmissionConfiguration
from digestry.admission.decision_log import DecisionLog
from digestry.admission.http_server import HttpServer, Request, Response
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.metrics import AdmissionMetrics
from digestry.admission.policy_watch import SECONDS, PolicyWatch
from digestry.admission.shared_inquiries import SharedInquiries
from digestry.admission.webhook import Webhook
from digestry.errors import DigestryError, InvalidConfiguration

log: Final = logging.getLogger("digestry.admission")

_CERTIFICATE_SECONDS: Final = 1.0
_WARMING: Final = 20.0
"""Seconds in which what runs in the cluster is asked about, before the webhook is ready."""
_LAST_LINES: Final = 2.0
"""Seconds in which the last decisions are written to their log."""
_LAST_REQUESTS: Final = 10.0
"""Seconds in which requests that have begun are answered at the end."""


class CertificateSource(Protocol):
    """Where the certificate is from."""

    def refresh(self) -> bool:
        """Bring the certificate up to date, and return whether it changed. Raises
        :class:`~digestry.errors.DigestryError`."""


class NamespaceSource(Protocol):
    """Where the labels of namespaces are from."""

    def labels(self, namespace: str) -> Mapping[str, str] | None:
        """Return the labels of a namespace; None if they are not known."""

    def fetch(self, namespace: str) -> Mapping[str, str] | None:
        """Ask for one namespace; None if it cannot be had."""

    def refresh(self) -> None:
        """Ask for changes. Raises :class:`~digestry.errors.DigestryError`."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service is given. ``inquire`` asks registries, ``record`` is the file descriptor of the log of
    decisions; ``certificate`` makes the source of the certificate, unless that is in files."""

    inquire: Callable[[list[str], bool], Mapping[str, ImageKnowledge]]
    record: int
    changes: AskChanges | None = None
    running: Callable[[int], list[str]] | None = None
    certificate: Callable[[AdmissionConfiguration, ServerCertificate], CertificateSource] | None = None
    namespaces: Callable[[], NamespaceSource] | None = None


class AdmissionService:
    """The webhook with the configuration in ``path``."""

    def __init__(self, path: Path, surroundings: Surroundings) -> None:
        """Read the configuration. Raises :class:`InvalidConfiguration`."""
        self.metrics = AdmissionMetrics()
        self._watch = PolicyWatch(path, self._changed, self._failed)
        configuration = self._watch.current
        self._surroundings = surroundings
        self._memory = AnswerCache(configuration.answers.images, configuration.answers.keep)
        self._asker = SharedInquiries(surroundings.inquire, self._memory, configuration.answers)
        self._asker.prove = configuration.policy.needs_proofs
        if surroundings.changes is not None:
            self._asker.changes = ChangeWatch(surroundings.changes)
        self._namespaces: NamespaceSource | None = None
        self._decisions = DecisionLog(surroundings.record, self.metrics.lost_decisions.inc)
        self.webhook = Webhook(
            configuration.policy,
            self._asker,
            self.metrics,
            namespace_labels=self._labels,
            record=self._decisions,
        )
        self._asker.asks = self._asks
        self._certificate = ServerCertificate()
        self._ready = False
        self._stop = asyncio.Event()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until :meth:`stop`. Raises :class:`InvalidConfiguration`, and the errors of
        the certificate's source."""
        configuration = self._watch.current
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._watch.reload(asked=True))
        source = self._source(configuration)
        await asyncio.to_thread(source.refresh)
        self._note_certificate()
        listen = configuration.listen
        server = HttpServer(self.webhook.handle, listen.host, listen.port, self._certificate.context)
        status = None
        if configuration.metrics is not None:
            status = HttpServer(self._status, configuration.metrics.host, configuration.metrics.port)
        for one in (server, status):
            if one is not None:
                await _listen(one)
        tasks = [
            asyncio.create_task(self._asker.refresh_for_ever()),
            asyncio.create_task(self._look_at_policy()),
            asyncio.create_task(self._look_at_certificate(source)),
        ]
        if self._surroundings.namespaces is not None:
            tasks.append(asyncio.create_task(self._look_at_namespaces(self._surroundings.namespaces)))
        await self._warm(configuration)
        self._ready = True
        at = f" and metrics on port {status.port}" if status is not None else ""
        log.info("reviews are answered on port %d%s, mode %s", server.port, at, self.webhook.policy.mode)
        ended = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # none of them ends but by a defect
        finally:
            self._ready = False
            seconds = self._watch.current.drain if self._stop.is_set() else 0.0
            server.retire()
            if seconds:
                log.info("not ready any more; requests are answered for another %g s", seconds)
                await asyncio.sleep(seconds)
            await server.drain(_LAST_REQUESTS)
            for task in tasks:
                task.cancel()
            if status is not None:
                await status.drain(1.0)
            self._asker.close()
            await self._decisions.close(_LAST_LINES)
            log.info("every request was answered; the end")

    def stop(self) -> None:
        """End: not ready first, then, when clients had time to see that, no further connections."""
        self._stop.set()

    async def _warm(self, configuration: AdmissionConfiguration) -> None:
        """Ask about the images that run in the cluster, before reviews come. What fails is said, and left to
        the reviews."""
        running = self._surroundings.running
        if configuration.answers.warm != "cluster" or running is None:
            return
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_WARMING):
                images = await asyncio.to_thread(running, configuration.answers.images)
                left = max(0.0, _WARMING - (time.monotonic() - begun))
                found = await self._asker.knowledge_of(images, self.webhook.policy, left, patient=True)
        except DigestryError as error:
            log.error(
                "the images that run in the cluster are not known, and not asked about: %s", error.message
            )
            return
        except TimeoutError:
            log.error("which images run in the cluster was not known within %g s", _WARMING)
            return
        asked = [one for one in found.values() if one.asked_registry]
        answered = sum(not one.away for one in asked)
        seconds = time.monotonic() - begun
        log.info(
            "%d of %d images that run in the cluster are in memory, after %.1f s",
            answered,
            len(asked),
            seconds,
        )

    # -- what is watched ----------------------------------------------------------------------

    def _source(self, configuration: AdmissionConfiguration) -> CertificateSource:
        options = configuration.certificate
        if options.certificate is not None and options.key is not None:
            return CertificateFiles(options.certificate, options.key, self._certificate)
        if self._surroundings.certificate is None or not (options.secret or options.directory):
            raise InvalidConfiguration(
                "the webhook has no certificate",
                hint="write certificate and key, secret, or directory into [certificate]",
            )
        return self._surroundings.certificate(configuration, self._certificate)

    async def _look_at_policy(self) -> None:
        while True:
            await asyncio.sleep(SECONDS)
            try:
                self._watch.reload()
            except Exception:
                # Whatever is in the file, reviews are answered.
                self._failed()
                log.exception(
                    "the policy could not be read: THE POLICY BEFORE STAYS IN FORCE; this is a defect"
                )

    async def _look_at_certificate(self, source: CertificateSource) -> None:
        last_error = ""
        while True:
            await asyncio.sleep(_CERTIFICATE_SECONDS)
            try:
                await asyncio.to_thread(source.refresh)
                last_error = ""
            except DigestryError as error:
                if error.message != last_error:
                    log.error("%s; the certificate stays as it was", error.message)
                last_error = error.message
            self._note_certificate()

    async def _look_at_namespaces(self, make: Callable[[], NamespaceSource]) -> None:
        last_error = ""
        while True:
            if not self.webhook.policy.needs_namespace_labels:
                await asyncio.sleep(SECONDS)
                continue
            try:
                source = self._namespaces
                if source is None:
                    source = await asyncio.to_thread(make)
                await asyncio.to_thread(source.refresh)
                self._namespaces = source
                last_error = ""
            except DigestryError as error:
                if error.message != last_error:
                    log.error("the labels of namespaces are not known: %s", error.message)
                last_error = error.message
            await asyncio.sleep(1.0)

    def _note_certificate(self) -> None:
        self.metrics.certificate_expiry.set(self._certificate.expires)

    async def _labels(self, namespace: str) -> Mapping[str, str] | None:
        if not namespace:
            return {}
        source = self._namespaces
        if source is None:
            return None
        known = source.labels(namespace)
        if known is not None:
            return known
        try:
            async with asyncio.timeout(self._watch.current.answers.wait):
                return await asyncio.to_thread(source.fetch, namespace)
        except TimeoutError:
            return None

    def _asks(self, host: str) -> bool:
        return self.webhook.policy.asks(host)  # the policy may be another by now

    def _changed(self, configuration: AdmissionConfiguration) -> None:
        self.webhook.policy = configuration.policy
        self._asker.options = configuration.answers
        self._asker.prove = configuration.policy.needs_proofs
        self._memory.limit(configuration.answers.images, configuration.answers.keep)
        self.metrics.policy_current.set(1)

    def _failed(self) -> None:
        self.metrics.policy_failures.inc()
        self.metrics.policy_current.set(0)

    # -- health and metrics -------------------------------------------------------------------

    async def _status(self, request: Request) -> Response:
        if request.method != "GET":
            return Response(405, b"only GET\n", "text/plain")
        if request.path == "/metrics":
            return Response(200, self._measured(), "text/plain; version=0.0.4; charset=utf-8")
        if request.path in {"/livez", "/healthz"}:
            return Response(200, b"ok\n", "text/plain")
        if request.path == "/readyz":
            reason = self._not_ready()
            return Response(503 if reason else 200, f"{reason or 'ok'}\n".encode(), "text/plain")
        return Response(404, b"/metrics, /livez and /readyz are here\n", "text/plain")

    def _not_ready(self) -> str:
        if not self._ready:
            return "it starts or ends"
        if self._certificate.expires <= time.time():
            return "its certificate has expired"
        return ""

    def _measured(self) -> bytes:
        metrics = self.metrics
        metrics.remembered.set(len(self._memory))
        metrics.oldest.set(self._memory.oldest())
        metrics.inquiries.set(self._asker.inquiries)
        metrics.away.clear()
        for host in self._asker.absent:
            metrics.away.labels(host).set(1)
        return metrics.text()


async def _listen(server: HttpServer) -> None:
    try:
        await server.start()
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot listen on {server.address}: {(error.strerror or str(error)).lower()}"
        ) from error
