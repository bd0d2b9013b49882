"""The admission file: its policy, and how the webhook runs. TOML, or YAML with the same keys.

Each error names the line and the key, and nothing of a file with an error is used.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeVar

from digestry.admission import file_lines
from digestry.admission.pod_templates import KNOWN, Kind
from digestry.admission.policy import (
    CONDITIONS,
    DEFAULT_ACTIONS,
    DEFAULT_MOVED_WITHIN,
    Action,
    Condition,
    Exemption,
    Policy,
    Rule,
    Target,
)
from digestry.admission.policy_document import (
    ActionsTable,
    CertificateTable,
    ExemptionTable,
    PolicyDocument,
    RuleTable,
    TargetTable,
    WorkloadTable,
)
from digestry.admission.policy_text import PolicyText
from digestry.admission.selectors import parse_selector
from digestry.errors import InvalidConfiguration, InvalidDigest
from digestry.model.digest import Digest, shown

_LARGEST: Final = 4 << 20
_SPANS: Final = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(ms|s|min|m|h|d|w)", re.ASCII)
_PATTERN: Final = re.compile(r"[A-Za-z0-9._/*?:\[\]-]+", re.ASCII)
_PATH: Final = re.compile(
    r"[A-Za-z_][A-Za-z0-9_-]*(?:\[\])?(?:\.[A-Za-z_][A-Za-z0-9_-]*(?:\[\])?)*", re.ASCII
)
_LISTEN: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]*):([0-9]{1,5})", re.ASCII)

_FIRST: Final = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_LAST: Final = datetime.datetime.max.replace(tzinfo=datetime.UTC)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How long answers count, in seconds, and how many are kept. ``fresh`` is the age up to which an answer
    is used unasked, ``wait`` how long a request waits for a registry, ``keep`` how long one is remembered.
    ``warm`` is whose images are asked about at the start."""

    refresh: float = 5.0
    fresh: float = 20.0
    wait: float = 2.0
    keep: float = 86400.0
    images: int = 10_000
    warm: Literal["off", "cluster"] = "off"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class CertificateOptions:
    """Where the certificate is from: files, a Secret ``namespace/name``, or a directory.

    ``webhook`` is the ValidatingWebhookConfiguration that gets the authority; ``lifetime`` is in seconds.
    """

    certificate: Path | None = None
    key: Path | None = None
    secret: str = ""
    directory: Path | None = None
    names: tuple[str, ...] = ()
    webhook: str = ""
    lifetime: float = 90 * 86400.0


@dataclass(frozen=True, slots=True)
class AdmissionConfiguration:
    """The content of an admission file. ``metrics`` is None if there are none to serve; ``drain`` is in
    seconds; ``fleet`` is a fleet file, whose aliases and mirrors are used."""

    policy: Policy
    answers: AnswerOptions = field(default_factory=AnswerOptions)
    listen: Address = Address("0.0.0.0", 8443)  # noqa: S104 - a Service reaches it
    metrics: Address | None = Address("0.0.0.0", 9090)  # noqa: S104 - likewise
    drain: float = 10.0
    certificate: CertificateOptions = field(default_factory=CertificateOptions)
    fleet: Path | None = None


def load(path: Path) -> AdmissionConfiguration:
    """Read an admission file. Raises :class:`InvalidConfiguration`, which names the file and the line."""
    return parse(read(path), path)


def read(path: Path) -> bytes:
    """Return the bytes of an admission file. Raises :class:`InvalidConfiguration`."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if len(content) > _LARGEST:
        raise InvalidConfiguration(f"{path} is longer than {_LARGEST} bytes, and was not read")
    return content


def parse(content: bytes, path: Path) -> AdmissionConfiguration:
    """Return the configuration in ``content``, which was read from ``path``. Raises as :func:`load` does."""
    return _File(PolicyText(content, path)).read()


class _File:
    def __init__(self, text: PolicyText) -> None:
        self._text = text

    def read(self) -> AdmissionConfiguration:
        found = self._text.converted()
        answers = AnswerOptions(
            refresh=self._span(found.answers.refresh, ("answers", "refresh"), least=0.1, most=3600),
            fresh=self._span(found.answers.fresh, ("answers", "fresh"), least=0.1, most=86400),
            wait=self._span(found.answers.wait, ("answers", "wait"), least=0.01, most=25),
            keep=self._span(found.answers.keep, ("answers", "keep"), least=1, most=365 * 86400),
            images=self._between(found.answers.images, ("answers", "images"), 1, 1_000_000),
            warm=found.answers.warm,
        )
        if answers.fresh < answers.refresh:
            raise self._text.wrong(
                "fresh is less than refresh: no answer would ever be fresh", ("answers", "fresh")
            )
        return AdmissionConfiguration(
            policy=self._policy(found),
            answers=answers,
            listen=self._address(found.server.listen, ("server", "listen")),
            metrics=None
            if found.server.metrics == "off"
            else self._address(found.server.metrics, ("server", "metrics")),
            drain=self._span(found.server.drain, ("server", "drain"), least=0, most=600),
            certificate=self._certificate(found.certificate),
            fleet=self._file(found.fleet),
        )

    # -- the policy ---------------------------------------------------------------------------

    def _policy(self, found: PolicyDocument) -> Policy:
        if not found.registries:
            raise self._text.wrong("name at least one registry: no other is asked", ("registries",))
        default = self._rule(RuleTable(name="default"), found.default, ("default",), None)
        rules = []
        names: set[str] = set()
        for number, table in enumerate(found.rule):
            where: file_lines.Path = ("rule", number)
            if not table.name:
                raise self._text.wrong(
                    "the rule has no name", where, hint='write name = "…": answers name it'
                )
            if table.name in names or table.name == "default":
                raise self._text.wrong(f"another rule has the name {shown(table.name)}", (*where, "name"))
            names.add(table.name)
            rules.append(self._rule(table, table, where, default))
        for number, (rule, table) in enumerate(zip(rules, found.rule, strict=True)):
            if not rule.match and not rule.exclude and number < len(rules) - 1:
                raise self._text.wrong(
                    f"the rule {shown(table.name)} is about every pod, and those after it are about none",
                    ("rule", number),
                    hint="give it a match, or put it last",
                )
        return Policy(
            registries=self._patterns(found.registries, ("registries",)),
            mode=found.mode,
            audit_warnings=found.audit_warnings,
            unchanged=found.unchanged,
            default=default,
            rules=tuple(rules),
            exemptions=tuple(self._exemption(one, number) for number, one in enumerate(found.exempt)),
            paths=self._workloads(found.workload),
        )

    def _rule(
        self, table: RuleTable, actions: ActionsTable, where: file_lines.Path, default: Rule | None
    ) -> Rule:
        given: dict[Condition, Action] = {}
        for condition in CONDITIONS:
            action: Action | None = getattr(actions, condition.replace("-", "_"))
            if action is not None:
                given[condition] = action
        base: Mapping[Condition, Action] = DEFAULT_ACTIONS if default is None else default.actions
        within = DEFAULT_MOVED_WITHIN if default is None else default.moved_within
        if actions.moved_within is not None:
            path = (*where, "moved-within")
            within = self._span(actions.moved_within, path, least=1, most=10 * 365 * 86400)
        severity = "" if default is None else default.affected_from
        return Rule(
            table.name,
            self._target(table.match, (*where, "match")),
            self._target(table.except_, (*where, "except")),
            MappingProxyType({**base, **given}),
            within,
            actions.affected_from or severity,
        )

    def _target(self, table: TargetTable, where: file_lines.Path) -> Target:
        return Target(
            self._patterns(table.namespaces, (*where, "namespaces")),
            self._checked(parse_selector, table.labels, (*where, "labels")),
            self._checked(parse_selector, table.namespace_labels, (*where, "namespace-labels")),
        )

    def _exemption(self, table: ExemptionTable, number: int) -> Exemption:
        where: file_lines.Path = ("exempt", number)
        if not table.reason.strip():
            raise self._text.wrong("the exemption has no reason", (*where, "reason"))
        if not (table.images or table.digests or table.vulnerabilities or table.conditions):
            raise self._text.wrong(
                "the exemption is about everything",
                where,
                hint="name images, digests, vulnerabilities or conditions",
            )
        if table.vulnerabilities and set(table.conditions) - {"affected"}:
            raise self._text.wrong(
                "an exemption of vulnerabilities is about the condition affected alone",
                (*where, "conditions"),
            )
        digests = frozenset(
            self._checked(Digest.parse, text, (*where, "digests", position))
            for position, text in enumerate(table.digests)
        )
        return Exemption(
            table.reason.strip(),
            self._until(table.until, (*where, "until")),
            self._patterns(table.images, (*where, "images")),
            digests,
            self._patterns(table.namespaces, (*where, "namespaces")),
            frozenset(table.conditions),
            frozenset(table.vulnerabilities),
        )

    def _until(self, value: object, where: file_lines.Path) -> datetime.datetime:
        if isinstance(value, str):
            try:
                value = datetime.datetime.fromisoformat(value)
            except ValueError as error:
                raise self._text.wrong(
                    f"until: {shown(value)} is not a date", where, hint="write 2027-01-31, the last day"
                ) from error
            if not (value.hour or value.minute or value.second or value.tzinfo):
                value = value.date()
        if isinstance(value, datetime.datetime):
            aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
            try:
                return aware.astimezone(datetime.UTC)
            except OverflowError:
                return _LAST if value.year > 1 else _FIRST
        if isinstance(value, datetime.date):
            if value == datetime.date.max:
                return _LAST
            after = value + datetime.timedelta(days=1)
            return datetime.datetime(after.year, after.month, after.day, tzinfo=datetime.UTC)
        raise self._text.wrong("until must be a date, such as 2027-01-31", where)

    def _workloads(self, tables: Iterable[WorkloadTable]) -> Mapping[Kind, tuple[str, ...]]:
        paths = dict(KNOWN)
        for number, table in enumerate(tables):
            where: file_lines.Path = ("workload", number)
            if not table.kind or not table.paths:
                raise self._text.wrong("a workload has a kind and paths", where)
            for position, path in enumerate(table.paths):
                if path and _PATH.fullmatch(path) is None:
                    raise self._text.wrong(
                        f"{shown(path)} is not the path of a pod template",
                        (*where, "paths", position),
                        hint="write keys with dots between them, such as spec.template, and [] after a list",
                    )
            paths[table.group, table.kind] = tuple(table.paths)
        return MappingProxyType(paths)

    # -- the server ---------------------------------------------------------------------------

    def _certificate(self, table: CertificateTable) -> CertificateOptions:
        where: file_lines.Path = ("certificate",)
        if bool(table.certificate) != bool(table.key):
            raise self._text.wrong("certificate and key go together", where)
        kinds = [bool(table.certificate), bool(table.secret), bool(table.directory)]
        if sum(kinds) > 1:
            raise self._text.wrong(
                "the certificate is in files, in a Secret or in a directory: write one of the three", where
            )
        if table.secret and not re.fullmatch(r"[a-z0-9-]+/[a-z0-9.-]+", table.secret):
            raise self._text.wrong("secret must be NAMESPACE/NAME", (*where, "secret"))
        if (table.secret or table.directory) and not table.names:
            raise self._text.wrong(
                "names are missing: those by which the API server reaches the webhook",
                where,
                hint='write names = ["SERVICE.NAMESPACE.svc"]',
            )
        return CertificateOptions(
            self._file(table.certificate),
            self._file(table.key),
            table.secret,
            self._file(table.directory),
            tuple(table.names),
            table.webhook,
            self._span(table.lifetime, (*where, "lifetime"), least=60, most=3650 * 86400),
        )

    def _file(self, text: str) -> Path | None:
        # Relative to the file, so that it can be moved together with the files that it names.
        return self._text.path.parent / text if text else None

    def _address(self, text: str, where: file_lines.Path) -> Address:
        found = _LISTEN.fullmatch(text)
        if found is None or not int(found[2]) <= 65535:
            raise self._text.wrong(f"{shown(text)} is not an address: write HOST:PORT", where)
        return Address(found[1].strip("[]") or "0.0.0.0", int(found[2]))  # noqa: S104 - as everywhere

    # -- values -------------------------------------------------------------------------------

    def _span(self, text: str, where: file_lines.Path, *, least: float, most: float) -> float:
        found = _SPAN.fullmatch(text)
        if found is None:
            raise self._text.wrong(
                f'{where[-1]}: {shown(text)} is not a length of time: write "7d", "12h", "30min" or "5s"',
                where,
            )
        seconds = float(found[1]) * _SPANS[found[2]]
        if not least <= seconds <= most:
            raise self._text.wrong(f"{where[-1]} must be from {least:g} to {most:g} seconds", where)
        return seconds

    def _between(self, value: int, where: file_lines.Path, least: int, most: int) -> int:
        if not least <= value <= most:
            raise self._text.wrong(f"{where[-1]} must be from {least} to {most}", where)
        return value

    def _patterns(self, values: Iterable[str], where: file_lines.Path) -> tuple[str, ...]:
        found = tuple(values)
        for position, value in enumerate(found):
            if len(value) > 512 or _PATTERN.fullmatch(value) is None:
                raise self._text.wrong(
                    f"the pattern {shown(value)} matches nothing",
                    (*where, position),
                    hint="a pattern has letters, digits, . _ - : and /, and *, ** or ? where anything may be",
                )
        return found

    def _checked(self, convert: Callable[[str], _T], text: str, where: file_lines.Path) -> _T:
        try:
            return convert(text)
        except InvalidDigest as error:
            raise self._text.wrong(error.message, where, hint=error.hint) from error
        except ValueError as error:
            raise self._text.wrong(f"{where[-1]}: {error}", where) from error
