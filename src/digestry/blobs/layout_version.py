"""The version of an OCI image layout, in its file ``oci-layout`` (image-spec, image-layout.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from digestry.errors import ContentError
from digestry.fsio import read_file, storage_errors

LAYOUT_FILE: Final = "oci-layout"
LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""What the file of a new layout says."""


def check_layout(root: Path) -> None:
    """Raise :class:`ContentError` if ``root`` is a layout of a version that is not known.

    Without the file, do nothing. Raises :class:`~digestry.errors.StorageError` if it is unreadable.
    """
    path = root / LAYOUT_FILE
    with storage_errors("read", path):
        try:
            content = read_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return
    if content != LAYOUT:
        check_version(content, f"{path}")


def check_version(content: bytes, where: str) -> None:
    """Raise :class:`ContentError` unless ``content``, the file's, states a version 1; ``where`` it is.

    A version pins what the directory looks like: what another means is not known.
    """
    import msgspec  # noqa: PLC0415 - nearly all are as they are written here

    try:
        stated = msgspec.json.decode(content, type=dict[str, object]).get("imageLayoutVersion")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(f"{where} is not the mark of an OCI image layout: {error}", hint=_HINT) from error
    if not isinstance(stated, str):
        raise ContentError(f"{where} states no imageLayoutVersion", hint=_HINT)
    if stated.partition(".")[0] != "1":
        raise ContentError(
            f"{where} states version {stated[:40]!r} of the image layout; only 1.0.0 is known. "
            "Nothing was read or written.",
            hint="have the program that wrote it write version 1.0.0, or use a later digestry",
        )


_HINT: Final = 'an image layout has a file oci-layout that says {"imageLayoutVersion":"1.0.0"}'
