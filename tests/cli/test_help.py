"""The help of every command, in a terminal of 80 columns, and the spelling of options in all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import click
import pytest

from digestry.cli import other_tools, schemas
from digestry.cli.main import digestry
from digestry.cli.man_pages import root_context


def commands(
    group: click.Command = digestry, context: click.Context | None = None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every command and group, with its name and the context of its help."""
    context = context or root_context(group)
    yield context.command_path.removeprefix("digestry").strip(), group, context
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            inner = group.get_command(context, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, parent=context, info_name=name))


ALL = {name: (command, context) for name, command, context in commands()}


@pytest.mark.parametrize("name", ALL)
def test_help_fits_into_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command, context = ALL[name]
    context.terminal_width = 80
    lines = command.get_help(context).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "..." not in "".join(lines[lines.index("Commands:") :] if "Commands:" in lines else [])


def options() -> Iterator[tuple[str, click.Option]]:
    for name, (command, _) in ALL.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield name, parameter


def test_a_letter_means_one_thing() -> None:
    """But for -u and -p, which are as docker has them, in `login` and in `run`."""
    meanings: dict[str, set[str]] = defaultdict(set)
    for _, option in options():
        names = [one for one in option.opts if one.startswith("--")]
        for letter in (one for one in option.opts if not one.startswith("--")):
            meanings[letter].update(names)
    spellings = {letter for letter, names in meanings.items() if len(names) > 1}
    assert spellings == {"-u", "-p"}, meanings


def test_an_option_has_the_same_letter_everywhere() -> None:
    """But for --all-tags: what deletes all tags of a digest should not be one key away."""
    letters: dict[str, set[str]] = defaultdict(set)
    for _, option in options():
        for name in option.opts:
            if name.startswith("--"):
                letters[name].add("".join(one for one in option.opts if not one.startswith("--")))
    assert {name for name, found in letters.items() if len(found) > 1} == {"--all-tags"}


def test_documents_are_text_or_json_and_listings_are_tables() -> None:
    forms: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, option in options():
        if "--format" in option.opts:
            choices = tuple(option.type.choices) if isinstance(option.type, click.Choice) else ("FORMAT",)
            forms[choices].add(name)
    assert forms[("docker-archive", "oci-archive")] == {"save"}
    reports = [one for one in forms if "sarif" in one]
    assert {"audit", "admission test"} <= {name for one in reports for name in forms.pop(one)}
    assert "inspect" in forms[("FORMAT",)]  # which has templates, too
    assert set(forms) == {("FORMAT",), ("text", "json"), ("docker-archive", "oci-archive")}


def test_every_command_that_prints_json_has_a_schema() -> None:
    printing = {
        name
        for name, option in options()
        if "--format" in option.opts and not isinstance(option.type, click.Choice)
    } | {
        name
        for name, option in options()
        if "--format" in option.opts
        and isinstance(option.type, click.Choice)
        and "json" in option.type.choices
    }
    assert printing | {"advisory show"} == set(schemas.NAMES)  # which prints nothing but JSON


def test_what_other_tools_say_leads_to_a_command() -> None:
    for words, ours in other_tools._COMMANDS.items():
        assert ours in ALL, (words, ours)
        assert words not in ALL, words
    assert not other_tools._OF_ENGINES & ({name.partition(" ")[0] for name in ALL})
    for command in other_tools._OPTIONS:
        assert command in ALL, command
        known = {name for name, option in options() if name == command for name in option.opts}
        assert not known & other_tools._OPTIONS[command].keys(), command
