"""``digestry admission test``: the decision of a policy about manifests, before a cluster gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli import exit_codes
from digestry.cli.output import json_option
from digestry.cli.timeout_options import Seconds

if TYPE_CHECKING:
    from digestry.admission.decision import Decision
    from digestry.admission.image_knowledge import ImageKnowledge
    from digestry.admission.manifest_files import ManifestObject
    from digestry.admission.policy import Policy
    from digestry.cli.documents import AdmissionTest


class _Labels(click.ParamType[Mapping[str, str]]):
    """Labels, as ``key=value`` with commas between them."""

    name = "labels"

    def convert(
        self, value: str | Mapping[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Mapping[str, str]:
        if not isinstance(value, str):
            return value
        found: dict[str, str] = {}
        for part in filter(None, (one.strip() for one in value.split(","))):
            key, equals, text = part.partition("=")
            if not equals or not key.strip():
                self.fail(f"{part!r} is no label: write key=value", param, ctx)
            found[key.strip()] = text.strip()
        return found


@click.command("test")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|DIRECTORY|-..."
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("admission.toml"),
    show_default=True,
    metavar="FILE",
    help="The admission file.",
)
@click.option(
    "--namespace",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The namespace of objects that name none.",
)
@click.option(
    "--labels",
    type=_Labels(),
    metavar="KEY=VALUE,...",
    help="The labels of the namespace. Without them, a rule that selects by those counts if it is stricter.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["deny", "warn"]),
    default="deny",
    show_default=True,
    help="End with 1 if something would be denied, or even warned of.",
)
@click.option(
    "--timeout",
    type=Seconds(0.1, 3600),
    default=30.0,
    metavar="SECONDS",
    help="How long to wait for each answer of a registry.  [default: 30]",
)
@json_option
def test_(
    *,
    files: tuple[Path, ...],
    policy: Path,
    namespace: str,
    labels: Mapping[str, str] | None,
    fail_on: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Test whether a policy lets manifests through, as the webhook would decide now.

    FILE is YAML or JSON of any number of objects, lists, or AdmissionReviews; of a directory, every .yaml,
    .yml and .json in it; - is standard input, as in `kubectl kustomize | digestry admission test -`. The
    registries of the policy are asked; the policy's mode does not matter.

    Exit code 1 if an object would be denied; 3 if none would be, but a registry did not answer, or something
    that the policy asks for is not known; 0 only if everything was looked at.
    """
    from digestry.admission.configuration import load
    from digestry.cli.admission_inquiry import open_inquiry
    from digestry.cli.output import json_document

    configuration = load(policy)
    objects = _read(files)
    with open_inquiry(configuration, timeout=timeout) as inquire:
        decided = _decide(objects, configuration.policy, inquire, namespace, labels)
    document = _document(decided)
    if as_json:
        json_document(document)
    else:
        _print(decided)
    raise click.exceptions.Exit(_status(decided, fail_on))


def _read(files: tuple[Path, ...]) -> list[ManifestObject]:
    """Return the objects of all files. Raises :class:`~digestry.errors.InvalidConfiguration`."""
    from digestry.admission.manifest_files import read_file, read_objects
    from digestry.errors import InvalidConfiguration

    found: list[ManifestObject] = []
    for path in files:
        chosen = [path]
        if path.is_dir():
            chosen = sorted(one for one in path.rglob("*") if one.suffix in {".yaml", ".yml", ".json"})
            if not chosen:
                raise InvalidConfiguration(f"{path} has no .yaml, .yml or .json file")
        for one in chosen:
            place = "standard input" if str(one) == "-" else str(one)
            found += read_objects(read_file(one), place)
    if not found:
        raise InvalidConfiguration("there is no object in these files")
    return found


def _decide(
    objects: list[ManifestObject],
    policy: Policy,
    inquire: Callable[[list[str], bool], Mapping[str, ImageKnowledge]],
    namespace: str,
    labels: Mapping[str, str] | None,
) -> list[tuple[ManifestObject, Decision | None]]:
    """Return the decision about each object; None for one of a kind without pods."""
    import datetime
    from dataclasses import replace

    from digestry.admission.asking import unasked
    from digestry.admission.decision import Subject, decide, unchanged_images
    from digestry.admission.pod_templates import templates_of

    subjects: list[Subject | None] = []
    for one in objects:
        templates = templates_of(one.content, one.kind, policy.paths)
        if templates is None:
            subjects.append(None)
            continue
        where = one.namespace or namespace
        skip: frozenset[str] = frozenset()
        if one.old is not None:
            before = templates_of(one.old, one.kind, policy.paths) or []
            skip = unchanged_images(policy, where, labels, before, templates)
        subjects.append(Subject(where, templates, labels, skip))
    images = dict.fromkeys(image for subject in subjects if subject is not None for image in subject.images)
    knowledge = {image: unasked(image) for image in images}
    knowledge |= inquire(
        [one.image for one in knowledge.values() if one.reference and policy.asks(one.reference.host)],
        policy.needs_proofs,
    )
    now = datetime.datetime.now(datetime.UTC)
    enforced = replace(policy, mode="enforce")
    return [
        (one, None if subject is None else decide(subject, enforced, knowledge, now))
        for one, subject in zip(objects, subjects, strict=True)
    ]


def _document(decided: list[tuple[ManifestObject, Decision | None]]) -> AdmissionTest:
    from digestry.admission.webhook import word_of
    from digestry.cli.documents import AdmissionTest, TestedFinding, TestedImage, TestedObject

    return AdmissionTest(
        objects=[
            TestedObject(
                place=one.place,
                kind=one.kind[1],
                group=one.kind[0],
                namespace=one.namespace or None,
                name=one.name or None,
                decision=None if decision is None else word_of(decision),
                rules=() if decision is None else decision.rules,
                notes=() if decision is None else decision.notes,
                images=[]
                if decision is None
                else [
                    TestedImage(
                        image=known.image,
                        digest=known.digest,
                        assessment=known.assessment,
                        since=known.since,
                        away=known.away or None,
                        findings=[
                            TestedFinding(
                                condition=finding.condition,
                                action=finding.action,
                                users=finding.users,
                                fields=finding.fields,
                                rule=finding.rule,
                                reason=finding.reason,
                                advice=finding.advice or None,
                                exempted=finding.exempted or None,
                            )
                            for finding in decision.findings
                            if finding.image == known.image
                        ],
                    )
                    for known in decision.images
                ],
            )
            for one, decision in decided
        ]
    )


def _print(decided: list[tuple[ManifestObject, Decision | None]]) -> None:
    from digestry.admission.webhook import word_of
    from digestry.cli.output import note, say, table
    from digestry.model.text import number_of

    rows: list[tuple[str, ...]] = []
    for one, decision in decided:
        if decision is None:
            continue
        told = [finding for finding in decision.findings if finding.action != "allow" or finding.exempted]
        for finding in told:
            action = "exempt" if finding.exempted else finding.action
            where = f"{one.title} ({', '.join(finding.users)})"
            tail = f" ({finding.advice})" if finding.advice else ""
            why = finding.exempted or f"{finding.reason}{tail}"
            rows.append((action.upper(), where, finding.image, finding.condition, why))
        rows += [("NOTE", one.title, "", "", text) for text in decision.notes]
        if not told and not decision.notes:
            rows.append(("ALLOW", one.title, "", "", number_of(len(decision.images), "image")))
    if rows:
        table(("DECISION", "WHERE", "IMAGE", "CONDITION", "WHY"), rows)
    words = [word_of(decision) for _, decision in decided if decision is not None]
    without = len(decided) - len(words)
    say(
        f"{number_of(len(words), 'object')} with images: {words.count('deny')} denied,"
        f" {words.count('warn')} with warnings, {words.count('allow')} allowed"
    )
    if without:
        note(f"{number_of(without, 'object')} of kinds without pod templates: nothing of those was looked at")


def _status(decided: list[tuple[ManifestObject, Decision | None]], fail_on: str) -> int:
    decisions = [decision for _, decision in decided if decision is not None]
    if any(decision.would_deny for decision in decisions):
        return exit_codes.FINDINGS
    if fail_on == "warn" and any(decision.having("warn") for decision in decisions):
        return exit_codes.FINDINGS
    unanswered = any(
        finding.condition in {"away", "unknown"} for decision in decisions for finding in decision.findings
    )
    return exit_codes.REMOTE if unanswered else exit_codes.OK
