"""Man pages, made of the same help that ``--help`` prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import click

from digestry.cli import exit_codes
from digestry.version import __version__

SECTION: Final = 1
_CODE: Final = re.compile(r"`([^`\n]+)`")


def page_name(context: click.Context) -> str:
    """Return the name of a command's page, such as ``digestry-index-create``."""
    return context.command_path.replace(" ", "-")


def root_context(command: click.Command) -> click.Context:
    """Return the context of the whole program, for the help of ``command``, its group of all commands."""
    return click.Context(command, info_name="digestry", **command.context_settings)


def all_pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of the page of a command, and of all commands in it."""
    yield page_name(context), page(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from all_pages(inner, click.Context(inner, parent=context, info_name=name))


def page(command: click.Command, context: click.Context) -> str:
    """Return the man page of a command (man(7))."""
    text = command.help or ""
    name = page_name(context)
    lines = [
        f'.TH "{name.upper()}" "{SECTION}" "" "digestry {__version__}" "digestry"',
        ".SH NAME",
        f"{_plain(name)} \\- {_plain(command.get_short_help_str(300).rstrip('.').replace('`', ''))}",
        ".SH SYNOPSIS",
        f"\\fB{_plain(context.command_path)}\\fR {_plain(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        *_paragraphs(text),
    ]
    options = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    if options:
        lines.append(".SH OPTIONS")
        for names, about in options:
            lines += [".TP", f"\\fB{_plain(names)}\\fR", _plain(about)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            about = "" if found is None else found.get_short_help_str(300)
            lines += [".TP", f"\\fB{_plain(name)}\\-{_plain(inner)}\\fR(1)", _plain(about)]
    lines += [".SH EXIT STATUS", *_paragraphs(exit_codes.EPILOG.replace("Exit codes:\n", ""))]
    if context.parent is not None:
        lines += [".SH SEE ALSO", f"\\fB{_plain(page_name(context.parent))}\\fR(1)"]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the lines of help's paragraphs; one that begins with ``\\b`` keeps its lines."""
    for paragraph in text.split("\n\n"):
        yield ".PP"
        if paragraph.lstrip().startswith("\b"):
            yield ".nf"
            yield from (_plain(line) for line in paragraph.lstrip().lstrip("\b\n").splitlines())
            yield ".fi"
        else:
            yield _CODE.sub(r"\\fB\1\\fR", _plain(" ".join(paragraph.split())))


def _plain(text: str) -> str:
    """Return text that man(7) prints as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
