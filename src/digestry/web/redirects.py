"""Ways on to another page of this registry, and nowhere else."""

from __future__ import annotations

import html
import re
from typing import Final

from starlette.responses import Response

_OWN: Final = re.compile(r"/(?![/\\])[\x21-\x7e]{0,2000}", re.ASCII)


def back(address: str) -> str:
    """Return ``address`` if it is the path of a page here, else the first page's."""
    return address if _OWN.fullmatch(address) and "\\" not in address else "/"


def led_on(address: str) -> Response:
    """Return a page that leads on to ``address`` by itself.

    The request that follows is this registry's own, so that the browser sends a session's cookie with it.
    After a redirect it would not, if the visitor came from elsewhere (SameSite=Strict).
    """
    way = html.escape(address)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="refresh" content="0; url={way}">\n<title>One moment</title>\n</head>\n'
        f'<body><p><a href="{way}">Go on</a></p></body>\n</html>\n'
    )
    return Response(text, 200, {"Cache-Control": "no-store"}, "text/html; charset=utf-8")
