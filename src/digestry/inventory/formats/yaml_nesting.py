"""How deeply YAML is nested, looked at before it is composed.

The C library that composes it recurses without a limit, and a hundred thousand brackets end the process.
"""

from __future__ import annotations

import re
from typing import Any, Final

DEEPEST: Final = 300
"""Collections inside each other. Kubernetes' own objects have twenty."""

# Block collections are as deep as a line begins with spaces and dashes.
_INDENTED: Final = re.compile(rb"^[ \t?-]{%d}" % DEEPEST, re.MULTILINE)


def too_deep(content: bytes) -> int:
    """Return the line at which ``content`` is nested more deeply than :data:`DEEPEST`; 0 if it is not.

    What is wrong otherwise is left to whoever composes it.
    """
    import yaml  # noqa: PLC0415 - few files are YAML

    wide = content[:2] in {b"\xff\xfe", b"\xfe\xff"}  # UTF-16
    text = content.replace(b"\0", b"") if wide else content
    if text.count(b"[") + text.count(b"{") < DEEPEST and _INDENTED.search(text) is None:
        return 0
    # Any: the available loader depends on the installed library.
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(content, Loader=base):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEEPEST:
                    return (event.start_mark.line if event.start_mark is not None else 0) + 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (yaml.YAMLError, UnicodeDecodeError, ValueError):
        return 0
    return 0
