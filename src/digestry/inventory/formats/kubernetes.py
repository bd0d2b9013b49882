"""The output of ``kubectl get pods -A -o json``: a list of pods, or one pod. Nodes in the same file give the
platforms, which decide which child of an index runs. Objects with a template of pods, such as deployments,
may be there too: each is a problem unless its pods are, or it has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.pod_fields import decode_pod
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.formats.rows import Fields, Item, Reading, begins_with
from digestry.inventory.formats.templates import WORKLOADS, Template, pods_owners
from digestry.inventory.observation import Unseen
from digestry.model.digest import shown
from digestry.model.json_types import prepared
from digestry.model.json_values import JsonObject, as_object, as_text
from digestry.model.text import with_article

_POD: Final = "Pod"
_A_POD: Final = msgspec.Raw(b'"Pod"')
_NODE: Final = "Node"
_STATUS: Final = "Status"
_TEMPLATE: Final = (
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
        self._templates: list[tuple[Template, str]] = []
        self._others: dict[str, str] = {}
        self._owners: set[tuple[str, str, str]] = set()

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
        elif kind == _STATUS:
            return (self._status(as_object(msgspec.json.decode(raw)), place, index),)
        elif kind in WORKLOADS or b'"containers"' in bytes(raw):
            template = Template.of(kind, as_object(msgspec.json.decode(raw)))
            self._templates.append((template, place.where(index)))
        else:
            self._others.setdefault(kind, place.where(index))
        return ()

    def finish(self) -> Iterator[Item]:
        pods, self._pods = self._pods, []
        yield from self._seen(pods)
        yield from self._not_seen(bool(pods))

    def _not_seen(self, pods: bool) -> Iterator[Unseen]:
        """Yield a problem for each kind of template whose pods are not here, and of all else if no pod is."""
        named: set[str] = set()
        for template, where in self._templates:
            if pods and (template.idle or template.starts(self._owners)):
                continue
            if template.kind not in named:
                named.add(template.kind)
                missing = f", and no pod of {shown(template.name)} is in this file" if pods else ""
                what = f"{with_article(template.kind)} {_TEMPLATE}{missing}"
                yield self._reading.problem(f"{where}: {what}", f"expected {self.usable}")
        if not pods:
            for kind, where in self._others.items():
                what = f"{where}: {with_article(kind or 'thing without a kind')} is not what runs"
                yield self._reading.problem(what, f"expected {self.usable}")

    def _status(self, status: JsonObject, place: SourceLocation, index: int) -> Unseen:
        """Return what a cluster answered in place of a list."""
        words = as_text(status.get("message")) or as_text(status.get("reason")) or "without a reason"
        return self._reading.problem(
            f"{place.where(index)}: the cluster answered with an error: {shown(words)}",
            f"expected {self.usable}",
        )

    def _seen(self, pods: list[tuple[msgspec.Raw, SourceLocation, int]]) -> Iterator[Item]:
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
                pod = decode_pod(raw)
                if self._templates:
                    self._owners.update(pods_owners(pod))
                yield pod
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                broken.append(self._reading.problem(f"{place.where(index)}: a pod cannot be read: {error}"))
