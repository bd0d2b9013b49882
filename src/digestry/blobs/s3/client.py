"""The operations of the S3 API that a store of blobs needs. Every body has a checksum."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from urllib3.exceptions import HTTPError

from digestry.blobs.s3 import documents
from digestry.blobs.s3.config import S3Config
from digestry.blobs.s3.credentials import CredentialSource
from digestry.blobs.s3.documents import Document, ListedObject, ListedUpload, Malformed, UploadedPart
from digestry.blobs.s3.failures import S3Refusal, broken, wrong_answer
from digestry.blobs.s3.transport import Body, BodyStream, Request, Response, Transport
from digestry.errors import StorageError

try:
    from isal.isal_zlib import crc32
except ImportError:  # there is no ISA-L for this processor
    from zlib import crc32

DELETED_AT_ONCE: Final = 1000
"""The most keys of one DeleteObjects."""

_CRC32: Final = "x-amz-checksum-crc32"
T = TypeVar("T")


class S3Client:
    """One bucket of an S3 service. Thread-safe. Blocks.

    All methods raise :class:`S3Refusal`, which is a :class:`StorageError`, and :class:`StorageBusy` for a
    service that is away or overloaded.
    """

    def __init__(self, config: S3Config, credentials: CredentialSource) -> None:
        self._bucket = config.bucket
        self._transport = Transport(config, credentials)

    # -- objects ------------------------------------------------------------------------------

    def put(self, key: str, body: Body, *, only_new: bool = False) -> str:
        """Store an object and return its ETag. With ``only_new`` one that is there is refused (412)."""
        headers = {"content-type": "application/octet-stream"}
        if only_new:
            headers["if-none-match"] = "*"
        return self._upload("write", key, {}, headers, body).etag

    def read(self, key: str, limit: int) -> bytes | None:
        """Return a whole object, cut after ``limit`` + 1 bytes; None if it is not there."""
        try:
            body, headers = self.open(key, 0, None)
        except S3Refusal as error:
            if error.no_object:
                return None
            raise
        content = bytearray()
        try:
            while len(content) <= limit and (part := read_body(body, self._where(key), limit + 1)):
                content += part
        except StorageError:
            body.close()
            raise
        if len(content) > limit:
            body.close()
        else:
            body.release()
            if headers.get("content-length", str(len(content))) != str(len(content)):
                raise wrong_answer("read", self._where(key), f"it ended after {len(content)} bytes")
        return bytes(content)

    def open(self, key: str, start: int, end: int | None) -> tuple[BodyStream, Mapping[str, str]]:
        """Begin to read an object, from byte ``start`` to before ``end``, or to its end."""
        headers = {}
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
        return self._transport.stream(Request("read", "GET", key, {}, headers))

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if it is not there."""
        try:
            response = self._transport.send(Request("look at", "HEAD", key, {}, {}))
        except S3Refusal as error:
            # The answer to a HEAD does not say what is missing: it may be the bucket.
            if error.no_object and self.bucket_exists():
                return None
            raise
        return int(response.headers.get("content-length", "0"))

    def delete(self, keys: Sequence[str]) -> list[str]:
        """Remove up to 1,000 objects, there or not, and return the keys of those that could not be."""
        body = documents.delete_objects(keys)
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        headers = {"content-md5": md5, "content-type": "application/xml"}
        response = self._transport.send(
            Request("remove objects of", "POST", "", {"delete": ""}, headers, body, len(body))
        )
        document = self._parsed("remove objects of", "", response)
        return [
            error.text("Key") for error in document.children("Error") if error.text("Code") != "NoSuchKey"
        ]

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """Iterate over the objects whose keys begin with ``prefix``. Listings may be late."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            page = self._document("list", Request("list", "GET", "", query, {}))
            yield from self._rows(
                page,
                "Contents",
                lambda row: ListedObject(row.text("Key"), row.number("Size"), row.time("LastModified")),
            )
            if page.text("IsTruncated") != "true" or not page.text("NextContinuationToken"):
                return
            query = {**query, "continuation-token": page.text("NextContinuationToken")}

    def bucket_exists(self) -> bool:
        """Return whether the bucket is there."""
        try:
            self._transport.send(Request("look at", "HEAD", "", {}, {}))
        except S3Refusal as error:
            if error.status == 404:
                return False
            raise
        return True

    def presign(self, key: str, seconds: int, headers: Mapping[str, str]) -> str:
        """Return a URL at which anybody may GET an object for some seconds, answered with ``headers``."""
        return self._transport.presign(
            key, {f"response-{name}": value for name, value in headers.items()}, seconds
        )

    # -- multipart uploads --------------------------------------------------------------------

    def begin_upload(self, key: str) -> str:
        """Begin a multipart upload and return its ID."""
        headers = {"content-type": "application/octet-stream", "x-amz-checksum-algorithm": "CRC32"}
        document = self._document(
            "begin to write", Request("begin to write", "POST", key, {"uploads": ""}, headers)
        )
        upload_id = document.text("UploadId")
        if not upload_id:
            raise wrong_answer("begin to write", self._where(key), "the answer has no upload ID")
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> UploadedPart:
        """Send one part, numbered from 1 on."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        sent = self._upload("write a part of", key, query, {}, body)
        return UploadedPart(number, sent.size, sent.etag, sent.crc32)

    def parts(self, key: str, upload_id: str) -> Iterator[UploadedPart]:
        """Iterate over the parts that the service has of an upload, page by page."""
        query = {"uploadId": upload_id}
        while True:
            page = self._document("list the parts of", Request("list the parts of", "GET", key, query, {}))
            yield from self._rows(
                page,
                "Part",
                lambda row: UploadedPart(
                    row.number("PartNumber"), row.number("Size"), row.text("ETag"), row.text("ChecksumCRC32")
                ),
            )
            if page.text("IsTruncated") != "true" or not page.text("NextPartNumberMarker"):
                return
            query = {**query, "part-number-marker": page.text("NextPartNumberMarker")}

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> str:
        """Make the parts one object, and return its ETag.

        May be called again after an answer that was lost: that the object is there then, whole, is success.
        """
        body = documents.complete_upload(parts)
        headers = {"content-type": "application/xml"}
        request = Request("finish", "POST", key, {"uploadId": upload_id}, headers, body, len(body))
        try:
            return self._document("finish", request).text("ETag")
        except S3Refusal as error:
            if error.code != "NoSuchUpload" or self.size(key) != sum(part.size for part in parts):
                raise
        return ""

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop a multipart upload, there or not."""
        try:
            self._transport.send(Request("drop", "DELETE", key, {"uploadId": upload_id}, {}))
        except S3Refusal as error:
            if error.status != 404 or error.code == "NoSuchBucket":
                raise

    def uploads(self, prefix: str) -> Iterator[ListedUpload]:
        """Iterate over the multipart uploads under way whose keys begin with ``prefix``."""
        query = {"uploads": "", "prefix": prefix}
        while True:
            page = self._document("list the uploads of", Request("list the uploads of", "GET", "", query, {}))
            yield from self._rows(
                page,
                "Upload",
                lambda row: ListedUpload(row.text("Key"), row.text("UploadId"), row.time("Initiated")),
            )
            marker = page.text("NextKeyMarker")
            if page.text("IsTruncated") != "true" or not marker:
                return
            query = {**query, "key-marker": marker, "upload-id-marker": page.text("NextUploadIdMarker")}

    # -- how -----------------------------------------------------------------------------------

    def _upload(
        self, action: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], body: Body
    ) -> UploadedPart:
        chunks: Sequence[bytes | memoryview] = [body] if isinstance(body, bytes) else body
        value = size = 0
        for chunk in chunks:
            value = crc32(chunk, value)
            size += len(chunk)
        checksum = base64.b64encode(value.to_bytes(4, "big")).decode()
        response = self._transport.send(
            Request(action, "PUT", key, query, {**headers, _CRC32: checksum}, body, size)
        )
        etag = response.headers.get("etag")
        if not etag:
            # Something between that is no S3 service answered, and the store may have nothing.
            raise wrong_answer(action, self._where(key), "the answer has no ETag")
        echoed = response.headers.get(_CRC32)
        if echoed is not None and echoed != checksum:
            raise wrong_answer(action, self._where(key), "the store has other bytes than were sent")
        return UploadedPart(0, size, etag, checksum if echoed else "")

    def _document(self, action: str, request: Request) -> Document:
        return self._parsed(action, request.key, self._transport.send(request))

    def _parsed(self, action: str, key: str, response: Response) -> Document:
        try:
            return documents.parse_result(response.content)
        except Malformed as error:
            raise wrong_answer(action, self._where(key), str(error)) from error

    def _rows(self, page: Document, name: str, row: Callable[[Document], T]) -> Iterator[T]:
        try:
            yield from [row(child) for child in page.children(name)]
        except Malformed as error:
            raise wrong_answer("list", self._where(""), str(error)) from error

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}".rstrip("/")


def read_body(body: BodyStream, where: str, count: int) -> bytes:
    """Return up to ``count`` bytes of an answer's body. Raises :class:`StorageBusy` if it breaks off."""
    try:
        return body.read(count)
    except (HTTPError, OSError) as error:
        raise broken("read", where, error) from error
