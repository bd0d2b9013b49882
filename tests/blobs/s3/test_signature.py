"""Signatures are those that botocore makes."""

from __future__ import annotations

import datetime
from unittest import mock

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from digestry.blobs.s3.credentials import Credentials
from digestry.blobs.s3.signature import UNSIGNED, Signer, quote_path, quote_query

HOST = "store.example:9000"
NOW = datetime.datetime(2026, 11, 27, 16, 30, 5, tzinfo=datetime.UTC)
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
NAMES = st.text("abcXYZ-", min_size=1, max_size=10)
TOKENS = st.sampled_from(["", "a/session+token=="])


def botos(token: str) -> BotoCredentials:
    return BotoCredentials("AKID", "se/cret+key", token or None)


def ours(token: str) -> Credentials:
    return Credentials("AKID", "se/cret+key", token)


@pytest.mark.long
@given(
    path=KEYS.map(lambda key: f"/bucket/{key.strip('/') or 'x'}"),
    query=st.dictionaries(NAMES, KEYS, max_size=3),
    value=st.text("abc 123", max_size=10),
    token=TOKENS,
)
def test_headers(path: str, query: dict[str, str], value: str, token: str) -> None:
    quoted, text = quote_path(path), quote_query(query)
    headers = {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-meta-a": value}
    request = AWSRequest(method="PUT", url=f"http://{HOST}{quoted}?{text}", headers=dict(headers))
    request.context["payload_signing_enabled"] = False
    request.headers["X-Amz-Content-SHA256"] = UNSIGNED
    signer = auth.S3SigV4Auth(botos(token), "s3", "eu-north-1")
    with mock.patch.object(signer, "payload", return_value=UNSIGNED), _frozen():
        signer.add_auth(request)
    signed = Signer("eu-north-1").headers(
        ours(token), f"PUT\n{quoted}\n{text}", headers, host=HOST, payload=UNSIGNED, now=NOW
    )
    assert signed["authorization"] == request.headers["Authorization"]


@pytest.mark.long
@given(path=KEYS.map(lambda key: f"/bucket/{key.strip('/') or 'x'}"), token=TOKENS)
def test_presigned_urls(path: str, token: str) -> None:
    quoted = quote_path(path)
    query = {"response-content-type": "application/octet-stream"}
    url = f"http://{HOST}{quoted}?{quote_query(query)}"
    request = AWSRequest(method="GET", url=url)
    with _frozen():
        auth.S3SigV4QueryAuth(botos(token), "s3", "eu-north-1", expires=600).add_auth(request)
    made = Signer("eu-north-1").presigned_query(ours(token), quoted, query, host=HOST, seconds=600, now=NOW)
    assert made.rpartition("X-Amz-Signature=")[2] == request.url.rpartition("X-Amz-Signature=")[2]
    assert sorted(made.split("&")) == sorted(request.url.partition("?")[2].split("&"))


def _frozen() -> mock._patch[mock.MagicMock]:
    return mock.patch.object(auth, "get_current_datetime", return_value=NOW.replace(tzinfo=None))


def test_a_new_day_and_a_new_key_have_another_signature() -> None:
    signer = Signer("eu-north-1")

    def signature(secret: str, now: datetime.datetime) -> str:
        signed = signer.headers(
            Credentials("AKID", secret), "GET\n/\n", {}, host=HOST, payload=UNSIGNED, now=now
        )
        return signed["authorization"].rpartition("=")[2]

    found = [
        signature("a", NOW),
        signature("b", NOW),
        signature("a", NOW + datetime.timedelta(days=1)),
        signature("a", NOW),
    ]
    assert found[0] == found[3]
    assert len(set(found)) == 3


def test_secrets_are_not_shown() -> None:
    assert "se/cret" not in repr(ours("a/session"))
    assert "a/session" not in repr(ours("a/session"))
    with pytest.raises(AttributeError):
        ours("").secret_key = "x"  # type: ignore[misc]
