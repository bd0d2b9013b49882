"""``digestry advisory export``: what is in force about an image as one OpenVEX document."""

from __future__ import annotations

from pathlib import Path

import click

from digestry.cli.advised_image import finish, read_target, somebody
from digestry.cli.image_names import IMAGE
from digestry.cli.output import write_json
from digestry.cli.timeout_options import timeout_option


@click.command("export")
@click.argument("reference", metavar="REF", type=IMAGE)
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file to write.")
@timeout_option
def export(*, reference: str, output: Path | None) -> None:
    """Print one OpenVEX document of all statements in force about an image, by any author and in any form.

    Scanners read it as a file (`trivy image --vex FILE`, `grype --vex FILE`), and so does `advisory import`.
    Each statement names the image by digest; what is stated about a layer of it is among them, and names the
    layer in its notes. Exit code 3 if not every advisory could be read; the document
    has the others.
    """
    import datetime

    import msgspec

    from digestry.advisories import openvex_writer

    target, reading = read_target(reference, with_parts=True)
    document = openvex_writer.make_document(
        target.image,
        target.digest,
        reading.current(),
        author=somebody(),
        timestamp=datetime.datetime.now(datetime.UTC),
    )
    write_json(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n", output)
    finish(reading)
