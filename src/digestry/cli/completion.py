"""``digestry completion``: scripts that let shells complete the command line, and man pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from digestry.cli.command_group import Group
from digestry.cli.output import note, say
from digestry.cli.shell_scripts import PROGRAM, SHELLS

_FILES: Final = {
    "bash": f"share/bash-completion/completions/{PROGRAM}",
    "zsh": f"share/zsh/site-functions/_{PROGRAM}",
    "fish": f"share/fish/vendor_completions.d/{PROGRAM}.fish",
}
"""Where shells look below a prefix such as ``/usr`` or ``~/.local``."""
_MAN: Final = "share/man/man1"


@click.group(cls=Group)
def completion() -> None:
    """Complete commands, options, and names of images and tags in bash, zsh and fish.

    `digestry completion install` puts the scripts where the shells look for them.
    """


@completion.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def show(ctx: click.Context, *, shell: str) -> None:
    """Print the script for a shell, to be read by it: eval "$(digestry completion show bash)"."""
    from digestry.cli.shell_scripts import script

    say(script(shell, ctx.find_root().command), end="")


@completion.command()
@click.option("--shell", type=click.Choice(SHELLS), help="For this shell only.  [default: for all]")
@click.option(
    "--prefix",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to install, such as /usr/local.  [default: ~/.local]",
)
@click.option("--no-man", is_flag=True, help="Install no man pages.")
@click.pass_context
def install(ctx: click.Context, *, shell: str | None, prefix: Path | None, no_man: bool) -> None:
    """Install the scripts and the man pages, and print where they are."""
    from digestry.cli.man_pages import all_pages, root_context
    from digestry.cli.shell_scripts import script
    from digestry.fsio import make_directory, write_file

    base = prefix if prefix is not None else _home_prefix()

    def write(path: Path, text: str) -> None:
        make_directory(path.parent)
        write_file(path, text.encode())

    for shell_name in SHELLS if shell is None else [shell]:
        path = base / _FILES[shell_name]
        if prefix is None and shell_name == "fish":
            path = _config_directory() / "fish" / "completions" / f"{PROGRAM}.fish"
        write(path, script(shell_name, ctx.find_root().command))
        say(str(path))
    if not no_man:
        root = ctx.find_root().command
        for name, text in all_pages(root, root_context(root)):
            write(base / _MAN / f"{name}.1", text)
        say(str(base / _MAN / f"{PROGRAM}.1"))
    if prefix is None and shell in {None, "zsh"}:
        note(f"zsh reads it if its fpath has {base / 'share/zsh/site-functions'} before compinit")


def _home_prefix() -> Path:
    data = os.environ.get("XDG_DATA_HOME", "")
    if data.startswith("/") and Path(data).name == "share":
        return Path(data).parent
    return Path("~/.local").expanduser()


def _config_directory() -> Path:
    named = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(named) if named.startswith("/") else Path("~/.config").expanduser()
