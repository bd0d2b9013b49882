"""Another application beside the API: it answers its paths under the registry's rules for hosts and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from digestry.registry.app import create_app
from digestry.registry.config import RegistryConfig
from digestry.registry.cors import CorsConfig
from digestry.registry.mounts import MountTable
from digestry.registry.server import prepare

PAGE = "https://ui.example.com"


async def page(request: Request) -> Response:
    return PlainTextResponse(f"page {request.url.path} below {request.scope['root_path']}")


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def stream(_: Request) -> Response:
    return StreamingResponse(iter([b"one ", b"two"]))


async def broken(_: Request) -> Response:
    raise RuntimeError("a secret")


PAGES = Starlette(
    routes=[
        Route("/", page),
        Route("/images/{name:path}", page),
        Route("/echo", echo, methods=["POST"]),
        Route("/stream", stream),
        Route("/broken", broken),
        Route("/v2/{rest:path}", page),
    ]
)


class Served:
    """The registry's application with others mounted, asked in this process."""

    def __init__(self, root: Path, mounts: Mapping[str, ASGIApp]) -> None:
        config = RegistryConfig(root, cors=CorsConfig(origins=frozenset({PAGE})))
        prepare(config)
        self._app = create_app(config, make_mounts=lambda _: mounts)
        self._runner = asyncio.Runner()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._runner.run(self._start())

    async def _start(self) -> None:
        self._life = asyncio.ensure_future(self._app({"type": "lifespan"}, self._events.get, self._said.put))
        await self._events.put({"type": "lifespan.startup"})
        assert (await self._said.get())["type"] == "lifespan.startup.complete"

    def close(self) -> None:
        async def stop() -> None:
            await self._events.put({"type": "lifespan.shutdown"})
            await self._life

        self._runner.run(stop())
        self._runner.close()

    def request(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        given = {"host": "localhost:5000", **headers}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("localhost", 5000),
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(key.replace("_", "-").encode(), value.encode()) for key, value in given.items()],
            "client": ("127.0.0.1", 1),
        }
        sent: list[Any] = []
        left = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return left.pop() if left else await asyncio.Future()

        async def send(message: Any) -> None:
            sent.append(message)

        async def call() -> None:
            await self._app(scope, receive, send)

        self._runner.run(call())
        found = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("mounts") / "root", {"/": PAGES})
    yield found
    found.close()


def test_it_answers_all_but_the_apis_paths(served: Served) -> None:
    assert served.request("GET", "/")[::2] == (200, b"page / below ")
    assert served.request("GET", "/images/a/b")[::2] == (200, b"page /images/a/b below ")
    assert served.request("POST", "/echo", b"what came")[::2] == (200, b"what came")
    assert served.request("GET", "/stream")[::2] == (200, b"one two")
    assert served.request("GET", "/nothing")[0] == 404


def test_the_api_is_as_it_was(served: Served) -> None:
    status, headers, body = served.request("GET", "/v2/")
    assert (status, body, headers["docker-distribution-api-version"]) == (200, b"{}", "registry/2.0")
    assert served.request("GET", "/v2")[2] == b"{}"
    for path in ("/v2/x", "/v2/none/manifests/1", "/v2/none/tags/list"):
        status, _, body = served.request("GET", path)
        assert (status, body[:11]) == (404, b'{"errors":[')
    assert served.request("GET", "/livez")[0] == 200
    assert served.request("DELETE", "/v2/x/tags/list")[1]["allow"] == "GET, HEAD"


def test_its_headers_are_its_own(served: Served) -> None:
    _, headers, _ = served.request("GET", "/", x_request_id="mine-1")
    assert headers["x-request-id"] == "mine-1"
    assert "content-security-policy" not in headers  # a page says itself what it may load
    assert "sandbox" in served.request("GET", "/v2/")[1]["content-security-policy"]


def test_the_rules_for_hosts_and_pages_hold(served: Served) -> None:
    for path in ("/", "/v2/"):
        assert served.request("GET", path, host="evil.example")[0] == 403
        assert served.request("POST", path, origin="https://evil.example")[0] == 403
        allowed = served.request("GET", path, origin=PAGE)
        assert (allowed[0], allowed[1]["access-control-allow-origin"]) == (200, PAGE)
        preflight = served.request("OPTIONS", path, origin=PAGE, access_control_request_method="GET")
        assert (preflight[0], preflight[2]) == (204, b"")


def test_a_defect_of_it_is_a_500_without_its_text(served: Served) -> None:
    status, _, body = served.request("GET", "/broken")
    assert status == 500
    assert b"secret" not in body


def test_the_longest_path_wins() -> None:
    async def app(*_: Any) -> None: ...

    async def other(*_: Any) -> None: ...

    table = MountTable({"/": app, "/pages": other})
    assert table.find("/pages") == table.find("/pages/x") == ("/pages", other)
    assert table.find("/pagesx") == table.find("/") == ("", app)
    assert MountTable({"/pages": app}).find("/") is None
