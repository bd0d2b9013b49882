"""Images to and from podman's storage, by ``podman save`` and ``podman load``.

The storage has its own locking and layout, so podman does the work.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from digestry.copy.archive import ArchiveTarget
from digestry.copy.scratch_file import new_scratch_file
from digestry.errors import InvalidConfiguration, RemoteError, RemoteNotFound
from digestry.model.text import printable

_SECONDS: Final = 3600.0


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("podman")
    if program is None:
        raise InvalidConfiguration(
            "containers-storage: needs the program podman, which is not in PATH",
            hint="copy to oci-archive:FILE or docker-archive:FILE where it is not",
        )
    try:
        return subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        raise InvalidConfiguration(f"cannot run podman: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RemoteError(f"podman did not end within {_SECONDS:.0f} s") from error


def _failure(done: subprocess.CompletedProcess[str], name: str) -> RemoteError:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = printable(lines[-1].removeprefix("Error: ")[:300]) if lines else f"exit code {done.returncode}"
    if "not known" in reason or "no such image" in reason.lower():
        return RemoteNotFound(f"podman has no image {name}: {reason}", status=404)
    return RemoteError(f"podman: {name}: {reason}")


def storage_location() -> tuple[str, str]:
    """Return the driver and the directory of podman's storage.

    Raises :class:`RemoteError`, and :class:`InvalidConfiguration` without podman.
    """
    done = _run("info", "--format", "{{.Store.GraphDriverName}}\n{{.Store.GraphRoot}}")
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != 2:
        raise _failure(done, "info")
    return lines[0], lines[1]


def save_from_podman(name: str, directory: Path) -> Path:
    """Write podman's image ``name`` into a file of ``directory``, an OCI archive, and return its path.

    The caller removes it. Raises :class:`RemoteNotFound`, :class:`RemoteError`, and
    :class:`InvalidConfiguration` without podman.
    """
    path = new_scratch_file(directory, "from-podman")
    path.unlink()  # podman writes no file that is there
    done = _run("save", "--quiet", "--format", "oci-archive", "--output", str(path), "--", name)
    if done.returncode != 0:
        path.unlink(missing_ok=True)
        raise _failure(done, name)
    return path


class PodmanTarget(ArchiveTarget):
    """Podman's storage: an archive is written, and loaded when it is whole."""

    def __init__(self, directory: Path, description: str) -> None:
        self._scratch = new_scratch_file(directory, "to-podman")
        super().__init__(self._scratch, description, for_docker=True)
        self.doubtful_layers = frozenset()
        self.loss = "podman keeps layers unpacked: what it pushes or saves later may have another digest"

    def finish(self) -> None:
        """Have podman load the images. Raises :class:`RemoteError`."""
        super().finish()
        done = _run("load", "--quiet", "--input", str(self._scratch))
        if done.returncode != 0:
            raise _failure(done, "load")

    def close(self) -> None:
        super().close()
        self._scratch.unlink(missing_ok=True)
