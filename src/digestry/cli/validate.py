"""``digestry validate``: read every byte of an image, and check it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
import msgspec

from digestry.cli import exit_codes
from digestry.cli.image_location import local_option, platform_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import human_size, json_document, json_option, note, printable, say
from digestry.cli.timeout_options import transfer_timeout_option
from digestry.model.text import number_of

if TYPE_CHECKING:
    from digestry.images.validation import Validation

_SHOWN: Final = 50


class _Problem(msgspec.Struct, frozen=True):
    """An error of one part of the image."""

    digest: str
    part: str
    problem: str


class _NotChecked(msgspec.Struct, frozen=True):
    """A part that was not read, with the reason."""

    digest: str
    reason: str


class Document(msgspec.Struct, frozen=True):
    """The outcome of `digestry validate`; the image is valid if there are no problems."""

    name: str
    digest: str
    valid: bool
    manifests: int
    blobs: int
    bytes: int
    problems: list[_Problem]
    not_checked: list[_NotChecked]


@click.command()
@click.argument("reference", metavar="REF", type=IMAGE)
@platform_option
@local_option
@click.option("--fast", is_flag=True, help="Check manifests and configs, and do not read layers.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
@json_option
@transfer_timeout_option
def validate(
    *, reference: str, platform: str | None, local: bool, fast: bool, quiet: bool, as_json: bool
) -> None:
    """Read every byte of an image or index, in its registry or in the local store, and check it.

    It checks each digest and size, the structure of manifests and configs, that layers inflate to the
    diff_ids of the config, and that platforms agree. Exit code 1 if something is wrong. It lists what it
    could not check, such as platforms that were not pulled.

    JSON: an object with name, digest, valid, manifests, blobs and bytes (that were read), problems (a list of
    digest, part, problem) and not_checked (digest, reason).
    """
    from digestry.cli.image_location import locate
    from digestry.cli.progress import measuring
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.images.validation import content_of
    from digestry.images.validation import validate as check
    from digestry.model.platform import Platform

    settings = load()
    place = Platform.chosen(platform) if platform else None
    with open_session(settings) as session, measuring("reading", quiet=quiet or as_json) as amount:
        found = locate(settings, session, reference, local=local)
        top = found.manifest if place is None else found.child(place)
        content = content_of(found.source)
        outcome = check(content, top.descriptor(), layers=not fast, moved=amount.moved)
    document = _document(found.name, outcome)
    if as_json:
        json_document(document)
    else:
        _print(document)
    if outcome.problems:
        click.get_current_context().exit(exit_codes.FINDINGS)


def _document(name: str, outcome: Validation) -> Document:
    return Document(
        name=name,
        digest=str(outcome.digest),
        valid=not outcome.problems,
        manifests=outcome.manifests,
        blobs=outcome.blobs,
        bytes=outcome.bytes,
        problems=[
            _Problem(str(problem.digest), problem.part, problem.message) for problem in outcome.problems
        ],
        not_checked=[_NotChecked(str(part.digest), part.reason) for part in outcome.not_checked],
    )


def _print(document: Document) -> None:
    for problem in document.problems:
        say(printable(f"{problem.part} {problem.digest}: {problem.problem}"))
    for left in document.not_checked[:_SHOWN]:
        note(printable(f"not checked: {left.digest}: {left.reason}"))
    if len(document.not_checked) > _SHOWN:
        note(f"not checked: {len(document.not_checked) - _SHOWN} more")
    read = (
        f"{number_of(document.manifests, 'manifest')} and {number_of(document.blobs, 'blob')} were read, "
        f"{human_size(document.bytes)}"
    )
    if document.valid:
        say(printable(f"{document.name} is valid: {read}"))
    else:
        say(printable(f"{document.name} has {number_of(len(document.problems), 'problem')}: {read}"))
