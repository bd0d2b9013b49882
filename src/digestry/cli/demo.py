"""``digestry demo``: the story of one moved tag, on real bytes, in commands that anybody can type."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypedDict

import click

from digestry.cli import demo_engine, exit_codes
from digestry.cli.demo_engine import Engine
from digestry.cli.demo_program import executable
from digestry.cli.output import note, say
from digestry.errors import DigestryError, StorageError

_CVE: Final = "CVE-2026-1505"
_MESSAGES: Final = {
    "bad": "golftrack 1.5: lets anybody in (this is the bug)",
    "good": "golftrack 1.5: asks for the password",
}
_READY_SECONDS: Final = 30


class _Stage:
    """The place of the story: a directory of its own, a registry, and an engine or none."""

    def __init__(self, directory: Path, engine: Engine | None) -> None:
        self.directory = directory
        self.engine = engine
        self.environment = {**os.environ, "DIGESTRY_HOME": str(directory / "home")}
        if engine is not None:
            self.environment.update(engine.environment)
        if sys.stdout.isatty():
            # The commands write to a pipe, so they get the width of the tables.
            self.environment["COLUMNS"] = str(shutil.get_terminal_size().columns)
        # The story's commands are the digestry that is running now, wherever it is installed.
        program = Path(sys.executable).with_name("digestry")
        self.program = [str(program)] if program.exists() else [sys.executable, "-m", "digestry"]

    def command(self, *words: str, expect: Sequence[int] = (0,), shown: str | None = None) -> str:
        """Show a command as one types it, run it, show its output, and return that.

        Raises :class:`StorageError` if it ends with another exit code than expected: the story
        would be wrong from there on.
        """
        say(click.style(f"$ {shown or shlex.join(words)}", bold=True))
        real = [*self.program, *words[1:]] if words[0] == "digestry" else list(words)
        done = subprocess.run(
            real,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if output := done.stdout.rstrip():
            say(output)
        if done.returncode not in expect:
            raise StorageError(
                f"the demo stops: `{shlex.join(words)}` ended with exit code {done.returncode}",
                hint="please report it, with the output above",
            )
        if expect != (0,) and words[0] == "digestry":
            say(click.style(f"(exit code {done.returncode})", dim=True))
        say()
        return done.stdout

    def quietly(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command of digestry without showing it."""
        return subprocess.run(
            [*self.program, *words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            check=False,
        )

    @contextlib.contextmanager
    def registry(self, port: int) -> Iterator[str]:
        """Run the registry for the block, and yield ``localhost:PORT``."""
        words = ["serve", "--root", "registry", "--listen", f"127.0.0.1:{port}"]
        say(click.style(f"$ digestry {shlex.join(words)} &", bold=True))
        log = self.directory / "registry.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*self.program, *words],
                cwd=self.directory,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            url = process.stdout.readline().decode().strip()
            if not url:
                raise StorageError(f"the registry did not start: {log.read_text(errors='replace').strip()}")
            say(url)
            say()
            yield f"localhost:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=_READY_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _heading(text: str) -> None:
    say(click.style(text, fg="cyan", bold=True))


@click.command()
@click.option(
    "--engine",
    "choice",
    type=click.Choice(["auto", "docker", "podman", "install", "none"]),
    default="auto",
    show_default=True,
    help="Where the containers run. 'install' (root, Debian or Ubuntu) installs and starts docker first.",
)
@click.option("--keep", is_flag=True, help="Leave the demo's directory in place, to look around in it.")
def demo(choice: str, keep: bool) -> None:
    """Play the story of one moved tag on real bytes.

    A vulnerable golftrack:1.5 runs in production; the fixed one is pushed to the same tag; digestry
    tells the containers apart. Everything happens in a temporary directory, on loopback.
    """
    from digestry.registry.server import free_port

    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="digestry-demo-")).resolve()
    engine: Engine | None = None
    try:
        engine = _choose(choice, directory)
        stage = _Stage(directory, engine)
        try:
            port = free_port("127.0.0.1", 5000)
        except DigestryError:
            port = free_port("127.0.0.1", 0)
        _play(stage, port)
        say(f"That took {time.monotonic() - began:.0f} s, all of it on real bytes.")
    finally:
        if engine is not None:
            engine.stop()
        if keep:
            note(f"everything is still in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _choose(choice: str, directory: Path) -> Engine | None:
    engine: Engine | None = None
    if choice == "install":
        engine = demo_engine.install(directory / "engine", say)
    elif choice != "none":
        engine = demo_engine.find(("docker", "podman") if choice == "auto" else (choice,))
    if engine is None:
        missing = f"No {choice}" if choice in ("docker", "podman") else "No container engine"
        say(
            f"{missing} answers, so no container will run: the audit reads an inventory file in\n"
            "their place. Everything else is real. (As root on Debian or Ubuntu, `make demo ENGINE=install`\n"
            "installs docker first.)"
            if choice != "none"
            else "No engine is used: the audit reads an inventory file in place of running containers."
        )
    else:
        say(f"The containers run in {engine.program} ({engine.architecture}).")
    say()
    return engine


def _play(stage: _Stage, port: int) -> None:
    _heading("1. A registry.")
    with stage.registry(port) as host:
        stage.command("digestry", "config", "set", "registry", host)
        repository = f"{host}/golftrack"
        if stage.engine is not None:
            stage.engine.clean(repository)
        try:
            _tell(stage, repository)
        finally:
            if stage.engine is not None:
                stage.engine.clean(repository)


def _tell(stage: _Stage, repository: str) -> None:
    _heading("2. golftrack 1.5 is built from a directory and pushed. It has a bug.")
    bad = _build(stage, "bad")
    production = _Production(stage, repository)
    _heading("3. It goes to production: two containers by tag, one by digest.")
    production.start("golftrack-web-1", f"{repository}:1.5")
    production.start("golftrack-web-2", f"{repository}:1.5")
    production.start("golftrack-api", f"{repository}@{bad}")

    _heading("4. The bug is fixed, and the fixed build is pushed to the same tag. One more is started.")
    good = _build(stage, "good")
    production.start("golftrack-web-3", f"{repository}:1.5", newest=True)

    _heading("5. Two images, one name. The registry has not forgotten; what was overwritten still runs.")
    stage.command("digestry", "tags", "golftrack")
    stage.command("digestry", "log", "golftrack:1.5")
    stage.command("digestry", "images", "--digests")
    stage.command("digestry", "pull", f"golftrack@{bad}")
    production.run_once(bad)

    _heading("6. An advisory states which digest is bad, and which one fixes it.")
    stage.command(
        "digestry", "advisory", "add", f"golftrack@{bad}",
        "--status", "affected", "--id", _CVE, "--fixed-by", good,
    )  # fmt: skip

    _heading("7. Which container runs which of the two?")
    found = production.audit(expect=exit_codes.FINDINGS)
    affected = [row for row in found if row["advisory_state"] == "affected"]
    say(f"The bad ones are replaced, by digest: {', '.join(row['name'] for row in affected)}.")
    say()
    for row in affected:
        production.replace(row["name"], f"{repository}@{good}")
    production.audit(expect=exit_codes.OK)
    _heading("Nothing vulnerable runs now, and the digest of every container is known.")


def _build(stage: _Stage, version: str) -> str:
    """Build and push one of the two images to golftrack:1.5, and return its digest."""
    architecture = stage.engine.architecture if stage.engine else demo_engine.host_architecture()
    source = stage.directory / f"golftrack-{version}"
    source.mkdir()
    program = source / "golftrack"
    program.write_bytes(executable(_MESSAGES[version], architecture))
    program.chmod(0o755)
    output = stage.command(
        "digestry", "pack", source.name, "--tag", "golftrack:1.5",
        "--entrypoint", "/golftrack", "--platform", f"linux/{architecture}", "--push",
    )  # fmt: skip
    digests = [line.split()[-1] for line in output.splitlines() if line.startswith("Digest: ")]
    if not digests:
        raise StorageError("the demo stops: `digestry pack` named no digest")
    return digests[0]


class _AuditRow(TypedDict):
    """The fields of a row of the audit's JSON that the demo reads."""

    name: str
    advisory_state: str


class _Production:
    """The containers: an engine's, or rows of an inventory file."""

    def __init__(self, stage: _Stage, repository: str) -> None:
        self._stage = stage
        self._repository = repository
        self._inventory: dict[str, dict[str, str]] = {}
        self._file = stage.directory / "inventory.json"
        self._running = False

    def start(self, name: str, image: str, *, newest: bool = False) -> None:
        if self._stage.engine is not None and self._started_in(self._stage.engine, name, image, newest):
            return
        digest = image.partition("@")[2] or self._resolve(image)
        self._inventory[name] = {"host": "production", "name": name, "reference": image, "digest": digest}
        self._file.write_text(json.dumps(list(self._inventory.values()), indent=2))
        say(f"(no engine: {name} is a row of {self._file.name}: {image})")
        say()

    def _started_in(self, engine: Engine, name: str, image: str, newest: bool) -> bool:
        try:
            self._stage.command(*engine.start_command(name, image, newest=newest))
        except StorageError:
            if self._running:
                raise
            # An engine that answers may still be one that cannot run anything, or cannot reach this machine's
            # loopback. The story continues without it.
            engine.clean(self._repository)
            self._stage.engine = None
            say(
                f"\n{engine.program} answers, but could not run this container (its reason is above).\n"
                "The story goes on without it: the audit reads an inventory file in its place.\n"
            )
            return False
        self._running = True
        return True

    def _resolve(self, image: str) -> str:
        """Return the digest that an engine would pull now."""
        done = self._stage.quietly("digest", image)
        return done.stdout.decode().strip()

    def replace(self, name: str, image: str) -> None:
        """Restart a container from another image."""
        if self._stage.engine is not None:
            self._stage.command(*self._stage.engine.remove_command(name))
        self.start(name, image)

    def run_once(self, digest: str) -> None:
        """Run the program of an image once, by digest."""
        image = f"{self._repository}@{digest}"
        if self._stage.engine is not None:
            self._stage.command(*self._stage.engine.run_command(image))
        elif platform.system() == "Linux":
            self._unpack(image)
            self._stage.command("./unpacked/golftrack", "--version")
        else:
            say("(this machine can run no Linux program without an engine)")
            say()

    def _unpack(self, image: str) -> None:
        from digestry.images.store import ImageStore
        from digestry.images.unpack import unpack
        from digestry.model.reference import Reference

        store = ImageStore(self._stage.directory / "home" / "images")
        unpack(store, store.image(store.find(Reference.parse(image))), self._stage.directory / "unpacked")
        say(f"(no engine: the files of {image} are unpacked, and its program is run on this machine)")

    def audit(self, *, expect: int) -> list[_AuditRow]:
        """Show the audit as a table, and return its rows."""
        engine = self._stage.engine
        source = engine.source if engine is not None else f"file:{self._file.name}"
        # 3: containers of the user's own, beside the demo's, whose registry does not answer.
        expected = (expect, exit_codes.REMOTE) if expect == exit_codes.OK else (expect,)
        self._stage.command("digestry", "audit", "--source", source, expect=expected)
        done = self._stage.quietly("audit", "--source", source, "--format", "json")
        rows: list[_AuditRow] = json.loads(done.stdout)["containers"]
        return rows
