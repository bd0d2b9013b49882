"""The reference has every public name."""

from __future__ import annotations

import re
import types

import digestry
from tests.docs.pages import HOUSE


def test_the_reference_has_every_public_name() -> None:
    text = (HOUSE / "docs" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\.\. auto(?:class|function):: (\w+)(?:\(.*\))?$", text, re.MULTILINE))
    public = {name for name in digestry.__all__ if name != "__version__"}
    modules = {name for name in public if isinstance(getattr(digestry, name), types.ModuleType)}
    assert listed == public - modules
    assert not [name for name in modules if f":: digestry.{name}" not in text]
