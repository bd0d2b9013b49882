"""The reference has every public name, and no other."""

from __future__ import annotations

import re

import digestry
from tests.docs.pages import HOUSE


def test_the_reference_has_every_public_name() -> None:
    text = (HOUSE / "docs" / "api.md").read_text(encoding="utf-8")
    classes = re.findall(r"^\.\. autoclass:: (\w+)$", text, re.MULTILINE)
    modules = re.findall(r"^\.\. automodule:: digestry\.(\w+)$", text, re.MULTILINE)
    assert len(classes) == len(set(classes))
    assert {*classes, *modules} == set(digestry.__all__) - {"__version__"}
