"""A page: the template that it is rendered by, and the view that the template shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    """What a page's function returns.

    ``view`` is a frozen dataclass, which the template has under the name ``view``. ``title`` is in the
    browser's title bar, and ``section`` is the address of the section that the navigation marks.
    ``has_form``: it has a form for visitors without a session, who get a token for it.
    """

    template: str
    title: str
    view: object
    status: int = 200
    section: str = ""
    has_form: bool = False
