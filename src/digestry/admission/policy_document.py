"""The keys of an admission file, with their types and defaults: docs/admission.md has the same."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from digestry.admission.policy import Action, Condition


class _Table(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """A table, of which every key is known."""


class TargetTable(_Table, frozen=True):
    """``match`` and ``except`` of a rule."""

    namespaces: list[str] = []
    labels: str = ""
    namespace_labels: str = ""


class ActionsTable(_Table, frozen=True):
    """``[default]``: an action for each condition, and the settings of some."""

    affected: Action | None = None
    not_assessed: Action | None = None
    missing: Action | None = None
    moved: Action | None = None
    never_pointed: Action | None = None
    not_pinned: Action | None = None
    unknown_registry: Action | None = None
    no_proof: Action | None = None
    behind: Action | None = None
    away: Action | None = None
    unknown: Action | None = None
    moved_within: str | None = None
    affected_from: Literal["negligible", "low", "medium", "high", "critical"] | None = None


class RuleTable(ActionsTable, frozen=True):
    """``[[rule]]``."""

    name: str = ""
    match: TargetTable = TargetTable()
    except_: TargetTable = field(default=TargetTable(), name="except")


class ExemptionTable(_Table, frozen=True):
    """``[[exempt]]``. Any: TOML and YAML have dates of their own."""

    reason: str
    until: Any
    images: list[str] = []
    digests: list[str] = []
    namespaces: list[str] = []
    conditions: list[Condition] = []
    vulnerabilities: list[str] = []


class WorkloadTable(_Table, frozen=True):
    """``[[workload]]``: where the pod templates of another kind are."""

    kind: str
    paths: list[str]
    group: str = ""


class AnswersTable(_Table, frozen=True):
    """``[answers]``: what is kept in memory, and for how long."""

    refresh: str = "5s"
    fresh: str = "20s"
    wait: str = "2s"
    keep: str = "24h"
    images: int = 10_000
    warm: Literal["off", "cluster"] = "off"


class ServerTable(_Table, frozen=True):
    """``[server]``."""

    listen: str = "0.0.0.0:8443"
    metrics: str = "0.0.0.0:9090"
    drain: str = "10s"


class CertificateTable(_Table, frozen=True):
    """``[certificate]``: files that another program renews, or a certificate that is made here."""

    certificate: str = ""
    key: str = ""
    secret: str = ""
    directory: str = ""
    names: list[str] = []
    webhook: str = ""
    lifetime: str = "90d"


class PolicyDocument(_Table, frozen=True):
    """The whole file."""

    registries: list[str]
    mode: Literal["enforce", "audit"] = "enforce"
    audit_warnings: bool = True
    unchanged: Literal["allow", "judge"] = "allow"
    fleet: str = ""
    default: ActionsTable = ActionsTable()
    rule: list[RuleTable] = []
    exempt: list[ExemptionTable] = []
    workload: list[WorkloadTable] = []
    answers: AnswersTable = AnswersTable()
    server: ServerTable = ServerTable()
    certificate: CertificateTable = CertificateTable()
