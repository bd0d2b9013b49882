"""A check of JSON against the few words of JSON Schema that the published schemas use."""

from __future__ import annotations

import re
from typing import Any


def conforms(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether ``value`` is as a JSON Schema says, of the words that ours uses."""
    if not rule.keys() & {"$ref", "anyOf", "enum", "type"}:
        return True
    if "$ref" in rule:
        inner: dict[str, Any] = root
        for part in rule["$ref"].removeprefix("#/").split("/"):
            inner = inner[part]
        return conforms(value, inner, root)
    if "anyOf" in rule:
        return any(conforms(value, one, root) for one in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    kinds: dict[str, type] = {
        "string": str, "integer": int, "boolean": bool, "null": type(None), "array": list, "object": dict,
    }  # fmt: skip
    if not isinstance(value, kinds[rule["type"]]) or (rule["type"] == "integer" and isinstance(value, bool)):
        return False
    if isinstance(value, str):
        return re.search(rule.get("pattern", ""), value) is not None
    if isinstance(value, list):
        return all(conforms(one, rule["items"], root) for one in value)
    if isinstance(value, dict):
        present = {key: one for key, one in rule.get("properties", {}).items() if key in value}
        return set(rule.get("required", ())) <= set(value) and all(
            conforms(value[key], one, root) for key, one in present.items()
        )
    return bool(value is None or value >= rule.get("minimum", value))
