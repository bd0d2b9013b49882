"""The test of a policy on manifests as SARIF 2.1.0, for code scanning, and as JUnit XML."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from digestry.admission.decision import Finding
from digestry.admission.image_knowledge import ImageKnowledge
from digestry.admission.policy import Condition
from digestry.admission.tested_manifests import FailOn, JudgedManifest
from digestry.audit.reports.junit_suite import Case, counted, write_suite
from digestry.audit.reports.sarif_log import address_segment, message_text, write_log
from digestry.model.json_values import JsonObject
from digestry.model.text import printable

FINGERPRINT: Final = "digestryManifest/v1"
"""Covers the file, the object, the users of the image, the condition and the image, but no line."""

_FAULT: Final = "invalid-object"
_RULES: Final[dict[str, str]] = {
    "affected": "An advisory says that the image is affected",
    "not-assessed": "Nobody has stated whether the image is vulnerable",
    "missing": "The registry has no such image",
    "moved": "The tag came to its image a short while ago",
    "never-pointed": "The tag never pointed to the digest that is written beside it",
    "not-pinned": "The image is named without a digest",
    "unknown-registry": "The image is of a registry that the policy does not name",
    "no-proof": "The registry's transparency log does not prove where the tag points",
    "behind": "The registry is a mirror that could not ask its upstream",
    "away": "The registry did not answer",
    "unknown": "Something that the policy asks for is not known",
    _FAULT: "The webhook would deny the object for what it is",
}
_LEVELS: Final = {"deny": "error", "warn": "warning", "allow": "note"}


def to_sarif(tested: Sequence[JudgedManifest]) -> Iterator[str]:
    """Yield a log with a result for each finding that the policy warns of or denies, or that an exemption
    lets through, which is suppressed then."""
    used = [name for name in _RULES if any(name in _names(one) for one in tested)]
    index = {name: position for position, name in enumerate(used)}
    rules: list[JsonObject] = [
        {
            "id": name,
            "shortDescription": {"text": _RULES[name]},
            "properties": {"tags": ["security", "container"]},
        }
        for name in used
    ]
    problems = [problem for one in tested for problem in _problems(one)]
    return write_log(rules, problems, _results(tested, index))


def to_junit(tested: Sequence[JudgedManifest], fail_on: FailOn) -> Iterator[str]:
    """Yield a suite with a test case for each image of each object. Only one of which everything is known
    and allowed passes; what was not looked at is an error."""
    cases = [case for one in tested for case in _cases(one, fail_on)]
    return write_suite("digestry admission test", counted(cases), cases)


# -- SARIF --------------------------------------------------------------------------------------


def _told(one: JudgedManifest) -> list[Finding]:
    return [finding for finding in one.findings if finding.action != "allow" or finding.exempted]


def _names(one: JudgedManifest) -> set[str]:
    names: set[str] = {finding.condition for finding in _told(one)}
    return names | {_FAULT} if one.faulty else names


def _problems(one: JudgedManifest) -> Iterator[str]:
    where = f"{one.manifest.file}:{one.manifest.lines.line()}: {one.manifest.title}"
    if one.overlooked:
        yield from (f"{where}: {note}" for note in one.notes)
    for finding in one.unanswered:
        yield f"{where}: {finding.text}"


def _results(tested: Sequence[JudgedManifest], index: dict[str, int]) -> Iterator[JsonObject]:
    for one in tested:
        for finding in _told(one):
            yield _result(one, finding, index)
        if one.faulty:
            for note in one.notes:
                text = f"{one.manifest.title}: {note}"
                yield {
                    **_found(one, _FAULT, index, one.manifest.lines.line(), text=text, about=(note,)),
                    "level": "error",
                }


def _result(one: JudgedManifest, finding: Finding, index: dict[str, int]) -> JsonObject:
    text = f"{one.manifest.title}: {finding.text}"
    about = (*finding.users, finding.image)
    result = _found(one, finding.condition, index, one.line(finding), text=text, about=about)
    result["level"] = _LEVELS[finding.action]
    result["properties"] = {
        "image": printable(finding.image),
        "action": finding.action,
        "policyRule": printable(finding.rule),
    }
    if finding.exempted:
        result["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": message_text(finding.exempted)}
        ]
    return result


def _found(
    one: JudgedManifest, rule: str, index: dict[str, int], line: int, *, text: str, about: Sequence[str]
) -> dict[str, object]:
    manifest = one.manifest
    parts = (manifest.file, *manifest.change.kind, manifest.title, rule, *about)
    fingerprint = hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()
    return {
        "ruleId": rule,
        "ruleIndex": index[rule],
        "kind": "fail",
        "message": {"text": message_text(text)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _address(manifest.file)},
                    "region": {"startLine": line},
                },
                "logicalLocations": [
                    {"fullyQualifiedName": printable(manifest.title), "kind": "resource"},
                ],
            }
        ],
        "partialFingerprints": {FINGERPRINT: fingerprint},
    }


def _address(file: str) -> str:
    """Return the address of a file: relative to the current directory, where code scanning knows it."""
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    parts = PurePosixPath(path.as_posix()).parts
    if path.is_absolute():
        return "file:///" + "/".join(map(address_segment, parts[1:]))
    return "/".join(".." if part == ".." else address_segment(part) for part in parts)


# -- JUnit --------------------------------------------------------------------------------------


def _cases(one: JudgedManifest, fail_on: FailOn) -> Iterator[Case]:
    file, title = one.manifest.file, one.manifest.title
    if one.decision is None and not one.overlooked:
        return  # of a kind without pods
    for known in () if one.decision is None else one.decision.images:
        yield _image(one, known, fail_on)
    about = tuple(one.notes)
    if one.faulty:
        yield Case(file, title, "failure", _FAULT, "; ".join(about), details=about)
    elif one.overlooked:
        yield Case(file, title, "error", "not looked at", "; ".join(about), details=about)
    elif one.decision is not None and not one.decision.images:
        yield Case(file, title, output=about or ("it names no image that is judged",))


def _image(one: JudgedManifest, known: ImageKnowledge, fail_on: FailOn) -> Case:
    mine = [finding for finding in one.findings if finding.image == known.image]
    failing = [each for each in mine if each.action == "deny" or (fail_on == each.action == "warn")]
    about = tuple(
        f"{one.manifest.file}:{one.line(each)}: {each.text}"
        f" [{each.exempted or each.action}, rule {each.rule or 'default'}]"
        for each in mine
    )
    digest = "" if known.digest is None else f"it is {known.digest}"
    case = Case(one.manifest.file, f"{one.manifest.title}: {known.image}", output=(digest, *about))
    conditions: list[Condition] = list(dict.fromkeys(each.condition for each in failing))
    if failing:
        text = "; ".join(each.text for each in failing)
        return replace(case, outcome="failure", kind=", ".join(conditions), message=text, details=about)
    unanswered = [each for each in mine if each in one.unanswered]
    if unanswered:
        text = "; ".join(each.text for each in unanswered)
        return replace(case, outcome="error", kind="not known", message=text, details=about)
    warned = [each for each in mine if each.action == "warn"]
    if warned:
        return replace(case, outcome="skipped", message="; ".join(each.text for each in warned))
    return case
