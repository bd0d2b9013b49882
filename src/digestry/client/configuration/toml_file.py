"""Reading a configuration file in TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from digestry.errors import InvalidConfiguration


def read_text(path: Path) -> str | None:
    """Return the text of a file; None if there is no such file. Raises :class:`InvalidConfiguration`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot read {path}: {error.strerror}", hint="let this user read the file, or remove it"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not valid: it is not UTF-8 ({error.reason})") from error


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return the document that ``text`` is, from the file ``path``. Raises :class:`InvalidConfiguration`."""
    import tomllib  # noqa: PLC0415 - only where there is something to read

    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
