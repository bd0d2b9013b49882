"""The audit: one finding for every container, and one line for everything that could not be seen."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from digestry.audit.assessment import AdvisoryIndex, State
from digestry.audit.fact_finding import ImageInquiry, InquiryResult, finish
from digestry.audit.facts import ImageUse
from digestry.audit.findings import AuditReport, ContainerFinding
from digestry.audit.image_advisories import ImageAdvisories
from digestry.audit.image_names import NO_NAMES, ImageNames
from digestry.audit.judge import Verdict, judge
from digestry.audit.prefetch import of_images, prefetch
from digestry.audit.registry_queries import RegistryQueries
from digestry.inventory.gathering import SOURCE_TIMEOUT, gather
from digestry.inventory.observation import ContainerObservation, Source, Unseen
from digestry.inventory.waiting_reasons import Waiting

_PARALLEL: Final = 8
_WORST_FIRST: Final[dict[State, int]] = {
    "affected": 0, "unknown": 1, "not_assessed": 2, "fixed": 3, "not_affected": 4,
}  # fmt: skip


def audit(
    sources: Sequence[Source],
    queries: RegistryQueries,
    *,
    names: ImageNames = NO_NAMES,
    source_timeout: float = SOURCE_TIMEOUT,
) -> AuditReport:
    """Ask every source, find out the facts of every image that was seen, and judge each container.

    A source that does not finish within ``source_timeout`` seconds, or its own, is a problem; the containers
    that it reported until then count. Raises nothing for a source or a registry that fails: that is part of
    the report.
    """
    gathered = gather(sources, timeout=source_timeout)
    # Containers of one image have one answer.
    uses = _Uses()
    numbers = [uses.number(container) for container in gathered.containers]
    judged = judge_images(uses.every, queries, names)
    found = [result for result, _ in judged]
    findings = _findings(gathered.containers, numbers, found, [verdict for _, verdict in judged])
    problems = gathered.problems + _registry_problems(queries, [result.missed for result in found])
    names_of_sources = tuple(source.name for source in sources)
    return AuditReport(tuple(findings), tuple(problems), tuple(gathered.notes), names_of_sources)


def judge_images(
    uses: Sequence[ImageUse], queries: RegistryQueries, names: ImageNames = NO_NAMES
) -> list[tuple[InquiryResult, Verdict]]:
    """Return the facts of each image and the verdict on it. Raises nothing, as :func:`audit`."""
    return [(result, judge(result.container, result.facts)) for result in _find_facts(uses, queries, names)]


def _find_facts(uses: Sequence[ImageUse], queries: RegistryQueries, names: ImageNames) -> list[InquiryResult]:
    """Return the facts of each image, asking many registries, and about many images, at a time."""
    advisories = ImageAdvisories(queries)
    inquiries = [ImageInquiry(queries, use, names, advisories) for use in uses]
    prefetch(queries, (question for inquiry in inquiries for question in inquiry.questions()))
    with ThreadPoolExecutor(_PARALLEL, "audit") as pool:
        list(pool.map(ImageInquiry.identify, inquiries))
        prefetch(queries, (question for inquiry in inquiries for question in inquiry.attachments()))
        found = list(pool.map(ImageInquiry.find_facts, inquiries))
        # The same code may run from several repositories, and only one may have the advisory.
        index = AdvisoryIndex()
        for result in found:
            if result.facts.identity is not None:
                index.add(result.facts.identity.config, result.facts.reading.advisories)
        prefetch(queries, of_images(index.fixed_images()))
        return list(pool.map(lambda result: finish(queries, advisories, result, index), found))


class _Uses:
    """A numbering of the distinct uses of images. A source may give half a million containers the same few
    objects, which are recognised by their identity; equal objects count as one image too."""

    def __init__(self) -> None:
        self.every: list[ImageUse] = []
        self._by_identity: dict[tuple[int, bool, Waiting, bool], int] = {}
        self._by_value: dict[ImageUse, int] = {}

    def number(self, seen: ContainerObservation) -> int:
        # The containers are kept, so that no identity is used again.
        key = id(seen.image), seen.runs, seen.waiting, bool(seen.remarks)
        number = self._by_identity.get(key)
        if number is None:
            use = ImageUse(seen.image, seen.runs, seen.waiting, bool(seen.remarks))
            number = self._by_value.setdefault(use, len(self.every))
            if number == len(self.every):
                self.every.append(use)
            self._by_identity[key] = number
        return number


def _findings(
    containers: Sequence[ContainerObservation],
    numbers: Sequence[int],
    found: Sequence[InquiryResult],
    verdicts: Sequence[Verdict],
) -> list[ContainerFinding]:
    """Return one finding for each container, the worst first."""
    reasons: dict[tuple[int, tuple[str, ...]], tuple[str, ...]] = {}
    findings = []
    for container, number in zip(containers, numbers, strict=True):
        facts, verdict = found[number].facts, verdicts[number]
        key = number, container.remarks
        why = reasons.get(key)
        if why is None:
            why = reasons[key] = tuple(dict.fromkeys([*container.remarks, *verdict.reasons]))
        findings.append(
            ContainerFinding(
                container,
                facts.identity if container.runs else None,
                verdict.tag,
                verdict.assessment,
                verdict.action,
                why,
                facts.fix.image,
                found[number].placement,
                facts.fix.refused,
                facts.fix.bases,
            )
        )
    findings.sort(key=_order)
    return findings


def _order(finding: ContainerFinding) -> tuple[int, str, str, str, str]:
    seen = finding.container
    return _WORST_FIRST[finding.assessment.state], seen.host, seen.namespace, seen.name, seen.id


def _registry_problems(queries: RegistryQueries, missed: Sequence[Sequence[Unseen]]) -> list[Unseen]:
    """Return one line for each registry that did not answer, and one for each other failure."""
    silent = queries.unreachable()
    lines = [
        Unseen(f"registry {host}", error.message, error.hint or "what it holds was not looked at")
        for host, error in silent
    ]
    hosts = tuple(f"registry {host}/" for host, _ in silent)
    others = dict.fromkeys(problem for problems in missed for problem in problems)
    return lines + [problem for problem in others if not problem.source.startswith(hosts)]
