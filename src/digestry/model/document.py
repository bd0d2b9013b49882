"""Decode the JSON documents of images, with errors that name the place and the fault."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from digestry.errors import InvalidManifest

T = TypeVar("T")


def decode_document(decoder: msgspec.json.Decoder[T], raw: bytes, what: str) -> T:
    """Return ``raw`` decoded by ``decoder``. Raises :class:`InvalidManifest`, which calls it ``what``."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidManifest(f"the {what} is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidManifest(f"the {what} is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidManifest(f"the {what} is nested too deeply") from error
