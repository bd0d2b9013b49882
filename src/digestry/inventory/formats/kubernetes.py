"""The output of ``kubectl get pods -A -o json``: a list of pods, or one pod. Nodes in the same file give the
platforms, which decide which child of an index runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.pod_fields import decode_pod
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.formats.rows import Fields, Item, Reading, begins_with
from digestry.inventory.observation import Unseen
from digestry.model.json_types import prepared
from digestry.model.json_values import JsonObject

_POD: Final = "Pod"
_A_POD: Final = msgspec.Raw(b'"Pod"')
_NODE: Final = "Node"
_WORKLOADS: Final = (
    "is a template: what runs may be of an earlier state of it, and sidecars are injected later"
)


class _Kind(msgspec.Struct):
    kind: str = ""


class Kubernetes:
    title: ClassVar[str] = "`kubectl get -o json`"
    usable: ClassVar[str] = "pods: what `kubectl get pods -A -o json` prints"

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._pods: list[tuple[msgspec.Raw, SourceLocation, int]] = []
        self._nodes: list[object] = []
        self._others: set[str] = set()

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if "apiVersion" in fields and "kind" in fields:
            return True
        return bool(kind) and begins_with(fields.get("metadata"), "{")

    def read(self, raw: msgspec.Raw, fields: Fields, place: SourceLocation, index: int) -> Iterable[Item]:
        kind = _POD
        if fields.get("kind") != _A_POD:
            kind = msgspec.json.decode(raw, type=prepared(_Kind)).kind or place.kind
        if kind == _POD:
            self._pods.append((raw, place, index))
        elif kind == _NODE:
            self._nodes.append(msgspec.json.decode(raw))
        elif kind not in self._others:
            self._others.add(kind)
            what = f"a {kind} {_WORKLOADS}" if "spec" in fields else f"a {kind} is not what runs"
            raise InvalidConfiguration(what, hint=f"expected {self.usable}")
        return ()

    def finish(self) -> Iterator[Item]:
        pods, self._pods = self._pods, []
        if not pods:
            return
        broken: list[Unseen] = []
        yield from observe_pods(
            self._decoded(pods, broken),
            source=self._reading.source,
            nodes=platforms_of_nodes(self._nodes),
            include_stopped=self._reading.include_stopped,
            left_out=self._left_out,
        )
        yield from broken

    def _left_out(self, count: int) -> None:
        self._reading.stopped += count

    def _decoded(
        self, pods: Iterable[tuple[msgspec.Raw, SourceLocation, int]], broken: list[Unseen]
    ) -> Iterator[JsonObject]:
        """Yield the pods one at a time, adding to ``broken`` those that cannot be read."""
        for raw, place, index in pods:
            try:
                yield decode_pod(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                broken.append(self._reading.problem(f"{place.where(index)}: a pod cannot be read: {error}"))
