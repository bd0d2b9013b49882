"""Decoding attached documents of any kind: in-toto statements, DSSE envelopes, Sigstore bundles.

Nothing is verified here: the content of an envelope is read, and the envelope is kept for who verifies it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, TypeAlias

import msgspec

from digestry.advisories import csaf, cyclonedx, openvex, scan_predicates, spdx3
from digestry.advisories.attachment_kinds import is_other_predicate, may_mention_vulnerabilities
from digestry.advisories.dsse import read_envelope
from digestry.advisories.statements import Document, ForeignDocument, UnreadableDocument
from digestry.advisories.values import read_digest
from digestry.model.digest import Digest
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

Read: TypeAlias = Document | ForeignDocument | UnreadableDocument

_STATEMENT_TYPES: Final = "https://in-toto.io/Statement/"
_CYCLONEDX: Final = ("https://cyclonedx.org/", "http://cyclonedx.org/", "cyclonedx.org/")
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP: Final = b"\x1f\x8b"
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_DEEPEST: Final = 4
_MOST_DOCUMENTS: Final = 1000


def decode_documents(content: bytes, *, stating: bool = True) -> list[Read]:
    """Return the documents in ``content``: one, or, one after another or in a list, several.

    ``stating``: its media type says that it is an attestation or an advisory, so that content without any
    meaning here is unreadable; else that is so only if it may speak of vulnerabilities.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    if content.startswith(_UTF_16):  # as Windows' shell writes it
        try:
            content = content.decode("utf-16").encode()
        except UnicodeDecodeError:
            return [UnreadableDocument("it begins as UTF-16, and is not")]
    if content.startswith(_GZIP):
        return [UnreadableDocument("it is a gzip file, which is not read")]
    found: list[Read] = []
    for value in _values(content):
        if isinstance(value, UnreadableDocument):
            silent = not stating and not may_mention_vulnerabilities(content)
            return [*found, ForeignDocument("text") if silent else value]
        read = _read(value, _DEEPEST)
        if read is None:
            # An unknown format counts if it may mention vulnerabilities.
            speaks = stating or may_mention_vulnerabilities(msgspec.json.encode(value))
            read = UnreadableDocument("it is of an unknown kind") if speaks else ForeignDocument("unknown")
        found.append(read)
    return found or [UnreadableDocument("there is nothing in it")]


def _values(content: bytes) -> Iterator[JsonObject | UnreadableDocument]:
    value = _json(content)
    if isinstance(value, UnreadableDocument):
        several = [_json(one) for one in _one_after_another(content)]
        if len(several) > 1 and all(isinstance(one, dict) for one in several):
            value = several
    if isinstance(value, UnreadableDocument | dict):
        yield value
        return
    if not isinstance(value, list) or not value or len(value) > _MOST_DOCUMENTS:
        yield UnreadableDocument("it is not a JSON object")
        return
    for one in value:
        yield one if isinstance(one, dict) else UnreadableDocument("it is not a JSON object")


def _one_after_another(content: bytes) -> list[bytes]:
    """Return the JSON values of ``content``, such as lines; none if something else is in it."""
    decoder = json.JSONDecoder()
    found: list[bytes] = []
    try:
        text = content.decode()
        position = _after_blanks(text, 0)
        while position < len(text) and len(found) < _MOST_DOCUMENTS:
            _, end = decoder.raw_decode(text, position)
            found.append(text[position:end].encode())
            position = _after_blanks(text, end)
    except (ValueError, RecursionError):
        return []
    return found if position == len(text) else []


def _after_blanks(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return position if match is None else match.end()


def _json(content: bytes) -> object:
    """Return a JSON value; :class:`UnreadableDocument` for text that is none or is ambiguous."""
    try:
        value = msgspec.json.decode(content)
        json.loads(content, object_pairs_hook=_unique)
    except _Twice as error:
        return UnreadableDocument(str(error))
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        return UnreadableDocument(f"it is not JSON: {str(error)[:120]}")
    return value


class _Twice(Exception):
    """An object that has a key twice: readers differ in which one they use."""


def _unique(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"an object in it has {twice[:60]!r} twice")


def _read(value: JsonObject, depth: int) -> Read | None:
    """Return the document in a JSON object; None for an unknown kind."""
    if depth == 0:
        return UnreadableDocument("it is wrapped too deeply")
    bundled = value.get("dsseEnvelope")
    if "messageSignature" in value and bundled is None:
        return ForeignDocument("a signature")
    envelope = value if bundled is None else bundled
    if isinstance(envelope, dict) and "payload" in envelope:
        return _enveloped(envelope, depth)
    if bundled is not None:
        return UnreadableDocument("its envelope has no payload")
    kind = value.get("_type")
    if isinstance(kind, str) and kind.startswith(_STATEMENT_TYPES):
        return _statement(value, depth)
    return _bare(value)


def _enveloped(value: JsonObject, depth: int) -> Read | None:
    """Return the document in a DSSE envelope. The innermost of several envelopes is kept with it."""
    try:
        envelope = read_envelope(value)
    except ValueError as error:
        return UnreadableDocument(str(error))
    inner = _json(envelope.payload)
    if isinstance(inner, UnreadableDocument):
        return inner
    if not isinstance(inner, dict):
        return UnreadableDocument("its envelope holds no JSON object")
    read = _read(inner, depth - 1)
    if not isinstance(read, Document):
        return read
    return read if read.enveloped else replace(read, enveloped=True, envelope=envelope)


def _statement(value: JsonObject, depth: int) -> Read | None:
    predicate_type = value.get("predicateType")
    if not isinstance(predicate_type, str):
        return UnreadableDocument("the in-toto statement has no predicateType")
    if is_other_predicate(predicate_type):
        return ForeignDocument(predicate_type)
    predicate = value.get("predicate")
    if isinstance(predicate, dict) and isinstance(predicate.get("Data"), str):
        inner = _json(predicate["Data"].encode())  # cosign's form of unknown predicates
        predicate = inner if isinstance(inner, dict) else predicate
    if isinstance(predicate, str):
        inner = _json(predicate.encode())
        predicate = inner if isinstance(inner, dict) else predicate
    read: Read | None
    if openvex.is_openvex(predicate_type):
        if not isinstance(predicate, dict):
            return UnreadableDocument("its OpenVEX document is not an object")
        read = openvex.read_document(predicate)
    elif predicate_type.startswith(_CYCLONEDX):
        if not isinstance(predicate, dict):
            return UnreadableDocument("its CycloneDX document is not an object")
        read = cyclonedx.read_document(predicate)
    elif scan_predicates.is_scan(predicate_type) and isinstance(predicate, dict):
        read = scan_predicates.read_document(predicate, _subjects(value.get("subject")))
    else:
        read = _read(predicate, depth - 1) if isinstance(predicate, dict) else None
    if read is None:
        if may_mention_vulnerabilities(msgspec.json.encode(value)):
            return UnreadableDocument(f"its predicate, {predicate_type[:100]}, is not known")
        return ForeignDocument(predicate_type)
    if isinstance(read, Document):
        subjects = read.subjects | _subjects(value.get("subject"))
        # An envelope in the predicate covers neither these subjects nor this predicate's type.
        return replace(
            read, subjects=subjects, vague=not subjects and bool(value.get("subject")), envelope=None
        )
    return read


def _bare(value: JsonObject) -> Read | None:
    context = value.get("@context")
    contexts = [one for one in (context if isinstance(context, list) else [context]) if isinstance(one, str)]
    if any(openvex.is_openvex(one) for one in contexts):
        return openvex.read_document(value)
    if as_text(value.get("bomFormat")).lower() == "cyclonedx":
        return cyclonedx.read_document(value)
    if csaf.is_csaf(value):
        return csaf.read_document(value)
    if "@graph" in value or any("spdx" in one.lower() for one in contexts):
        return _linked(value)
    if "spdxVersion" in value:
        return ForeignDocument("SPDX")
    critical = as_object(value.get("critical"))
    if "image" in critical and "type" in critical:
        return ForeignDocument("a signature")
    return None


def _linked(value: JsonObject) -> Read | None:
    """Return a JSON-LD document as SPDX 3, with or without assessments; None if it is neither."""
    if spdx3.has_security(value):
        return spdx3.read_document(value)
    elements = [value, *spdx3.elements_of(value)]
    kinds = frozenset[str]().union(*map(spdx3.kinds_of, elements))
    if any("vuln" in kind for kind in kinds):
        return UnreadableDocument("it is SPDX 3 with vulnerabilities, and without an assessment of them")
    return ForeignDocument("SPDX") if "spdxdocument" in kinds else None


def _subjects(value: object) -> frozenset[Digest]:
    found = set()
    for subject in as_list(value):
        for algorithm, encoded in as_object(as_object(subject).get("digest")).items():
            one = read_digest(f"{algorithm.lower()}:{as_text(encoded).lower()}")
            if one is not None:
                found.add(one)
    return frozenset(found)
