"""The command line: one module a verb in ``digestry.cli``, imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from digestry import __version__
from digestry.cli import exit_codes
from digestry.cli.output import complain
from digestry.errors import DigestryError

# verb -> (module in digestry.cli that has a command of the verb's name, what it does)
_VERBS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve", "Run the registry."),
    "pack": ("pack", "Build an image from a directory: no daemon, no root, same bytes same digest."),
    "pull": ("pull", "Fetch an image, by tag or by digest, verified, into the local store."),
    "push": ("push", "Send an image from the local store to its registry."),
    "tag": ("tag", "Give an image of the local store another name."),
    "rmi": ("rmi", "Remove names, and what no name holds any more, from the local store."),
    "images": ("images", "List the images of the local store."),
    "inspect": ("inspect", "Show an image's manifest and config."),
    "digest": ("digest", "Print the digest that a name points to, and nothing else."),
    "tags": ("tags", "List a repository's tags and the digests they point to."),
    "log": ("log", "Show where a tag has pointed: when, by whom, from what to what."),
    "advisory": ("advisory", "Say, and see, which digests are vulnerable and which are fixed."),
    "audit": ("audit", "Find which digest every container really runs, and whether it is a bad one."),
    "demo": ("demo", "Play the story of one moved tag on real bytes."),
    "config": ("config", "Show and change settings."),
    "version": ("version", "Print the version."),
}


class _Verbs(click.Group):
    """A group that lists its verbs without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"digestry.cli.{_VERBS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in _VERBS.items()])


@click.group(
    cls=_Verbs,
    epilog=exit_codes.EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="digestry %(version)s")
def digestry() -> None:
    """Container images by digest: a registry that remembers where every tag pointed, a client
    and local store with docker's verbs, and an audit of what really runs."""


def main() -> None:
    """The console script. Ends the process with one of the documented exit codes."""
    try:
        status = digestry.main(standalone_mode=False)
    except click.exceptions.Exit as request:
        status = request.exit_code
    except click.Abort:
        complain("interrupted")
        status = exit_codes.INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = exit_codes.USAGE
    except DigestryError as error:
        complain(error.message, error.hint)
        status = exit_codes.of(error)
    except KeyboardInterrupt:
        complain("interrupted")
        status = exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`). Point stdout elsewhere, so that the
        # interpreter's last flush does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = exit_codes.OK
    sys.exit(status if isinstance(status, int) else exit_codes.OK)
