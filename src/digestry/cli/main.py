"""The command line: one module for each command, imported only when the command is called."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from digestry.cli import exit_codes, verbose_option
from digestry.cli.command_group import Group
from digestry.cli.output import complain, note, printable
from digestry.errors import DigestryError
from digestry.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# section of the help -> command -> (module in digestry.cli that has a command of that name, its summary)
_SECTIONS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "Images": {
        "pull": ("pull", "Fetch an image, by tag or by digest, verified, into the local store."),
        "push": ("push", "Send an image from the local store to its registry."),
        "copy": ("copy", "Copy images between registries, the local store, layouts, archives and engines."),
        "sync": ("sync", "Copy what a file declares, once or again and again."),
        "save": ("save", "Write images of the local store to a file that `docker load` reads."),
        "load": ("load", "Read images of a file of `docker save`, or of an OCI archive."),
        "pack": ("pack", "Build an image from files: no daemon, no root, same files same digest."),
        "tag": ("tag", "Give an image of the local store another name."),
        "rmi": ("rmi", "Remove names, and content that no name needs, from the local store."),
        "images": ("images", "List the images of the local store."),
        "inspect": ("inspect", "Show an image's manifest and config."),
        "diff": ("diff", "Show what changed between two images."),
        "history": ("history", "List the steps of an image's build, with their layers."),
        "export": ("export", "Write the root file system of an image as a tar archive."),
        "unpack": ("unpack", "Make a directory of the root file system of an image."),
        "validate": ("validate", "Read every byte of an image, and check it."),
        "prune": ("prune", "Remove unused content from the local store."),
    },
    "Registries": {
        "login": ("login", "Log in to a registry, and keep the login where docker keeps it."),
        "logout": ("logout", "Forget the login for a registry."),
        "ls": ("ls", "List the repositories of a registry."),
        "tags": ("tags", "List a repository's tags and the digests they point to."),
        "digest": ("digest", "Print the digest that a name points to, and nothing else."),
        "resolve": ("resolve", "Print the newest digest that a tag has had for a minimum age, and why."),
        "follow": ("follow", "Keep a verified copy of a registry's log, and raise an alarm at a fork."),
        "log": ("log", "Show where a tag has pointed: when, by whom, from what to what."),
        "whose": ("whose", "Show which tags point, or pointed, to a digest."),
        "restore": ("restore", "Point a tag back at a digest that it had."),
        "rm": ("rm", "Delete tags of a registry, after listing what else points to their digests."),
        "manifest": ("manifest", "Get, put and annotate manifests and indexes."),
        "index": ("index", "Put indexes together, which list an image for each platform, and change them."),
        "blob": ("blob", "Get and put blobs: configs, layers and other content, by digest."),
        "referrers": ("referrers", "List what refers to an image: signatures, SBOMs, advisories."),
        "attach": ("attach", "Attach an artifact, such as an SBOM or a signature, to an image."),
    },
    "Audit": {
        "audit": ("audit", "Find which digest every container really runs, and whether it is vulnerable."),
        "fleet": ("fleet", "Show what agents reported: who runs an image, since when, until when."),
        "advisory": ("advisory", "State and list which digests are vulnerable and which are fixed."),
        "agent": ("agent", "Report what starts and stops on this host to a registry."),
        "admission": ("admission", "Decide at a cluster's door which images may run, by their history."),
        "scan": ("scan", "Have a scanner look at an image, and state what it finds."),
    },
    "Running a registry": {
        "serve": ("serve", "Run the registry."),
        "token": ("token", "Make and revoke the tokens that programs log in to the registry with."),
        "observe": ("observe", "Observe where the tags of other registries point, and report what moved."),
        "age": ("age", "Let digests through before their minimum age, each with a reason."),
        "journal": ("journal", "Verify and export a registry's journal."),
        "gc": ("gc", "Remove unused content from a registry."),
        "scrub": ("scrub", "Read all content of a registry again, and find what is damaged."),
        "backup": ("backup", "Copy a registry, served or not, to a directory or an archive."),
        "restore-backup": ("restore_backup", "Make a registry from a backup."),
        "migrate-storage": (
            "migrate_storage",
            "Move a registry to other stores: a disk, S3, SQLite, PostgreSQL.",
        ),
        "webhook": ("webhook", "List what webhooks have not accepted yet, and retry it."),
    },
    "digestry itself": {
        "demo": ("demo", "Play the story of one moved tag on real bytes."),
        "config": ("config", "Show and change settings."),
        "completion": ("completion", "Let shells complete the command line; install man pages."),
        "schema": ("schema", "Print the JSON Schema of a command's output."),
        "help": ("help", "Print the help of a command."),
        "version": ("version", "Print the version."),
    },
}
_COMMANDS: Final = {name: command for section in _SECTIONS.values() for name, command in section.items()}
_WIDEST: Final = max(map(len, _COMMANDS))


class _Commands(Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the command; ``-v`` alone asks for the version, as docker's does."""
        return super().parse_args(ctx, ["--version"] if args == ["-v"] else args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"digestry.cli.{_COMMANDS[cmd_name][0]}")
        name = cmd_name.replace("-", "_")
        command = getattr(module, name, None) or getattr(module, f"{name}_")
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands, and the options, that begin with ``incomplete``; none is imported."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                # As wide in each section: the texts begin below each other.
                formatter.write_dl([(name.ljust(_WIDEST), text) for name, (_, text) in commands.items()])


@click.group(
    cls=_Commands,
    epilog=exit_codes.EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="digestry %(version)s")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=verbose_option.keep,
    help="Say each request to a registry as it is made. Alone: show the version.",
)
def digestry() -> None:
    """Container images by digest: a registry that remembers where every tag pointed, a client
    and local store with docker's commands, and an audit of what really runs."""


def main() -> None:
    """Run the command line, and end the process with one of the documented exit codes."""
    if sys.stdout is None or sys.stderr is None or sys.stdin is None:
        from digestry.cli.closed_streams import occupy

        occupy()
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding does not have is escaped; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    status = _run()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if status == exit_codes.OK:  # otherwise it was reported where it was written
            status = _unwritten(error)
        # Point stdout elsewhere, so that the interpreter's own last flush neither complains nor changes the
        # exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)


def _run() -> int:
    stdout = sys.stdout
    if "_DIGESTRY_COMPLETE" in os.environ:
        from digestry.cli.shell_scripts import register

        register()
    try:
        status = digestry.main(prog_name="digestry", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return exit_codes.INTERRUPTED
    except click.ClickException as error:
        shown = io.StringIO()
        (_explained(error) if isinstance(error, click.NoSuchOption) else error).show(shown)
        for line in shown.getvalue().splitlines():
            note(printable(line.expandtabs()))
        return exit_codes.USAGE
    except DigestryError as error:
        complain(error.message, error.hint)
        return exit_codes.of(error)
    except SystemExit:
        # click answers a broken pipe itself, by putting a quiet stdout in place and exiting with 1, which
        # would say that an audit found something. The status is the one that a shell gives to a program that
        # SIGPIPE ended: not 0, since the unread output may have been the finding.
        if sys.stdout is not stdout:
            return exit_codes.UNREAD
        raise
    except Exception as error:  # noqa: BLE001 - the last resort; exit code 1 means findings
        if isinstance(error, OSError) and _is_of_output(error):
            return _unwritten(error)
        import traceback  # takes as long as a tenth of `digestry images`

        for line in traceback.format_exc().splitlines():
            note(printable(line))
        complain(
            f"a defect in digestry: {type(error).__name__}",
            "please report it, with what you called and the lines above",
        )
        return exit_codes.INTERNAL
    return status if isinstance(status, int) else exit_codes.OK


def _unwritten(error: OSError) -> int:
    """Report that the output could not be written, and return the exit code for it."""
    if isinstance(error, BrokenPipeError):
        return exit_codes.UNREAD
    complain(f"cannot write the output: {error.strerror or error}")
    return exit_codes.STORAGE


def _is_of_output(error: OSError) -> bool:
    """Return whether an error came while click printed something, such as the help."""
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code is click.echo.__code__:
            return True
        at = at.tb_next
    return False


def _explained(error: click.NoSuchOption) -> click.UsageError:
    """Return the error with the replacement for another tool's option, if that is known."""
    from digestry.cli.other_tools import option_for

    command = "" if error.ctx is None else " ".join(error.ctx.command_path.split()[1:])
    sentence = option_for(command, error.option_name)
    return click.UsageError(f"{error.message} {sentence}", error.ctx) if sentence else error
