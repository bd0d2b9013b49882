"""The images of a Kubernetes object: of a pod, or of the pod templates in it.

Fields are those of core/v1 ``PodSpec``: containers, init and ephemeral containers, and image volumes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from digestry.model.json_values import JsonObject, as_list, as_object, as_text

Kind: TypeAlias = tuple[str, str]
"""The API group, empty for the core's, and the kind."""
Paths: TypeAlias = Mapping[Kind, tuple[str, ...]]
"""Where the pod templates of a kind are: keys with dots between them, ``[]`` for each item of a list. An
empty path is the object itself."""

_IN_SPEC: Final = ("spec.template",)

KNOWN: Final[Paths] = MappingProxyType(
    {
        ("", "Pod"): ("",),
        ("", "PodTemplate"): ("template",),
        ("", "ReplicationController"): _IN_SPEC,
        ("apps", "Deployment"): _IN_SPEC,
        ("apps", "ReplicaSet"): _IN_SPEC,
        ("apps", "StatefulSet"): _IN_SPEC,
        ("apps", "DaemonSet"): _IN_SPEC,
        ("batch", "Job"): _IN_SPEC,
        ("batch", "CronJob"): ("spec.jobTemplate.spec.template",),
        ("argoproj.io", "Rollout"): _IN_SPEC,
        ("serving.knative.dev", "Service"): _IN_SPEC,
        ("serving.knative.dev", "Configuration"): _IN_SPEC,
        ("serving.knative.dev", "Revision"): ("",),
    }
)
"""The kinds whose pod templates are known without configuration."""

_CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
_NEVER: Final = "Never"
_MOST_SEARCHED: Final = 10_000
_DEEPEST: Final = 12


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """A place that names an image: ``field`` is its path in the object, ``user`` what uses it, in words.

    ``local`` is whether only the node's own images are used (the pull policy ``Never``).
    """

    field: str
    user: str
    image: str
    local: bool = False


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """A pod, or the template of one: its labels, and the places that name images.

    ``faults`` are places that should name an image and have something else there.
    """

    labels: Mapping[str, str]
    places: tuple[ImagePlace, ...]
    faults: tuple[str, ...] = ()


def templates_of(document: JsonObject, kind: Kind, paths: Paths = KNOWN) -> list[PodTemplate] | None:
    """Return the pod templates in an object of ``kind``; None if it is not known where such an object has
    them."""
    known = paths.get(kind)
    if known is None:
        return None
    found = []
    for path in known:
        for where, value in _at(document, path.split(".") if path else [], ""):
            found.append(_template(value, where) if isinstance(value, dict) else _fault(where))
    return found


def template_in(document: JsonObject) -> str | None:
    """Return the path of what looks like a pod's template in an object of any kind; None if nothing does."""
    pending: deque[tuple[str, object, int]] = deque([("", document, 0)])
    for _ in range(_MOST_SEARCHED):
        if not pending:
            break
        where, value, depth = pending.popleft()
        if isinstance(value, dict):
            spec = as_object(value.get("spec"))
            if any(
                isinstance(as_object(item).get("image"), str)
                for part in _CONTAINERS
                for item in as_list(spec.get(part))
            ):
                return where
            if depth < _DEEPEST:
                pending += [(f"{where}.{key}".lstrip("."), inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list) and depth < _DEEPEST:
            # One path is for each item of a list.
            pending += [(f"{where}[]", item, depth + 1) for item in value]
    return None


def kind_of(document: JsonObject) -> Kind:
    """Return the group and kind that an object states of itself."""
    group, slash, _ = as_text(document.get("apiVersion")).partition("/")
    return (group if slash else "", as_text(document.get("kind")))


def _fault(where: str) -> PodTemplate:
    return PodTemplate({}, (), (f"{where} has another type than the way to a pod's template",))


def _at(value: object, keys: list[str], where: str) -> Iterator[tuple[str, object]]:
    """Yield what is at the path ``keys`` below ``value``, each with its path; of a path that ends at
    something else than an object, that."""
    if not keys:
        yield where, value
        return
    if not isinstance(value, dict):
        yield where, value
        return
    key, *rest = keys
    name = key.removesuffix("[]")
    path = f"{where}.{name}" if where else name
    inner = value.get(name)
    if inner is None:
        return
    if name == key:
        yield from _at(inner, rest, path)
    elif isinstance(inner, list):
        for number, item in enumerate(inner):
            yield from _at(item, rest, f"{path}[{number}]")
    else:
        yield path, None


def _template(pod: JsonObject, where: str) -> PodTemplate:
    prefix = f"{where}.spec" if where else "spec"
    places: list[ImagePlace] = []
    faults: list[str] = []
    spec = _object(pod.get("spec"), prefix, faults)
    for part in _CONTAINERS:
        for number, container in _items(spec.get(part), f"{prefix}.{part}", faults):
            field = f"{prefix}.{part}[{number}].image"
            image = container.get("image")
            if image is None or image == "":
                continue  # a pod without one is refused by the API server itself
            if not isinstance(image, str):
                faults.append(f"{field} is not a string")
                continue
            name = as_text(container.get("name")) or str(number)
            local = as_text(container.get("imagePullPolicy")) == _NEVER
            places.append(ImagePlace(field, f"{_WORDS[part]} {name}", image.strip(), local))
    for number, volume in _items(spec.get("volumes"), f"{prefix}.volumes", faults):
        source = _object(volume.get("image"), f"{prefix}.volumes[{number}].image", faults)
        field = f"{prefix}.volumes[{number}].image.reference"
        image = source.get("reference")
        if image is None or image == "":
            continue
        if not isinstance(image, str):
            faults.append(f"{field} is not a string")
            continue
        name = as_text(volume.get("name")) or str(number)
        local = as_text(source.get("pullPolicy")) == _NEVER
        places.append(ImagePlace(field, f"volume {name}", image.strip(), local))
    labels = as_object(as_object(pod.get("metadata")).get("labels"))
    texts = {key: text for key, text in labels.items() if isinstance(text, str)}
    return PodTemplate(texts, tuple(places), tuple(faults))


def _object(value: object, where: str, faults: list[str]) -> JsonObject:
    if value is not None and not isinstance(value, dict):
        faults.append(f"{where} is not an object")
    return as_object(value)


def _items(value: object, where: str, faults: list[str]) -> Iterator[tuple[int, JsonObject]]:
    if value is not None and not isinstance(value, list):
        faults.append(f"{where} is not a list")
    for number, item in enumerate(as_list(value)):
        yield number, _object(item, f"{where}[{number}]", faults)


_WORDS: Final = {
    "initContainers": "init container",
    "containers": "container",
    "ephemeralContainers": "ephemeral container",
}
