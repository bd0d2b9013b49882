"""A browser without a script: it keeps cookies, follows redirects, and sends back the forms of pages."""

from __future__ import annotations

import html
import http.client
import re
from collections.abc import Mapping
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

from tests.registry.access.support import PASSWORDS
from tests.support import PATIENCE, RegistryServer, Response

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Browser:
    """Somebody's browser at one registry."""

    def __init__(self, server: RegistryServer, **headers: str) -> None:
        self.server = server
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.cookies: dict[str, str] = {}

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        """One request, with the cookies; a redirect is not followed. Several cookies that it sets are lines
        of one header."""
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookies:
            given["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            lines = answer.headers.get_all("set-cookie") or []
            found = {name.lower(): value for name, value in answer.getheaders()}
            result = Response(answer.status, {**found, "set-cookie": "\n".join(lines)}, answer.read())
        finally:
            connection.close()
        for line in lines:
            for name, cookie in SimpleCookie(line).items():
                if cookie["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = cookie.value
        return result

    def get(self, path: str) -> Response:
        """A page, after all redirects."""
        answer = self.request("GET", path)
        for _ in range(5):
            if answer.status not in {302, 303}:
                return answer
            answer = self.request("GET", answer.headers["location"])
        raise AssertionError(f"{path} is redirected without end")

    def text(self, path: str) -> str:
        answer = self.get(path)
        assert answer.status == 200, answer.body.decode()
        return answer.body.decode()

    def send(self, page: str, action: str, fields: Mapping[str, str]) -> Response:
        """Fill in and send the form of a page that has this ``action``."""
        found = re.search(rf'<form[^>]*action="{re.escape(action)}"[^>]*>(.*?)</form>', page, re.DOTALL)
        assert found, f"no form with the action {action}"
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', found[1])
        values = {name: html.unescape(value) for name, value in hidden} | dict(fields)
        return self.request("POST", urlsplit(action).path, urlencode(values).encode(), **FORM)

    def sign_in(self, name: str, password: str | None = None, *, path: str = "/") -> Response:
        """Sign in by the form that ``path`` leads to."""
        page = self.text(f"/sign-in?{urlencode({'next': path})}")
        secret = PASSWORDS[name] if password is None else password
        return self.send(page, "/sign-in", {"name": name, "password": secret})


def signed_in(server: RegistryServer, name: str) -> Browser:
    """A browser in which ``name`` is signed in."""
    browser = Browser(server)
    assert browser.sign_in(name).status == 303
    return browser
