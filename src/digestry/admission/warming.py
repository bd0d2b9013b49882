"""The images that run in a cluster when the webhook starts: they come again, and are asked about before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from digestry.admission.pod_templates import templates_of
from digestry.inventory.kube.api import KubeAPI
from digestry.model.json_values import as_object

_PATH: Final = "/api/v1/pods"
_POD: Final = ("", "Pod")


def images_of_pods(api: KubeAPI, most: int) -> list[str]:
    """Return the images that the cluster's pods name, each once, ``most`` of them. Raises the errors of the
    API server."""
    found: dict[str, None] = {}
    for page in api.pages(_PATH, "list pods"):
        for pod in page:
            found.update(dict.fromkeys(_images(pod)))
        if len(found) >= most:
            break
    return list(found)[:most]


def _images(pod: object) -> Iterator[str]:
    for template in templates_of(as_object(pod), _POD) or []:
        for place in template.places:
            yield place.image
