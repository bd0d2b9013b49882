"""Kubernetes objects in files: YAML of several documents, lists, JSON, and AdmissionReviews."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from digestry.admission.decision_scope import Change
from digestry.admission.manifest_lines import DocumentLines
from digestry.admission.pod_templates import kind_of
from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.yaml_nesting import too_deep
from digestry.model.json_values import as_list, as_object, as_text

LARGEST: Final = 64 << 20
"""The most bytes of a file that are read."""

_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
# What YAML 1.2 does not allow in a stream (section 5.1).
_CONTROL: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEMPLATE: Final = re.compile(rb"\{\{")
_REVIEW: Final = ("admission.k8s.io", "AdmissionReview")


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """An object of a file, and what is to be done to it: it is created, or what an AdmissionReview says.

    ``place`` is the file and the number of the document, ``lines`` are those of the object's fields.
    """

    place: str
    name: str
    change: Change
    file: str
    lines: DocumentLines

    @property
    def title(self) -> str:
        """The object as kubectl names it."""
        name = f"{self.change.kind[1].lower()}/{self.name or '-'}"
        return f"{self.change.namespace}/{name}" if self.change.namespace else name


def read_objects(content: bytes, place: str) -> Iterator[ManifestObject]:
    """Yield the objects in ``content``. Raises :class:`InvalidConfiguration`, which names the line."""
    if len(content) > LARGEST:
        raise InvalidConfiguration(f"{place} is longer than {LARGEST} bytes, and was not read")
    for number, (document, lines) in enumerate(_documents(content, place), 1):
        where = f"{place}, document {number}" if number > 1 else place
        yield from _objects(document, where, place, lines)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file, or of standard input for ``-``. Raises :class:`InvalidConfiguration`."""
    import sys  # noqa: PLC0415 - only for standard input

    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(LARGEST + 1)
        with path.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise InvalidConfiguration(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def _documents(content: bytes, place: str) -> Iterator[tuple[object, DocumentLines]]:
    import yaml  # noqa: PLC0415 - the other commands of admission do not need it

    # Any: the available loader depends on the installed library.
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """A loader that refuses a key that is there twice: readers differ in which one counts."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                name = str(key.value)
                if name in seen and name != "<<":
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key {name!r} is there twice", problem_mark=key.start_mark
                    )
                seen.add(name)
            return super().construct_mapping(node, deep)

    line = too_deep(content)
    if line:
        raise InvalidConfiguration(f"{place}, line {line}: not YAML or JSON: it is nested too deeply")
    loader = None
    try:
        loader = Loader(content)
        while loader.check_node():
            node = loader.get_node()
            yield loader.construct_document(node), DocumentLines(node)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        raise _not_readable(error, content, place) from error
    finally:
        if loader is not None:
            loader.dispose()


def _not_readable(error: Exception, content: bytes, place: str) -> InvalidConfiguration:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    line = mark.line + 1 if mark is not None else 0
    if not mark:  # the library's reader: of characters, and without a line
        try:
            text = content.decode("utf-16" if content[:2] in _UTF16 else "utf-8-sig")
        except UnicodeDecodeError as wrong:
            problem, line = "it is not UTF-8", content.count(b"\n", 0, wrong.start) + 1
        else:
            found = _CONTROL.search(text)
            if found is not None:
                problem = f"the character U+{ord(found[0]):04X} is not allowed"
                line = text.count("\n", 0, found.start()) + 1
    where = f"{place}, line {line}" if line else place
    rendered = _TEMPLATE.search(content) is None
    hint = "" if rendered else "a template of Helm is to be rendered first: helm template"
    return InvalidConfiguration(f"{where}: not YAML or JSON: {problem}", hint=hint)


def _objects(document: object, place: str, file: str, lines: DocumentLines) -> Iterator[ManifestObject]:
    if document is None:
        return
    value = as_object(document)
    kind = kind_of(value)
    if not isinstance(document, dict) or not kind[1]:
        raise InvalidConfiguration(
            f"{place}, line {lines.line()}: a Kubernetes object is required, with apiVersion and kind",
            hint="Helm charts and kustomizations are to be rendered first: helm template, kubectl kustomize",
        )
    if kind == _REVIEW:
        request = as_object(value.get("request"))
        inner = as_object(request.get("object"))
        asked = as_object(request.get("kind"))
        old = request.get("oldObject")
        change = Change(
            (as_text(asked.get("group")), as_text(asked.get("kind"))),
            as_text(request.get("namespace")),
            inner,
            old if isinstance(old, dict) else None,
            as_text(request.get("operation")),
            as_text(request.get("subResource")),
        )
        name = as_text(request.get("name"))
        yield ManifestObject(place, name, change, file, lines.inside("request.object"))
    elif kind[1].endswith("List") and isinstance(value.get("items"), list):
        for number, item in enumerate(as_list(value["items"])):
            inner = as_object(item)
            # A typed list may leave out what its items are.
            if not as_text(inner.get("kind")) and kind[1] != "List":
                inner = {**inner, "kind": kind[1][:-4], "apiVersion": value.get("apiVersion")}
            yield from _objects(inner, f"{place}, item {number + 1}", file, lines.inside(f"items[{number}]"))
    else:
        metadata = as_object(value.get("metadata"))
        name = as_text(metadata.get("name")) or as_text(metadata.get("generateName"))
        namespace = as_text(metadata.get("namespace"))
        yield ManifestObject(place, name, Change(kind, namespace, value), file, lines)
