"""``digestry load``: read images of a file into the local store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from digestry.cli.output import note, printable, say

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

_MOST_NAMES: Final = 10_000


@click.command()
@click.option("--input", "-i", "file", metavar="FILE", help="Read a file instead of standard input.")
@click.option(
    "--tag",
    "-t",
    "name",
    metavar="NAME[:TAG]",
    help="The name of the only image of a file.  [default: its own]",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the names only.")
def load(*, file: str | None, name: str | None, quiet: bool) -> None:
    """Read images of a file that docker save, podman save, or `save` wrote, into the local store.

    The file may be compressed (gzip, zstd, bzip2, xz). Every byte is verified.
    """
    from contextlib import ExitStack
    from pathlib import Path

    from digestry.cli.progress import COPYING, watching
    from digestry.cli.sessions import open_store
    from digestry.cli.settings import load as load_settings
    from digestry.copy.copy import CopyOptions, copy_images
    from digestry.copy.docker_archive import DockerArchiveSource, open_docker_archive
    from digestry.copy.file_tree import ArchiveTree
    from digestry.copy.local import LocalTarget
    from digestry.errors import InvalidReference, TooLarge
    from digestry.fsio import PRIVATE, make_directory
    from digestry.model.reference import Reference

    settings = load_settings()
    scratch = settings.store.with_name("transfers")
    with ExitStack() as opened, watching(quiet=quiet, words=COPYING) as observer:
        make_directory(scratch, mode=PRIVATE)
        path = Path(file) if file is not None else _standard_input(scratch, opened)
        tree = ArchiveTree(path, scratch=scratch)
        opened.callback(tree.close)
        source = open_docker_archive(tree, file or "standard input", scratch=scratch)
        if isinstance(source, DockerArchiveSource) and not quiet:
            note(f"{source.description}: {source.remark}")
        names: list[tuple[str | None, str | None]] = []
        if name is not None:
            names = [(None, str(settings.reference(name).or_latest()))]
        else:
            for known in source.names():
                if len(names) >= _MOST_NAMES:
                    raise TooLarge(
                        f"{source.description} has more than {_MOST_NAMES} names of images",
                        limit=_MOST_NAMES,
                        hint="give its image one: --tag NAME",
                    )
                try:
                    names.append((known, str(Reference.parse(known).or_latest())))
                except InvalidReference as error:
                    raise InvalidReference(
                        f"{known} of {source.description} is not the name of an image",
                        hint="give it one: --tag NAME",
                    ) from error
        if not names:
            raise InvalidReference(
                f"the image of {source.description} has no name", hint="give it one: --tag NAME"
            )
        target = LocalTarget(open_store(settings))
        opened.callback(target.close)
        result = copy_images(source, target, names, CopyOptions(), observer=observer)
    for skipped in result.skipped:
        note(f"skipped {skipped.descriptor.digest}: {printable(skipped.reason)}")
    for image in result.images:
        say(str(image.name) if quiet else f"Loaded image: {image.name}")
        if not quiet:
            say(f"Digest: {image.digest}")


def _standard_input(scratch: Path, opened: ExitStack) -> Path:
    """Return a file with the content of standard input: an archive is read at several positions."""
    import shutil
    import sys

    from digestry.copy.scratch_file import new_scratch_file
    from digestry.errors import InvalidConfiguration
    from digestry.fsio import storage_errors

    if sys.stdin is None or sys.stdin.isatty():
        raise InvalidConfiguration("there is no archive on standard input", hint="write -i FILE")
    path = new_scratch_file(scratch, "standard-input")
    opened.callback(path.unlink, missing_ok=True)
    with storage_errors("write", path), path.open("wb") as copied:
        shutil.copyfileobj(sys.stdin.buffer, copied, 1 << 20)
    return path
