"""The table of all pages, and the sections that the navigation lists. A new page is a line here."""

from __future__ import annotations

from typing import Final

from digestry.web.pages import (
    changes,
    fleet,
    image,
    issuer_sign_in,
    repositories,
    repository,
    restore,
    search,
    sign_in,
    tag,
    theme,
    vulnerability,
)
from digestry.web.route import Route

ROUTES: Final = (
    Route("/", repositories.show),
    Route("/r/{name}", repository.show),
    Route("/r/{name}@{digest}", image.show),
    Route("/search", search.show),
    Route("/r/{name}:{tag}", tag.show),
    Route("/changes/{name}", changes.show),
    Route("/restore/{name}:{tag}", restore.show, restore.restore),
    Route("/fleet", fleet.show),
    Route("/vulnerability", vulnerability.show),
    Route("/sign-in", sign_in.show, sign_in.sign_in),
    Route("/sign-in/at", handle=issuer_sign_in.begin),
    Route("/sign-in/return", handle=issuer_sign_in.finish),
    Route("/sign-out", act=sign_in.sign_out),
    Route("/theme", act=theme.change, token=False),
)

NAVIGATION: Final = (("Repositories", "/"), ("Fleet", "/fleet"))
"""The sections, each with the address of its first page."""
