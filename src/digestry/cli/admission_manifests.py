"""``digestry admission test``: the decision of a policy about manifests, before a cluster gets them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes
from digestry.cli.timeout_options import Seconds

if TYPE_CHECKING:
    from digestry.admission.manifest_files import ManifestObject
    from digestry.admission.tested_manifests import FailOn, JudgedManifest
    from digestry.cli.documents import AdmissionTest

_SUFFIXES: Final = {".json": "json", ".sarif": "sarif", ".xml": "junit"}


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
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "sarif", "junit"]),
    help="Text for people, JSON for programs, SARIF for code scanning, JUnit XML for build servers."
    "  [default: text, or by the ending of --output]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report to a file, and the text to the terminal as well.",
)
def test_(
    *,
    files: tuple[Path, ...],
    policy: Path,
    namespace: str,
    labels: Mapping[str, str] | None,
    fail_on: FailOn,
    timeout: float,
    format_: str | None,
    output: Path | None,
) -> None:
    """Test whether a policy lets manifests through, as the webhook would decide now.

    FILE is YAML or JSON of any number of objects, lists, or AdmissionReviews; of a directory, every .yaml,
    .yml and .json in it; - is standard input, as in `kubectl kustomize | digestry admission test -`. The
    registries of the policy are asked; the policy's mode does not matter.

    Exit code 1 if an object would be denied; 3 if none would be, but a registry did not answer, something
    that the policy asks for is not known, or an object probably has images at a place that is not known; 0
    only if everything was looked at. In SARIF each finding is a result at its line, and in JUnit XML each
    image of each object is a test case.
    """
    from digestry.admission.configuration import load
    from digestry.admission.tested_manifests import decide_manifests
    from digestry.cli.admission_inquiry import open_inquiry

    form = format_ or (_SUFFIXES.get(output.suffix.lower(), "text") if output else "text")
    if form == "text" and output is not None:
        raise click.UsageError(f"--output {output}: the text is for people; choose another --format.")
    configuration = load(policy)
    objects = _read(files)
    with open_inquiry(configuration, timeout=timeout) as inquirer:
        decided = decide_manifests(objects, configuration.policy, inquirer.inquire, namespace, labels)
    if form != "text":
        _write(decided, form, fail_on, output)
    if form == "text" or output is not None:
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


def _document(tested: list[JudgedManifest]) -> AdmissionTest:
    from digestry.admission.webhook import word_of
    from digestry.cli.documents import AdmissionTest, TestedFinding, TestedImage, TestedObject

    return AdmissionTest(
        objects=[
            TestedObject(
                place=one.manifest.place,
                line=one.manifest.lines.line(),
                kind=one.manifest.change.kind[1],
                group=one.manifest.change.kind[0],
                namespace=one.manifest.change.namespace or None,
                name=one.manifest.name or None,
                decision=None if one.decision is None else word_of(one.decision),
                rules=() if one.decision is None else one.decision.rules,
                notes=one.notes,
                images=[]
                if one.decision is None
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
                                lines=[one.manifest.lines.line(field) for field in finding.fields],
                                rule=finding.rule,
                                reason=finding.reason,
                                advice=finding.advice or None,
                                exempted=finding.exempted or None,
                            )
                            for finding in one.decision.findings
                            if finding.image == known.image
                        ],
                    )
                    for known in one.decision.images
                ],
            )
            for one in tested
        ]
    )


def _print(tested: list[JudgedManifest]) -> None:
    from digestry.admission.webhook import word_of
    from digestry.cli.output import note, say, table
    from digestry.model.text import few, number_of

    rows: list[tuple[str, ...]] = []
    for one in tested:
        manifest, decision = one.manifest, one.decision
        place = f"{manifest.file}:{manifest.lines.line()}"
        findings = () if decision is None else decision.findings
        told = [finding for finding in findings if finding.action != "allow" or finding.exempted]
        for finding in told:
            action = "exempt" if finding.exempted else finding.action
            where = f"{manifest.file}:{manifest.lines.line(finding.fields[0])}"
            who = f"{manifest.title} ({', '.join(finding.users)})"
            tail = f" ({finding.advice})" if finding.advice else ""
            why = finding.exempted or f"{finding.reason}{tail}"
            rows.append((action.upper(), where, who, finding.image, finding.condition, why))
        denied = decision is not None and decision.would_deny and not decision.having("deny")
        rows += [("DENY" if denied else "NOTE", place, manifest.title, "", "", text) for text in one.notes]
        if decision is not None and not told and not one.notes:
            count = number_of(len(decision.images), "image")
            rows.append(("ALLOW", place, manifest.title, "", "", count))
    if rows:
        table(("DECISION", "LINE", "WHERE", "IMAGE", "CONDITION", "WHY"), rows)
    words = [word_of(one.decision) for one in tested if one.decision is not None]
    say(
        f"{number_of(len(words), 'object')} with images: {words.count('deny')} denied,"
        f" {words.count('warn')} with warnings, {words.count('allow')} allowed"
    )
    without = [one.manifest.change.kind[1] for one in tested if one.decision is None]
    if without:
        kinds = few(without, most=8)
        note(
            f"{number_of(len(without), 'object')} of kinds without pod templates ({kinds}):"
            " nothing of those was looked at"
        )


def _write(tested: list[JudgedManifest], form: str, fail_on: FailOn, output: Path | None) -> None:
    from digestry.admission import manifest_reports
    from digestry.cli.output import json_text, write_pieces

    if form == "sarif":
        write_pieces(manifest_reports.to_sarif(tested), output)
    elif form == "junit":
        write_pieces(manifest_reports.to_junit(tested, fail_on), output)
    else:
        write_pieces([json_text(_document(tested)), "\n"], output)


def _status(tested: list[JudgedManifest], fail_on: FailOn) -> int:
    if any(one.fails(fail_on) for one in tested):
        return exit_codes.FINDINGS
    unknown = any(one.unanswered or one.overlooked for one in tested)
    return exit_codes.REMOTE if unknown else exit_codes.OK
