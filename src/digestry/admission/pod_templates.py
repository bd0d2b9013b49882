"""The images of a Kubernetes object: of a pod, or of the pod templates in it.

Fields are those of core/v1 ``PodSpec``: containers, init and ephemeral containers, and image volumes.
"""

from __future__ import annotations

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
            found.append(_template(value, where))
    return found


def kind_of(document: JsonObject) -> Kind:
    """Return the group and kind that an object states of itself."""
    group, slash, _ = as_text(document.get("apiVersion")).partition("/")
    return (group if slash else "", as_text(document.get("kind")))


def _at(value: JsonObject, keys: list[str], where: str) -> Iterator[tuple[str, JsonObject]]:
    """Yield the objects at the path ``keys`` below ``value``, each with its path."""
    if not keys:
        yield where, value
        return
    key, *rest = keys
    name = key.removesuffix("[]")
    path = f"{where}.{name}" if where else name
    if name != key:
        for number, item in enumerate(as_list(value.get(name))):
            yield from _at(as_object(item), rest, f"{path}[{number}]")
    elif isinstance(inner := value.get(name), dict):
        yield from _at(inner, rest, path)


def _template(pod: JsonObject, where: str) -> PodTemplate:
    spec = as_object(pod.get("spec"))
    prefix = f"{where}.spec" if where else "spec"
    places: list[ImagePlace] = []
    faults: list[str] = []
    for part in _CONTAINERS:
        for number, value in enumerate(as_list(spec.get(part))):
            container = as_object(value)
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
    for number, value in enumerate(as_list(spec.get("volumes"))):
        volume = as_object(value)
        if "image" not in volume:
            continue
        source = as_object(volume["image"])
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


_WORDS: Final = {
    "initContainers": "init container",
    "containers": "container",
    "ephemeralContainers": "ephemeral container",
}
