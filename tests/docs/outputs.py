"""Compare what a command printed with what the page shows.

Digests and times differ from run to run. The first time that a page shows one, it is bound to what was
printed in its place; from then on it must be the same, in commands and in outputs. A line ``…`` stands for
any number of lines, ``…`` within a line for the rest of the line. The number of spaces does not count.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"
_HEX = r"(?<![0-9a-zA-Z])(?:(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7,128}|[0-9a-f]{12,128})(?![0-9a-zA-Z])"
_TOKEN = re.compile(f"(?P<time>{_TIME})|(?P<hex>{_HEX})|(?P<rest>…)")


@dataclass(slots=True)
class Bindings:
    """What the digests and times of a page are in this run."""

    known: dict[str, str] = field(default_factory=dict)

    def command(self, text: str) -> str:
        """Return ``text`` with the page's digests and times replaced by this run's."""

        def replaced(found: re.Match[str]) -> str:
            if found["rest"]:
                return "…"
            actual = self._actual(found[0])
            return found[0] if actual is None else actual

        filled = _TOKEN.sub(replaced, text)
        return re.sub(rf"({_HEX})…", r"\1", filled)

    def _actual(self, token: str) -> str | None:
        best: str | None = None
        for shown, actual in self.known.items():
            if shown == token:
                return actual
            if len(token) >= 7 and (shown.startswith(token) or token.startswith(shown)):
                best = actual[: len(token)] if best is None or len(actual) > len(best) else best
        return best

    def compare(self, shown: str, printed: str) -> str | None:
        """Return None if ``printed`` is what the page shows, else the difference. Binds what is new."""
        pattern, names = self._pattern(_plain(shown))
        found = re.fullmatch(pattern, _plain(printed))
        if found is None:
            return "\n".join(
                difflib.unified_diff(
                    self.command(shown).splitlines(), printed.splitlines(), "the page", "printed", lineterm=""
                )
            )
        for group, token in names.items():
            self.known[token] = found[group]
        return None

    def _pattern(self, shown: str) -> tuple[str, dict[str, str]]:
        names: dict[str, str] = {}
        lines = []
        for line in shown.splitlines():
            if line.strip() == "…":
                lines.append(r"(?:[^\n]*\n)*?")
            else:
                lines.append(self._line(line, names) + r"\n")
        return "".join(lines), names

    def _line(self, line: str, names: dict[str, str]) -> str:
        parts, end = [], 0
        for found in _TOKEN.finditer(line):
            parts.append(re.escape(line[end : found.start()]))
            end = found.end()
            if found["rest"]:
                parts.append(r"[^\n]*?")
            else:
                parts.append(self._token(found[0], _TIME if found["time"] else None, names))
        return "".join(parts) + re.escape(line[end:])

    def _token(self, token: str, form: str | None, names: dict[str, str]) -> str:
        for group, other in names.items():
            if other == token:
                return f"(?P={group})"
        actual = self._actual(token)
        if actual is not None and len(actual) >= len(token):
            return re.escape(actual)
        names[f"t{len(names)}"] = token
        wanted = form or f"[0-9a-f]{{{len(token)}}}"
        if actual is not None:  # the page shows more of a digest than it did before
            wanted = f"{actual}[0-9a-f]{{{len(token) - len(actual)}}}"
        return f"(?P<t{len(names) - 1}>{wanted})"


def _plain(text: str) -> str:
    return "".join(re.sub(r"[ \t]+", " ", line).strip() + "\n" for line in text.splitlines() if line.strip())
