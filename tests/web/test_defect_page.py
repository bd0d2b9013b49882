"""What a browser gets when a page fails by a defect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from digestry.web.app import WebApp


class BrokenHost:
    """A registry whose catalog fails, as no registry should."""

    has_logins = False
    settings = SimpleNamespace(idle=1.0, session=1.0)

    @property
    def catalog(self) -> Any:
        raise RuntimeError("a secret of the server")

    def now(self) -> int:
        return 1_760_000_000_000_000

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def registry_name(self, _: Any) -> str:
        return "reg.example"

    def is_https(self, _: Any) -> bool:
        return True

    def request_id(self, _: Any) -> str:
        return "4bf92f35"

    def visitor(self, _: Any, __: str | None) -> Any:
        identity = SimpleNamespace(name="anonymous", anonymous=True)
        return SimpleNamespace(
            identity=identity,
            pulls_everything=lambda: True,
            may_see=lambda _: True,
            audits=lambda _: True,
            sees_anything=lambda: True,
            seen_beginnings=lambda: [""],
            audits_anything=lambda: True,
        )


async def asked(method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    host: Any = BrokenHost()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path.partition("?")[0],
        "query_string": path.partition("?")[2].encode(), "headers": [], "scheme": "https",
        "root_path": "", "server": ("reg.example", 443), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    await WebApp(host)(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(one.get("body", b"") for one in sent[1:])


@pytest.mark.parametrize("path", ["/", "/search?q=x", "/r/app"])
def test_a_defect_is_a_page_with_the_number_of_the_request(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, body = asyncio.run(asked("GET", path))
    text = body.decode()
    assert status == 500
    assert headers["content-type"].startswith("text/html")
    assert "default-src" in headers["content-security-policy"]
    assert "secret" not in text
    assert "The log names the request 4bf92f35" in text
    assert "<h1>Internal Server Error</h1>" in text
    assert "a secret of the server" in caplog.text


def test_a_defect_has_no_body_for_head() -> None:
    status, headers, body = asyncio.run(asked("HEAD", "/"))
    assert (status, body) == (500, b"")
    assert headers["content-type"].startswith("text/html")
