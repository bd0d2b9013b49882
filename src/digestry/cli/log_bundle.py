"""``digestry log bundle``: write a proof of a tag's last entry, which is verified without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from digestry.cli.image_names import IMAGE
from digestry.cli.log_options import trust_options
from digestry.cli.output import note, printable, say, write_bytes
from digestry.cli.timeout_options import timeout_option

if TYPE_CHECKING:
    from digestry.cli.log_trust import TrustOptions


@click.command()
@click.argument("reference", metavar="REPO[:TAG]", type=IMAGE)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write, such as app.tlog-proof.  [default: standard output]",
)
@trust_options
@timeout_option
def bundle(
    *,
    reference: str,
    output: Path | None,
    stated: TrustOptions,
) -> None:
    """Write the proof that the registry's log has what the tag points to, as its last entry of the tag.

    Everything is verified before. The file has the entry, its place in the tree, and the checkpoint with its
    signatures (C2SP tlog-proof); `digestry log verify --bundle FILE` needs it, and the log's key. It has no
    more of the entry than everybody gets who may read the repository.
    """
    from digestry.cli.log_trust import open_verifier
    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.verifier.bundles import make_bundle
    from digestry.verifier.tag_proof import TagProver

    settings = load()
    wanted = settings.reference(reference).or_latest()
    if wanted.tag is None:
        raise click.UsageError("A proof is of a tag: write REPO:TAG.")
    with open_session(settings) as session:
        remote = session.repository(wanted)
        digest = remote.resolve(wanted.tag).digest
        prover = TagProver(open_verifier(settings, stated))
        proven = prover.prove(remote, wanted.tag, digest)
        content = make_bundle(proven.view, proven.entry)
    write_bytes([content], output)
    if output is not None:
        say(str(digest))
        note(printable(f"{output}: entry {proven.entry.index} of {proven.view.checkpoint.origin}"))
