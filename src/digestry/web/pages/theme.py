"""The switch between the light and the dark theme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import RedirectResponse, Response

from digestry.web.cookies import THEME, THEMES
from digestry.web.redirects import back
from digestry.web.visit import Visit

_YEAR: Final = 365 * 86400


async def change(visit: Visit, fields: Mapping[str, str]) -> Response:
    """Keep the chosen theme in a cookie, and go back to the page that it was chosen on."""
    response = RedirectResponse(back(fields.get("back", "")), 303)
    theme = fields.get("theme", "")
    if theme in THEMES:
        response.set_cookie(THEME, theme, max_age=_YEAR, samesite="lax", secure=visit.https)
    return response
