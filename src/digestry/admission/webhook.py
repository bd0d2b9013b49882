"""The webhook: an AdmissionReview in, the decision out, with the log line and the metrics of it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from digestry.admission.decision import Decision, Finding, decide
from digestry.admission.decision_log import DecisionLog
from digestry.admission.decision_scope import Change, NotLookedAt, subject_of, templates_in
from digestry.admission.http_server import Request, Response
from digestry.admission.metrics import AdmissionMetrics
from digestry.admission.policy import Action, Policy
from digestry.admission.review import AdmissionRequest, decode_review, encode_response, whole_items
from digestry.admission.shared_inquiries import SharedInquiries
from digestry.errors import InvalidConfiguration
from digestry.model.timestamps import rfc3339

PATH: Final = "/validate"
"""Where reviews are sent."""

_MARGIN: Final = 0.5
"""Seconds of the API server's time limit that are left for the answer's way back."""

NamespaceLabels = Callable[[str], Awaitable[Mapping[str, str] | None]]
"""Returns the labels of a namespace; None if they are not known."""


async def _no_labels(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An answered request."""

    decision: Decision
    response: bytes


class Webhook:
    """Answers reviews. ``policy`` may be replaced at any time; ``record`` gets a line of each decision."""

    def __init__(
        self,
        policy: Policy,
        asker: SharedInquiries,
        metrics: AdmissionMetrics,
        *,
        namespace_labels: NamespaceLabels = _no_labels,
        record: DecisionLog | None = None,
    ) -> None:
        self.policy = policy
        self._asker = asker
        self._metrics = metrics
        self._namespace_labels = namespace_labels
        self._record = record

    async def handle(self, request: Request) -> Response:
        """Answer a request to the webhook's port."""
        if request.path in {"/livez", "/healthz"} and request.method == "GET":
            return Response(200, b"ok\n", "text/plain")
        if request.path != PATH:
            return Response(404, b'{"message": "reviews are sent to /validate"}')
        if request.method != "POST":
            return Response(405, b'{"message": "a review is sent by POST"}')
        begun = time.perf_counter()
        try:
            review = decode_review(request.body)
        except InvalidConfiguration as error:
            self._metrics.not_understood.inc()
            return Response(400, msgspec.json.encode({"message": f"{error.message} {error.hint}".strip()}))
        return Response(200, await self.answer(review, self._wait(request.query.get("timeout", "")), begun))

    async def answer(self, review: AdmissionRequest, wait: float, begun: float) -> bytes:
        """Return the response to ``review``. Registries are waited for ``wait`` seconds at the most."""
        policy = self.policy
        decision = await self._decide(review, policy, wait)
        response = _response(review, decision, policy)
        seconds = time.perf_counter() - begun
        self._metrics.answered(review, decision, policy, seconds)
        if self._record is not None and (decision.images or decision.notes):
            await self._record.write(_line(review, decision, policy, seconds))
        return response

    async def _decide(self, review: AdmissionRequest, policy: Policy, wait: float) -> Decision:
        change = Change(
            review.kind, review.namespace, review.object, review.old, review.operation, review.subresource
        )
        if not change.names_images:
            return Decision(allowed=True, would_deny=False)
        templates = templates_in(change, policy)
        if isinstance(templates, NotLookedAt):
            return Decision(allowed=True, would_deny=False, notes=(templates.reason,))
        labels: Mapping[str, str] | None = {}
        if policy.needs_namespace_labels:
            labels = await self._namespace_labels(review.namespace)
        subject = subject_of(change, templates, policy, labels)
        if not subject.images and not any(template.faults for template in subject.templates):
            return Decision(allowed=True, would_deny=False)
        knowledge = await self._asker.knowledge_of(subject.images, policy, wait)
        return decide(subject, policy, knowledge, datetime.datetime.now(datetime.UTC))

    def _wait(self, timeout: str) -> float:
        """Return how long registries may be waited for, by the API server's own limit, such as ``10s``."""
        wait = self._asker.options.wait
        if timeout.endswith("s") and timeout[:-1].isdecimal():
            wait = min(wait, max(0.05, float(timeout[:-1]) - _MARGIN))
        return wait


def message_of(decision: Decision) -> str:
    """Return the reason of a denial, as a person reads it."""
    lines = [finding.text for finding in decision.having("deny")]
    return "; ".join((*lines, *decision.notes)) or "denied"


def _response(review: AdmissionRequest, decision: Decision, policy: Policy) -> bytes:
    warnings = [finding.short_text for finding in decision.having("warn")]
    if policy.mode == "audit":
        if decision.would_deny:
            warnings = [f"would be denied: {one.short_text}" for one in decision.having("deny")] + warnings
        warnings = warnings if policy.audit_warnings else []
    warnings += decision.notes
    return encode_response(
        review.uid,
        allowed=decision.allowed,
        message=message_of(decision),
        warnings=warnings,
        annotations=_annotations(decision, policy),
    )


def word_of(decision: Decision) -> Action:
    """Return the decision by the rules, whatever the mode: allow, warn or deny."""
    if decision.would_deny:
        return "deny"
    return "warn" if decision.having("warn") else "allow"


def _annotations(decision: Decision, policy: Policy) -> dict[str, str]:
    if not decision.images and not decision.notes:
        return {}
    found: dict[str, str] = {"decision": word_of(decision), "mode": policy.mode}
    if decision.rules:
        found["rule"] = ", ".join(decision.rules)
    told = [finding for finding in decision.findings if finding.action != "allow" or finding.exempted]
    if told:
        found["findings"], left_out = whole_items(_finding(one) for one in told)
        if left_out:
            found["findings-left-out"] = str(left_out)
    return found


def _finding(finding: Finding) -> dict[str, Any]:
    values: dict[str, Any] = {
        "condition": finding.condition,
        "action": finding.action,
        "image": finding.image,
        "users": finding.users,
        "rule": finding.rule,
        "reason": finding.reason,
    }
    if finding.exempted:
        values["exempted"] = finding.exempted
    return values


def _line(review: AdmissionRequest, decision: Decision, policy: Policy, seconds: float) -> str:
    now = datetime.datetime.now(datetime.UTC)
    values = {
        "time": rfc3339(now),
        "uid": review.uid,
        "operation": review.operation,
        "kind": review.kind[1],
        "group": review.kind[0],
        "subresource": review.subresource,
        "namespace": review.namespace,
        "name": review.name,
        "user": review.user,
        "dry_run": review.dry_run,
        "mode": policy.mode,
        "decision": word_of(decision),
        "allowed": decision.allowed,
        "rules": decision.rules,
        "images": [
            {
                "image": one.image,
                "digest": None if one.digest is None else str(one.digest),
                "assessment": one.assessment,
                "asked_at": rfc3339(one.asked_at),
                "since": None if one.since is None else rfc3339(one.since),
                "away": one.away,
            }
            for one in decision.images
        ],
        "findings": [_finding(one) for one in decision.findings],
        "notes": decision.notes,
        "milliseconds": round(seconds * 1000, 3),
    }
    return msgspec.json.encode(values).decode() + "\n"
