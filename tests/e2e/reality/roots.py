"""Other releases' programs beside the machine's own: each in a folder, run in namespaces of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.engines import Engine
from tests.peers import build
from tests.support import PATIENCE, lacking, program, wait_until

MACHINE = "bookworm"
"""The release whose programs are the machine's own."""


# The first process of the namespaces: it reaps what is left to it, and ends with its standard input.
_ENTER = """
set -e
root=$1
if [ "$root" != / ]; then
    mount --bind "$root" "$root"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount --rbind /tmp "$root/tmp"
    for name in var/tmp var/lib root; do mount -t tmpfs tmpfs "$root/$name"; done
    mount -o remount,bind,ro "$root"
    cd "$root"
    mount -t proc proc proc
    mount -t tmpfs tmpfs run
    pivot_root . .
    umount -l .
else
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /run
fi
echo ready
while read -r _; do :; done
"""


def root_of(release: str) -> Path:
    """The folder that has a release's programs, or the end of the test."""
    if release == MACHINE:
        return Path("/")
    root = build.cache() / "debian" / release
    if not (root / "usr" / "sbin" / "dockerd").exists():
        lacking(f"the programs of {release}", f"{root} does not have them; tools/debian_roots.py makes it")
    return root


@dataclass
class Root:
    """Namespaces in which a release's programs run; ``scratch`` is a folder that is seen inside too."""

    release: str
    scratch: Path
    holder: subprocess.Popen[bytes]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, *command: str | Path) -> tuple[str, ...]:
        """The command line that runs ``command`` inside."""
        spaces = f"/proc/{self.holder.pid}/ns"
        return ("nsenter", f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children", "--",
                *map(str, command))  # fmt: skip

    def engine(self, *command: str | Path, **environment: str) -> Engine:
        return Engine(self.command(*command), environment)

    def log(self, name: str) -> Path:
        return self.scratch / f"{name}.log"

    def start(self, name: str, command: Sequence[str | Path], **environment: str) -> None:
        """Starts a daemon, whose output goes to its log."""
        script = f'echo $$ >"{self.scratch}/{name}.started"; exec "$@"'
        with self.log(name).open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                self.command("sh", "-c", script, name, *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def stop(self, name: str) -> None:
        """Stops a daemon as its administrator would; what it started may go on."""
        daemon = self.daemons.pop(name)
        identity = (self.scratch / f"{name}.started").read_text().strip()
        self.engine("sh", "-c")('kill -TERM "$1"', "sh", identity)
        daemon.wait(PATIENCE)

    def wait_for(self, name: str, engine: Engine, *question: str) -> None:
        """Until a daemon answers; the end of the test if it ends, or never does."""

        def answers() -> bool:
            if self.daemons[name].poll() is not None:
                said = self.log(name).read_text(errors="replace")[-2000:]
                lacking(f"{name} of {self.release}", f"it does not start here; its log ends so:\n{said}")
            return engine.attempt(*question).returncode == 0

        wait_until(answers, what=f"{name}'s first answer", log=self.log(name))


@contextlib.contextmanager
def entered(release: str) -> Iterator[Root]:
    """The namespaces of one release. Everything that was started in them ends with the block."""
    root = root_of(release)
    for name in ("unshare", "nsenter", "pivot_root"):
        program(name)
    if os.geteuid() != 0:
        lacking(f"the programs of {release}", "an engine of the test's own must be started as root")
    with tempfile.TemporaryDirectory(prefix="digestry-eng-", ignore_cleanup_errors=True) as directory:
        holder = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private",
             "bash", "-c", _ENTER, "enter", str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert holder.stdout is not None
        assert holder.stderr is not None
        assert holder.stdin is not None
        try:
            if holder.stdout.readline() != b"ready\n":
                said = holder.stderr.read().decode(errors="replace")
                lacking(f"the programs of {release}", f"namespaces cannot be made here: {said}")
            inside = Root(release, Path(directory), holder)
            try:
                yield inside
            finally:
                holder.stdin.close()
                holder.wait(PATIENCE)  # the first process has ended, and so has every other inside
                for daemon in inside.daemons.values():
                    daemon.wait(PATIENCE)
        finally:
            holder.stdin.close()
            holder.wait(PATIENCE)
            holder.stdout.close()
            holder.stderr.close()
