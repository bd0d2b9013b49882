"""The table of all pages, and the sections that the navigation lists. A new page is a line here."""

from __future__ import annotations

from typing import Final

from digestry.web.pages import repositories, theme
from digestry.web.route import Route

ROUTES: Final = (
    Route("/", repositories.show),
    Route("/theme", act=theme.change, token=False),
)

NAVIGATION: Final = (("Repositories", "/"),)
"""The sections, each with the address of its first page."""
