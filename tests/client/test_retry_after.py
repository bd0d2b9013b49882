"""When a registry says that it may be asked again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from digestry.client.options import ClientOptions
from digestry.client.session import Session
from digestry.client.wait_budget import retry_after
from digestry.errors import Refused
from digestry.model.reference import Reference
from tests.client.liar import Reply, lying


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"X-Retry-After": "0"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "9" * 30}, None),
        # What registries do send.
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "880.092us"}, 0.00088),
        ({"Retry-After": "880.092\xc2\xb5s"}, 0.00088),
        ({"Retry-After": "1m30s"}, 90),
        ({"Retry-After": "5s, maybe"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_what_the_headers_mean(headers: dict[str, str], seconds: float | None) -> None:
    found = retry_after(headers)
    if seconds is None:
        assert found is None
    else:
        assert found == pytest.approx(seconds, abs=0.001)


def test_times_of_the_day() -> None:
    at = formatdate(time.time() + 3600, usegmt=True)
    assert retry_after({"Retry-After": at}) == pytest.approx(3600, abs=30)
    assert retry_after({"X-Retry-After": str(int(time.time()) + 600)}) == pytest.approx(600, abs=30)


def test_the_error_has_it() -> None:
    with lying(lambda _: Reply(429, b"{}", {"Retry-After": "77"})) as liar:
        options = ClientOptions(retries=0)
        with Session(options) as session, pytest.raises(Refused) as refused:
            session.repository(Reference(liar.host, "a")).resolve("1")
    assert (refused.value.status, refused.value.retry_after) == (429, 77)
    assert len(liar.seen) == 1
