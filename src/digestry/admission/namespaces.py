"""The labels of a cluster's namespaces, kept up to date."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

from digestry.errors import DigestryError
from digestry.inventory.kube.api import KubeAPI
from digestry.inventory.kube.informer import Informer
from digestry.model.json_values import as_object, as_text

_PATH = "/api/v1/namespaces"
OLDEST: Final = 30.0
"""Seconds for which labels count while the API server does not say what changed."""


class NamespaceLabels:
    """The labels by namespace. Thread-safe."""

    def __init__(self, api: KubeAPI, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._seen_at = -OLDEST
        self._informer = Informer(_PATH, "namespaces", "Namespace", {})
        self._lock = threading.Lock()
        self._known: dict[str, Mapping[str, str]] = {}

    def labels(self, namespace: str) -> Mapping[str, str] | None:
        """Return the labels of a namespace, as they were seen a moment ago; None if it was not seen yet, or
        too long ago."""
        if self._clock() - self._seen_at > OLDEST:
            return None
        return self._known.get(namespace)

    def refresh(self) -> None:
        """Bring all labels up to date. Raises the errors of the API server."""
        begun = self._clock()
        known: dict[str, Mapping[str, str]] = {}
        for value in self._informer.refresh(self._api).objects:
            name, labels = _read(value)
            known[name] = labels
        with self._lock:
            self._known, self._seen_at = known, begun

    def fetch(self, namespace: str) -> Mapping[str, str] | None:
        """Ask for one namespace, which may have been made just now; None if it cannot be had."""
        try:
            value = self._api.get(f"{_PATH}/{quote(namespace, safe='')}", "get namespaces")
        except DigestryError:
            return None
        _, labels = _read(value)
        with self._lock:
            self._known = {**self._known, namespace: labels}
        return labels


def _read(value: object) -> tuple[str, Mapping[str, str]]:
    metadata = as_object(as_object(value).get("metadata"))
    labels = as_object(metadata.get("labels"))
    return as_text(metadata.get("name")), {key: text for key, text in labels.items() if isinstance(text, str)}
