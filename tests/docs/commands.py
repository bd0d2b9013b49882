"""The commands of a block, each with the output that the page shows for it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tests.docs.pages import Block

_EXIT_CODE = re.compile(r"# exit code (\d+)\b")
_ASKS_STATUS = "echo $?"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page. ``shown`` is the output on the page, None if the page shows none."""

    where: str
    text: str
    shown: str | None
    status: int | None
    """The exit code that the command must have; None: the page asks for it with ``echo $?``."""


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a ``sh`` or ``console`` block."""
    found = list(_console(block) if block.language == "console" else _script(block))
    for number, (line, text, shown) in enumerate(found):
        asked = number + 1 < len(found) and found[number + 1][1].strip() == _ASKS_STATUS
        code = _EXIT_CODE.search(text)
        status = None if asked else int(code[1]) if code else 0
        yield Command(f"{block.where}, line {block.line + line}", text, shown, status)


def _script(block: Block) -> Iterator[tuple[int, str, None]]:
    begun: list[str] = []
    for number, line in enumerate(block.text.splitlines(), 1):
        if not begun and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begun.append(line)
        if is_complete("\n".join(begun)):
            yield number, "\n".join(begun), None
            begun = []
    if begun:
        raise ValueError(f"{block.where}: the last command has no end")


def _console(block: Block) -> Iterator[tuple[int, str, str | None]]:
    lines = block.text.splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].startswith("$ "):
            raise ValueError(f"{block.where}: line {number + 1} belongs to no command")
        begun, first = [lines[number].removeprefix("$ ")], number + 1
        number += 1
        while not is_complete("\n".join(begun)):
            begun.append(lines[number].removeprefix("> "))
            number += 1
        shown = []
        while number < len(lines) and not lines[number].startswith("$ "):
            shown.append(lines[number])
            number += 1
        yield first, "\n".join(begun), "\n".join(shown).rstrip("\n") if shown else None


def is_complete(text: str) -> bool:
    """Whether a shell would run ``text`` and not wait for another line."""
    if text.endswith("\\"):
        return False
    done = subprocess.run(["bash", "-n"], input=text + "\n", capture_output=True, text=True, check=False)
    return done.returncode == 0 and not done.stderr
