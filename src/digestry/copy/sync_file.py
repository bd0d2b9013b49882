"""The file of ``digestry sync``: copies that are declared, in TOML or YAML, checked by one schema."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from digestry.copy.copy import CopyOptions
from digestry.copy.location import parse_location
from digestry.copy.request import CopyRequest, check_request
from digestry.errors import CallerError, InvalidConfiguration
from digestry.model.age_answers import seconds_of_age
from digestry.model.json_types import prepared
from digestry.model.platform import Platform
from digestry.model.reference import Reference
from digestry.model.text import did_you_mean

_LARGEST_FILE: Final = 4 << 20
_MOST_COPIES: Final = 10_000
_MOST_MERGED: Final = 100_000

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class DeclaredCopy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """One ``[[copy]]``: as the command's options. Without ``all-tags`` and ``tags`` it is one image."""

    source: Text
    target: Text
    tags: tuple[Text, ...] = ()
    all_tags: bool = False
    platforms: tuple[Text, ...] = ()
    referrers: bool = False
    min_age: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}(s|min|h|d|w)$")] | None = None


class SyncFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    copy: Annotated[tuple[DeclaredCopy, ...], msgspec.Meta(min_length=1, max_length=_MOST_COPIES)]


def schema() -> dict[str, Any]:
    """Return the JSON schema of the file, which is published as ``docs/schemas/sync-file.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(SyncFile)}


def read_sync_file(
    path: Path, read: Callable[[str], Reference], *, min_age: int | None = None
) -> list[tuple[CopyRequest, CopyOptions]]:
    """Return the copies that a file declares, all of them checked; ``read`` makes full names of images'.
    ``min_age``, in seconds, is of those that state none.

    A file that ends in ``.yaml`` or ``.yml`` is YAML, any other TOML. Raises :class:`InvalidConfiguration`,
    which says where in the file.
    """
    document = _document(path)
    try:
        file = msgspec.convert(document, prepared(SyncFile))
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{path}: {error}{_suggestion(document)}", hint=_KEYS) from error
    return [_checked(path, number, entry, read, min_age) for number, entry in enumerate(file.copy, 1)]


_FIELDS: Final = tuple(field.encode_name for field in msgspec.structs.fields(DeclaredCopy))
_KEYS: Final = f"a [[copy]] has {', '.join(_FIELDS)}"


def _document(path: Path) -> object:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
        if len(raw) > _LARGEST_FILE:
            raise InvalidConfiguration(f"{path} has more than {_LARGEST_FILE} bytes")
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"{path} is not UTF-8") from error
    try:
        if path.suffix in {".yaml", ".yml"}:
            return _read_yaml(text)
        return tomllib.loads(text)
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(f"{path} is not valid TOML: {error}") from error
    except ValueError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error}") from error
    except Exception as error:
        # yaml.YAMLError, whose module only a file of YAML loads.
        raise InvalidConfiguration(f"{path} is not valid YAML: {error}") from error


def _read_yaml(text: str) -> object:
    """Return the document of ``text``. Raises ValueError for merge keys (``<<``) that stand for too much."""
    import yaml  # noqa: PLC0415 - few files are YAML

    class Loader(yaml.SafeLoader):
        """A loader that counts what it merges: a few lines can stand for more than any memory holds."""

        merged = 0

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            super().flatten_mapping(node)
            self.merged += len(node.value)
            if self.merged > _MOST_MERGED:
                raise ValueError(f"its merge keys (<<) stand for more than {_MOST_MERGED} entries")

    return yaml.load(text, Loader=Loader)  # noqa: S506 - it makes plain values, as its base does


def _suggestion(document: object) -> str:
    """Return the known key that is most like an unknown one."""
    entries = document.get("copy") if isinstance(document, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        for key in entry if isinstance(entry, dict) else ():
            if key not in _FIELDS:
                return did_you_mean(str(key), _FIELDS)
    return ""


def _checked(
    path: Path, number: int, entry: DeclaredCopy, read: Callable[[str], Reference], min_age: int | None
) -> tuple[CopyRequest, CopyOptions]:
    try:
        request = CopyRequest(
            parse_location(entry.source, read),
            parse_location(entry.target, read),
            entry.all_tags,
            entry.tags,
            min_age if entry.min_age is None else seconds_of_age(entry.min_age),
        )
        check_request(request)
        platforms = tuple(Platform.parse(text) for text in entry.platforms)
    except ValueError as error:
        raise InvalidConfiguration(f"{path}, copy {number} ({entry.source}): {error}") from error
    except CallerError as error:
        where = f"{path}, copy {number} ({entry.source})"
        raise InvalidConfiguration(f"{where}: {error.message}", hint=error.hint) from error
    return request, CopyOptions(platforms, entry.referrers)
