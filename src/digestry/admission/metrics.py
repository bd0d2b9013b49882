"""The metrics of the webhook, in Prometheus' text format."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from digestry.admission.decision import Decision
from digestry.admission.pod_templates import KNOWN
from digestry.admission.policy import Policy
from digestry.admission.review import AdmissionRequest

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_OTHER: Final = "other"
_KINDS: Final = frozenset(kind for _, kind in KNOWN)


class AdmissionMetrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "digestry_admission_decisions",
            "Reviews, by the kind of the object, what the rules say (allow, warn, deny), and the mode",
            ["kind", "decision", "mode", "dry_run"],
            registry=self.registry,
        )
        self._conditions = Counter(
            "digestry_admission_conditions",
            "Conditions that held for images, by what the policy says of them",
            ["condition", "action", "rule"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "digestry_admission_seconds",
            "Time from a review to its answer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.not_understood = Counter(
            "digestry_admission_not_understood",
            "Requests that were no AdmissionReview",
            registry=self.registry,
        )
        self.lost_decisions = Counter(
            "digestry_admission_lost_log_lines",
            "Decisions whose line could not be written to the log of decisions",
            registry=self.registry,
        )
        self.remembered = Gauge(
            "digestry_admission_remembered_images", "Images in memory", registry=self.registry
        )
        self.oldest = Gauge(
            "digestry_admission_oldest_answer_seconds",
            "Age of the oldest answer in memory",
            registry=self.registry,
        )
        self.away = Gauge(
            "digestry_admission_registry_away",
            "1 for a registry that does not answer",
            ["registry"],
            registry=self.registry,
        )
        self.inquiries = Gauge(
            "digestry_admission_inquiries", "Inquiries that requests waited for", registry=self.registry
        )
        self.policy_failures = Counter(
            "digestry_admission_policy_failures",
            "Times that a changed policy was wrong, and the one before it stayed",
            registry=self.registry,
        )
        self.policy_current = Gauge(
            "digestry_admission_policy_current",
            "0 if the policy file is wrong, and an earlier one is in force",
            registry=self.registry,
        )
        self.certificate_expiry = Gauge(
            "digestry_admission_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970",
            registry=self.registry,
        )
        self.policy_current.set(1)

    def answered(self, review: AdmissionRequest, decision: Decision, policy: Policy, seconds: float) -> None:
        """Count an answer."""
        kind = review.kind[1] if review.kind[1] in _KINDS else _OTHER
        word = "deny" if decision.would_deny else "warn" if decision.having("warn") else "allow"
        self._decisions.labels(kind, word, policy.mode, str(review.dry_run).lower()).inc()
        for finding in decision.findings:
            self._conditions.labels(finding.condition, finding.action, finding.rule).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)
