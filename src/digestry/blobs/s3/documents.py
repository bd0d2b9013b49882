"""The XML documents of the S3 API."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

LONGEST: Final = 8 << 20
"""The most bytes that are read of a document."""


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part that the service has; ``size`` is in bytes, ``crc32`` in base64, empty if it is not known."""

    number: int
    size: int
    etag: str
    crc32: str = ""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing; ``modified_at`` is in seconds since 1970, by the service's clock."""

    key: str
    size: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class ListedUpload:
    """A multipart upload in a listing; ``started_at`` is in seconds since 1970, by the service's clock."""

    key: str
    upload_id: str
    started_at: float


class Malformed(ValueError):
    """The bytes are not a document of the S3 API."""


class Document:
    """One element of an answer, read by the names of its children."""

    def __init__(self, element: ET.Element) -> None:
        self._element = element

    @property
    def name(self) -> str:
        """The element's name, without its namespace."""
        return _local(self._element.tag)

    def text(self, name: str) -> str:
        """Return the text of the first child of that name; empty if there is none."""
        return next((child.text or "" for child in self._element if _local(child.tag) == name), "")

    def number(self, name: str) -> int:
        """Return the number in a child. Raises :class:`Malformed`."""
        text = self.text(name)
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Malformed(f"{name} is no number")
        return int(text)

    def time(self, name: str) -> float:
        """Return the time in a child, in seconds since 1970. Raises :class:`Malformed`."""
        try:
            return datetime.datetime.fromisoformat(self.text(name)).timestamp()
        except ValueError as error:
            raise Malformed(f"{name} is no time") from error

    def children(self, name: str) -> Iterator[Document]:
        """Iterate over the children of that name."""
        return (Document(child) for child in self._element if _local(child.tag) == name)


def parse(content: bytes) -> Document:
    """Return the document in ``content``. Raises :class:`Malformed`."""
    try:
        # expat bounds the expansion of entities.
        return Document(ET.fromstring(content))  # noqa: S314
    except (ET.ParseError, ValueError) as error:
        raise Malformed("it is no XML document") from error


def parse_result(content: bytes) -> Document:
    """Return the document of an operation's result. Raises :class:`Malformed` for any other, such as a page
    for people that something between sent."""
    document = parse(content)
    if not document.name.endswith("Result"):
        raise Malformed("it is no result of the S3 API")
    return document


def parse_error(content: bytes) -> tuple[str, str]:
    """Return the code and the message of an error; both empty for other documents."""
    try:
        document = parse(content)
    except Malformed:
        return "", ""
    return (document.text("Code"), document.text("Message")) if document.name == "Error" else ("", "")


def complete_upload(parts: Iterable[UploadedPart]) -> bytes:
    """Return the body of CompleteMultipartUpload."""
    lines = []
    for part in parts:
        crc32 = f"<ChecksumCRC32>{escape(part.crc32)}</ChecksumCRC32>" if part.crc32 else ""
        lines.append(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag>{crc32}</Part>"
        )
    return f"<CompleteMultipartUpload>{''.join(lines)}</CompleteMultipartUpload>".encode()


def delete_objects(keys: Sequence[str]) -> bytes:
    """Return the body of DeleteObjects."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
