"""The pages, taken apart into fenced blocks and what a comment says about each.

A comment right before a block says how the tests take it::

    <!-- test: not run, because REASON -->   an illustration: it is not played
    <!-- test: needs docker -->              it is played where that program is and works
    <!-- test: writes PATH -->               the block is the content of that file
    <!-- test: run
    COMMANDS
    -->                                      preparation that the reader does not see
    <!-- test: run with docker               the same, where that program is and works

Without a comment a ``sh`` block is played command by command, each of which must succeed unless its line
ends with ``# exit code N``. In a ``console`` block the lines after ``$ `` are commands, and the lines
after a command, if there are any, are what it prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").glob("*.md"))]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)$")
_DIRECTIVE = re.compile(r"^ *<!-- test: (?P<text>.*?)(?P<end> *-->)?$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page: ``line`` is where it begins, ``directive`` the comment before it, if any."""

    page: Path
    line: int
    language: str
    directive: str
    text: str

    @property
    def where(self) -> str:
        """The block's place, for messages."""
        return f"{self.page.relative_to(HOUSE)}:{self.line}"

    @property
    def needs(self) -> str | None:
        """The program without which the block is not played."""
        found = re.fullmatch(r"(?:needs|run with) (\S+)", self.directive)
        return found[1] if found else None

    @property
    def writes(self) -> str | None:
        """The file whose content the block is."""
        return self.directive.removeprefix("writes ") if self.directive.startswith("writes ") else None

    @property
    def is_played(self) -> bool:
        """Whether the block has commands that a test runs."""
        return self.language in {"sh", "console"} and not self.directive.startswith("not run")


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of ``page`` in their order, the hidden preparations among them, as ``sh`` blocks."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    directive = ""
    for number, line in lines:
        if found := _DIRECTIVE.match(line):
            directive = found["text"]
            if not found["end"]:
                rest = _until(lines, "-->")
                if directive == "run" or directive.startswith("run with "):
                    yield Block(page, number, "sh", directive, "\n".join(rest))
                    directive = ""
                else:
                    directive = " ".join([directive, *(part.strip() for part in rest)]).strip()
        elif found := _FENCE.match(line):
            body = [text.removeprefix(found["indent"]) for text in _until(lines, f"{found['indent']}```")]
            yield Block(page, number, found["language"], directive, "\n".join(body))
            directive = ""
        elif line.strip():
            directive = ""


def _until(lines: Iterator[tuple[int, str]], end: str) -> list[str]:
    """Take the lines up to the one that is ``end``, or that ends so if it ends a comment."""
    taken: list[str] = []
    for _, line in lines:
        if line.rstrip() == end:
            return taken
        if end == "-->" and line.rstrip().endswith(end):
            return [*taken, line.rstrip().removesuffix(end).rstrip()]
        taken.append(line)
    raise ValueError(f"no end of a block: {end}")
