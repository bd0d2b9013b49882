"""``digestry admission``: decide at a cluster's door which images may run, by their history."""

from __future__ import annotations

import click

from digestry.cli.admission_manifests import test_
from digestry.cli.admission_serve import serve
from digestry.cli.command_group import Group


@click.group(cls=Group)
def admission() -> None:
    """Decide at a cluster's door which images may run, by the history of their tags and digests.

    The policy is one file (docs/admission.md): for which pods is what allowed, warned of, or denied, such
    as an image that is affected, a tag that moved an hour ago, or a digest that its tag never pointed to.
    Nothing is ever rewritten.
    """


admission.add_command(serve)
admission.add_command(test_)
