"""The scanners that are installed: their commands, and running one on an OCI image layout."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from digestry.errors import InvalidConfiguration, RemoteError
from digestry.model.json_values import as_object, as_text
from digestry.model.text import printable

LAYOUT: Final = "{layout}"
"""The placeholder of the layout's folder in a command."""
_SECONDS: Final = 3600.0
_SHORT: Final = 60.0
_KNOWN: Final = {
    "trivy": ("image", "--quiet", "--scanners", "vuln", "--format", "json", "--input", LAYOUT),
    "grype": (f"oci-dir:{LAYOUT}", "--quiet", "--output", "json"),
}


@dataclass(frozen=True, slots=True)
class Scanner:
    """A scanner: its name for people, and its command, in which ``{layout}`` is the image's folder."""

    name: str
    command: tuple[str, ...]


def find_scanner(choice: str) -> Scanner:
    """Return the scanner that ``choice`` names: ``trivy``, ``grype``, or a command with ``{layout}``.

    If it is empty, the first one that is installed. Raises :class:`InvalidConfiguration` if there is none.
    """
    if LAYOUT in choice:
        try:
            command = shlex.split(choice)
        except ValueError as error:
            raise InvalidConfiguration(f"the scanner's command cannot be read: {error}") from error
        return Scanner(Path(command[0]).name, tuple(command))
    if choice and choice not in _KNOWN:
        raise InvalidConfiguration(
            f"{printable(choice[:100])} is not a scanner that is known here",
            hint=f"write {', '.join(_KNOWN)}, or a command with {LAYOUT}, which prints a report that "
            "`digestry advisory import` reads",
        )
    for name in (choice,) if choice else tuple(_KNOWN):
        program = shutil.which(name)
        if program is not None:
            return Scanner(name, (program, *_KNOWN[name]))
    lacking = f"{choice} is not on the PATH" if choice else "neither trivy nor grype is on the PATH"
    raise InvalidConfiguration(
        f"{lacking}: nothing was scanned",
        hint=f"install one, or give --scanner 'COMMAND {LAYOUT}'; `digestry advisory import` reads a report "
        "that was made elsewhere",
    )


def run_scanner(scanner: Scanner, layout: Path, *, limit: int) -> bytes:
    """Return the report that ``scanner`` prints on the image in ``layout``.

    Its messages go where those of this program go. Raises :class:`InvalidConfiguration` if it cannot be run,
    :class:`RemoteError` if it fails, or prints more than ``limit`` bytes.
    """
    command = [part.replace(LAYOUT, str(layout)) for part in scanner.command]
    report = layout.with_name(f"{layout.name}.report")
    try:
        with report.open("wb") as file:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, timeout=_SECONDS, check=False
            )
    except OSError as error:
        raise InvalidConfiguration(f"cannot run {scanner.name}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RemoteError(f"{scanner.name} did not end within {_SECONDS:.0f} s") from error
    if report.stat().st_size > limit:
        raise RemoteError(f"{scanner.name} printed more than {limit} bytes")
    content = report.read_bytes()
    if done.returncode != 0 and not content.strip():
        raise RemoteError(f"{scanner.name} ended with exit code {done.returncode}, and printed no report")
    if done.returncode < 0:
        raise RemoteError(f"{scanner.name} was ended by signal {-done.returncode}")
    return content


def database_date(scanner: Scanner) -> str:
    """Return the date of the scanner's database, such as ``2026-11-27``; empty if it does not say it, or says
    it in its reports, as Grype does."""
    read = _DATES.get(scanner.name)
    if read is None:
        return ""
    try:
        return read(scanner.command[0])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return ""


def _trivy_date(program: str) -> str:
    answer = as_object(_answer(program, "version", "--format", "json"))
    return as_text(as_object(answer.get("VulnerabilityDB")).get("UpdatedAt"))[:10]


def _answer(program: str, *arguments: str) -> object:
    done = subprocess.run(
        [program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SHORT, check=False
    )  # fmt: skip
    return msgspec.json.decode(done.stdout)


_DATES: Final[dict[str, Callable[[str], str]]] = {"trivy": _trivy_date}
