"""``digestry blob``: content of a repository by its digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from digestry.cli.command_group import Group
from digestry.cli.image_location import local_option
from digestry.cli.image_names import IMAGE
from digestry.cli.output import note, refuse_terminal, say, write_bytes
from digestry.cli.timeout_options import transfer_timeout_option

if TYPE_CHECKING:
    from digestry.model.descriptor import Descriptor

_CHUNK = 1 << 20


@click.group(cls=Group)
def blob() -> None:
    """Get and put blobs: configs, layers and other content, by digest."""


@blob.command()
@click.argument("reference", metavar="REPO@DIGEST", type=IMAGE)
@local_option
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file to write.")
@transfer_timeout_option
def get(*, reference: str, local: bool, output: Path | None) -> None:
    """Write the bytes of a blob to standard output or to a file, verified.

    A file is complete, or does not exist. On standard output the last bytes come after all were verified.
    With --local, DIGEST is enough.
    """
    from digestry.cli.sessions import open_session, open_store
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference
    from digestry.model.digest import Digest

    settings = load()
    refuse_terminal(output)
    if local:
        digest = Digest.parse(reference.rpartition("@")[2])
        store = open_store(settings)
        with store.blobs.open(digest) as file:
            from digestry.blobs.verify import verified

            write_bytes(verified(iter(lambda: file.read(_CHUNK), b""), digest), output)
        return
    wanted = settings.reference(reference)
    if wanted.digest is None:
        raise InvalidReference(
            f"{wanted} has no digest", hint="write REPO@DIGEST; digestry inspect lists them"
        )
    with open_session(settings) as session:
        repository = session.repository(wanted)
        write_bytes(repository.stream_blob(repository.describe_blob(wanted.digest)), output)


@blob.command()
@click.argument("repository", metavar="REPO", type=IMAGE)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default="-")
@transfer_timeout_option
def put(*, repository: str, file: str) -> None:
    """Put a file into a repository as a blob, and print its digest. FILE is - for standard input.

    A registry removes a blob that no manifest lists after a while.
    """
    import contextlib
    import sys
    import tempfile

    from digestry.cli.sessions import open_session
    from digestry.cli.settings import load
    from digestry.errors import InvalidReference
    from digestry.fsio import storage_errors

    settings = load()
    wanted = settings.reference(repository)
    if wanted.tag is not None or wanted.digest is not None:
        raise InvalidReference(f"{wanted} is more than a repository", hint=f"write {wanted.name}")
    with contextlib.ExitStack() as opened:
        path = Path(file)
        if file == "-":
            kept = opened.enter_context(tempfile.NamedTemporaryFile(prefix="digestry-"))
            path = Path(kept.name)
            with storage_errors("write", path):
                while chunk := sys.stdin.buffer.read(_CHUNK):
                    kept.write(chunk)
                kept.flush()
        descriptor, source = file_as_blob(path)
        session = opened.enter_context(open_session(settings))
        outcome = session.repository(wanted).push_blob(descriptor, source)
    if outcome == "present":
        note(f"{wanted.name} had it already")
    say(str(descriptor.digest))


def file_as_blob(
    path: Path, media_type: str = "application/octet-stream"
) -> tuple[Descriptor, Callable[[], BinaryIO]]:
    """Return the descriptor of a file, read once for that, and a function that opens it.

    Raises :class:`StorageError`.
    """
    import hashlib

    from digestry.fsio import storage_errors
    from digestry.model.descriptor import Descriptor
    from digestry.model.digest import Digest

    with storage_errors("read", path), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
        size = file.tell()
    digest = Digest("sha256", found.hexdigest())
    return Descriptor(media_type, digest, size), lambda: path.open("rb")
