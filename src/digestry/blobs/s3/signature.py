"""Signatures of requests to AWS services, version 4 (S3 API, "Authenticating Requests")."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from digestry.blobs.s3.credentials import Credentials

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
"""The value in place of the body's hash: a checksum header protects the body."""

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"


def quote_path(path: str) -> str:
    """Return a path as a request and its signature write it."""
    return quote(path, safe="/" + _UNRESERVED)


def quote_query(query: Mapping[str, str]) -> str:
    """Return a query as a request and its signature write it."""
    pairs = sorted(
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in query.items()
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


class Signer:
    """Signs requests to one region. Thread-safe."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._key: tuple[str, str, bytes] = ("", "", b"")

    def headers(
        self,
        credentials: Credentials,
        request: str,
        headers: Mapping[str, str],
        *,
        host: str,
        payload: str,
        now: datetime.datetime,
    ) -> dict[str, str]:
        """Return ``headers``, whose names are in lower case, with those that sign the request.

        ``request`` is its method, path and query, quoted, a line each; ``payload`` is the SHA-256 of its body
        in hex, or :data:`UNSIGNED`.
        """
        time = f"{now:%Y%m%dT%H%M%SZ}"
        signed = {**headers, "host": host, "x-amz-content-sha256": payload, "x-amz-date": time}
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = sorted(signed)
        lines = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in names)
        listed = ";".join(names)
        scope = f"{time[:8]}/{self._region}/s3/aws4_request"
        signature = self._sign(credentials, time, scope, f"{request}\n{lines}\n{listed}\n{payload}")
        signed["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={listed},"
            f" Signature={signature}"
        )
        del signed["host"]
        return signed

    def presigned_query(
        self,
        credentials: Credentials,
        path: str,
        query: Mapping[str, str],
        *,
        host: str,
        seconds: int,
        now: datetime.datetime,
    ) -> str:
        """Return the query with which anybody may GET ``path`` for some seconds."""
        time = f"{now:%Y%m%dT%H%M%SZ}"
        scope = f"{time[:8]}/{self._region}/s3/aws4_request"
        all_parameters = {
            **query,
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key}/{scope}",
            "X-Amz-Date": time,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": "host",
        }
        if credentials.token:
            all_parameters["X-Amz-Security-Token"] = credentials.token
        text = quote_query(all_parameters)
        request = f"GET\n{path}\n{text}\nhost:{host}\n\nhost\n{UNSIGNED}"
        return f"{text}&X-Amz-Signature={self._sign(credentials, time, scope, request)}"

    def _sign(self, credentials: Credentials, time: str, scope: str, request: str) -> str:
        text = f"{_ALGORITHM}\n{time}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        return hmac.new(self._signing_key(credentials, time[:8]), text.encode(), "sha256").hexdigest()

    def _signing_key(self, credentials: Credentials, day: str) -> bytes:
        secret, known_day, key = self._key  # one assignment: another thread sees all of it or none
        if (secret, known_day) != (credentials.secret_key, day):
            key = f"AWS4{credentials.secret_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = credentials.secret_key, day, key
        return key
