"""What the pages name is there: files, links and their anchors, commands of digestry and their options."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import click
import pytest

from digestry.cli.main import digestry
from tests.docs.commands import commands
from tests.docs.pages import HOUSE, PAGES, blocks

_ALL = [*PAGES, *sorted((HOUSE / "docs/adr").glob("*.md")), HOUSE / "bench/README.md"]
_ALL += [HOUSE / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]

# The changelog tells of what was, too.
_PRESENT = [page for page in _ALL if page.stem != "CHANGELOG"]

_LINK = re.compile(r"\[[^\]\[]*\]\((?!https?://)(?P<path>[^()#\s]*)(?:#(?P<anchor>[^()\s]+))?\)")
_PATH = re.compile(r"\b(?:src|docs|tests|tools|bench|deploy|requirements)/[\w./-]*\w")
_CODE = re.compile(r"`([^`\n]+)`")
_WORD = re.compile(r"[a-z][a-z-]*")


def _prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.*?) *$", _prose(page), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", text)).strip().lower().replace(" ", "-")
        for text in headings
    }


@pytest.mark.parametrize("page", _ALL, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for found in _LINK.finditer(_prose(page)):
        target = (page.parent / found["path"]).resolve() if found["path"] else page
        assert target.exists(), found[0]
        if found["anchor"]:
            assert found["anchor"] in _anchors(target), found[0]


@pytest.mark.parametrize(
    "page", [page for page in _ALL if page.stem != "CHANGELOG"], ids=lambda page: page.stem
)
def test_files_that_are_named_are_there(page: Path) -> None:
    text = re.sub(r"https?://\S+", "", page.read_text(encoding="utf-8"))
    missing = {found for found in _PATH.findall(text) if not (HOUSE / found).exists()}
    assert not missing
    # Beside another file of the same folder, a test is named without it.
    tests = {path.name for path in (HOUSE / "tests").rglob("test_*.py")}
    assert set(re.findall(r"`(test_\w+\.py)`", text)) <= tests


def _words(text: str) -> list[str]:
    """Return the words of a command as the page has it: what stands for something is a word, too."""
    return text.replace("[", " ").replace("]", " ").replace("…", " ").split()


def _unknown(words: list[str]) -> str | None:
    """Return what is wrong with a command line of digestry: a command or an option that there is not."""
    command: click.Command = digestry
    context = click.Context(digestry)
    while isinstance(command, click.Group) and words and _WORD.fullmatch(words[0].rstrip(",")):
        name = words[0].rstrip(",")
        found = command.get_command(context, name)
        if found is None:
            return f"there is no command {name}"
        command, words = found, words[1:]
    options = {"--help", "-h", "--version"}
    for parameter in command.params:
        options |= {*parameter.opts, *parameter.secondary_opts}
    for word in words:
        if word in {"|", "&&", "&", ";", "--"}:
            break
        option = re.match(r"--[a-z][a-z-]*|-[a-z]\b", word)
        if option and option[0] not in options:
            return f"there is no option {option[0]}"
    return None


@pytest.mark.parametrize("page", _PRESENT, ids=lambda page: page.stem)
def test_commands_that_are_named_are_there(page: Path) -> None:
    named = [code for code in _CODE.findall(_prose(page)) if code.startswith("digestry ")]
    for block in blocks(page):
        if block.language in {"sh", "console"} and (block.needs or not block.is_played):
            for command in commands(block):
                named += re.findall(r"(?<![\w/])digestry [^|;&)\n]+", command.text)
    for text in named:
        wrong = _unknown(_words(text)[1:])
        assert wrong is None, f"{text}: {wrong}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of_data_can_be_read(page: Path) -> None:
    for block in blocks(page):
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "json" and "…" not in block.text:
            for document in [block.text] if block.text.startswith("{\n") else block.text.splitlines():
                json.loads(document)
