"""Kubernetes objects in files: YAML of several documents, lists, JSON, and AdmissionReviews."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from digestry.admission.pod_templates import Kind, kind_of
from digestry.errors import InvalidConfiguration
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

LARGEST: Final = 64 << 20
"""The most bytes of a file that are read."""

_REVIEW: Final = ("admission.k8s.io", "AdmissionReview")


@dataclass(frozen=True, slots=True)
class ManifestObject:
    """An object of a file. ``place`` is the file and the number of the document; ``old`` is the object before
    the change, if the file has an AdmissionReview."""

    place: str
    kind: Kind
    namespace: str
    name: str
    content: JsonObject
    old: JsonObject | None = None

    @property
    def title(self) -> str:
        """The object as kubectl names it."""
        name = f"{self.kind[1].lower()}/{self.name or '-'}"
        return f"{self.namespace}/{name}" if self.namespace else name


def read_objects(content: bytes, place: str) -> Iterator[ManifestObject]:
    """Yield the objects in ``content``. Raises :class:`InvalidConfiguration`, which names the line."""
    if len(content) > LARGEST:
        raise InvalidConfiguration(f"{place} is longer than {LARGEST} bytes, and was not read")
    for number, document in enumerate(_documents(content, place), 1):
        where = f"{place}, document {number}" if number > 1 else place
        yield from _objects(document, where)


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


def _documents(content: bytes, place: str) -> Iterator[object]:
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

    try:
        yield from yaml.load_all(content, Loader=Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}, line {mark.line + 1}" if mark is not None else place
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidConfiguration(f"{where}: not YAML or JSON: {problem}") from error


def _objects(document: object, place: str) -> Iterator[ManifestObject]:
    if document is None:
        return
    value = as_object(document)
    kind = kind_of(value)
    if not isinstance(document, dict) or not kind[1]:
        raise InvalidConfiguration(
            f"{place}: a Kubernetes object is required, with apiVersion and kind",
            hint="Helm charts and kustomizations are to be rendered first: helm template, kubectl kustomize",
        )
    if kind == _REVIEW:
        request = as_object(value.get("request"))
        inner = as_object(request.get("object"))
        asked = as_object(request.get("kind"))
        old = request.get("oldObject")
        yield ManifestObject(
            place,
            (as_text(asked.get("group")), as_text(asked.get("kind"))),
            as_text(request.get("namespace")),
            as_text(request.get("name")),
            inner,
            old if isinstance(old, dict) else None,
        )
    elif kind[1].endswith("List") and isinstance(value.get("items"), list):
        for number, item in enumerate(as_list(value["items"])):
            inner = as_object(item)
            # A typed list may leave out what its items are.
            if not as_text(inner.get("kind")) and kind[1] != "List":
                inner = {**inner, "kind": kind[1][:-4], "apiVersion": value.get("apiVersion")}
            yield from _objects(inner, f"{place}, item {number + 1}")
    else:
        metadata = as_object(value.get("metadata"))
        name = as_text(metadata.get("name")) or as_text(metadata.get("generateName"))
        yield ManifestObject(place, kind, as_text(metadata.get("namespace")), name, value)
