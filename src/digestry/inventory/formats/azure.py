"""Azure: container groups (Container Instances), and apps and revisions (Container Apps).

Neither says a digest, unless the image was named by one: a tag is resolved where the container is
started, and the answer is kept nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.container_states import State
from digestry.inventory.formats.declared_images import (
    TEMPLATE,
    ObjectFormat,
    declared_image,
    remarks_on,
    state_and_remarks,
)
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import DeferredImage, Fields, Item, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_REVISIONS: Final = "az containerapp revision list -n NAME -g GROUP --all has those that run"
_EXECUTIONS: Final = "az containerapp job execution list -n NAME -g GROUP has those that run"
_NO_VIEW: Final = "`az container list` does not say whether it runs: `az container show` does"


def _all_containers(template: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield the containers of a template, each after the prefix of its name."""
    for key, prefix in (("initContainers", "init:"), ("containers", "")):
        for container in map(as_object, as_list(template.get(key))):
            yield prefix, container


def _group(entry: JsonObject) -> str:
    """Return the resource group, from its own key or from the ID."""
    parts = as_text(entry.get("id")).split("/")
    lower = [part.lower() for part in parts]
    of_id = parts[lower.index("resourcegroups") + 1] if "resourcegroups" in lower[:-1] else ""
    return as_text(entry.get("resourceGroup")) or of_id


class AzureGroup(ObjectFormat):
    """A container group: ``az container list`` and ``show``, and the same in Azure's own API."""

    title: ClassVar[str] = "`az container list`"
    usable: ClassVar[str] = "container groups with containers"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if _is_type(fields, b"microsoft.containerinstance/containergroups"):
            return True
        return "osType" in fields and begins_with(fields.get("containers"), "[")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        inner = entry if "containers" in entry else as_object(entry.get("properties"))
        view = as_object(inner.get("instanceView"))
        of_group, group_remarks = state_and_remarks(as_text(view.get("state")))
        group = _group(entry)
        found = list(_all_containers(inner))
        if not found:
            raise InvalidConfiguration(
                f"the container group {shown(as_text(entry.get('name')))} has no containers"
            )
        for prefix, container in found:
            properties = {**container, **as_object(container.get("properties"))}
            current = as_object(as_object(properties.get("instanceView")).get("currentState"))
            word = as_text(current.get("state"))
            state, remarks = state_and_remarks(word)
            if of_group == "ended":
                state, remarks = of_group, group_remarks
            elif not word:
                state, remarks = ("ended" if prefix else "", (_NO_VIEW,))
            if not self.shows(state):
                continue
            image = declared_image(
                self._reading, as_text(properties.get("image")), state=state, remarks=remarks
            )
            name = prefix + as_text(container.get("name"))
            yield self.row(place, image, host=as_text(entry.get("name")), namespace=group, name=name)


class AzureContainer(ObjectFormat):
    """A container of a group alone, as jq picks it out."""

    title: ClassVar[str] = "a container of `az container show`"
    reads: ClassVar[frozenset[str]] = frozenset()
    usable: ClassVar[str] = "containers with an image"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return begins_with(fields.get("instanceView"), "{") and "image" in fields

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        group: JsonObject = {"containers": [entry], "name": ""}
        return AzureGroup(self._reading).read_entry(group, fields, place)


@dataclass(frozen=True, slots=True)
class _Templated:
    """An app of Container Apps or a revision of one, and the containers of its template."""

    name: str
    group: str
    properties: JsonObject
    containers: tuple[tuple[str, JsonObject], ...]
    """Each with what comes before its name."""


class _Apps(ObjectFormat):
    whole: ClassVar[bool] = True

    def templated(self, entry: JsonObject, what: str) -> _Templated:
        """Return the app or the revision ``one``. Raises :class:`InvalidConfiguration`."""
        properties = as_object(entry.get("properties"))
        name = as_text(entry.get("name"))
        containers = tuple(_all_containers(as_object(properties.get("template"))))
        if not containers:
            raise InvalidConfiguration(f"the {what} {shown(name)} has no template with containers")
        return _Templated(name, _group(entry), properties, containers)

    def container(
        self, place: SourceLocation, of: _Templated, prefix: str, container: JsonObject, image: DeferredImage
    ) -> Item:
        """Return a container of a template, under the name of its app or revision."""
        name = f"{of.name}/{prefix}{as_text(container.get('name'))}"
        return self.row(place, image, namespace=of.group, name=name)


class AzureApp(_Apps):
    """An app of Container Apps: its template is that of its newest revision."""

    title: ClassVar[str] = "`az containerapp list`"
    usable: ClassVar[str] = "apps with a template"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return _is_type(fields, b"microsoft.app/containerapps") or _is_type(fields, b"microsoft.app/jobs")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        app = self.templated(entry, "app")
        stopped = as_text(app.properties.get("runningStatus")).lower() == "stopped"
        if not stopped and self._reading.first("revisions"):
            job = _is_type(fields, b"microsoft.app/jobs")
            what, parts = ("jobs", "executions") if job else ("apps", "revisions")
            yield self._reading.problem(
                f"{what} are in it ({shown(app.name)} for one), and not which of their {parts} run",
                _EXECUTIONS if job else _REVISIONS,
            )
        for prefix, container in app.containers:
            remark = "an app that is stopped" if stopped else f"an app's template: {TEMPLATE}"
            image = declared_image(
                self._reading, as_text(container.get("image")), template=True, remarks=(remark,)
            )
            yield self.container(place, app, prefix, container, image)


class AzureExecution(_Apps):
    """An execution of a job: its template is that of the job when it began."""

    title: ClassVar[str] = "`az containerapp job execution list`"
    usable: ClassVar[str] = "executions with a template"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        return _is_type(fields, b"microsoft.app/jobs/executions")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        execution = self.templated(entry, "execution")
        state, remarks = state_and_remarks(as_text(execution.properties.get("status")))
        for prefix, container in execution.containers:
            if self.shows("ended" if prefix else state):
                image = declared_image(
                    self._reading, as_text(container.get("image")), state=state, remarks=remarks
                )
                yield self.container(place, execution, prefix, container, image)


class AzureRevision(_Apps):
    title: ClassVar[str] = "`az containerapp revision list`"
    usable: ClassVar[str] = "revisions with a template"

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if _is_type(fields, b"microsoft.app/containerapps/revisions"):
            return True
        properties = bytes(fields.get("properties", b""))
        return b'"template"' in properties and b'"active"' in properties and b'"replicas"' in properties

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterator[Item]:
        revision = self.templated(entry, "revision")
        state, remarks = _revision_state(revision.properties)
        template = state == "waits"
        for prefix, container in revision.containers:
            if not self.shows("ended" if prefix else state):
                continue
            image = declared_image(
                self._reading,
                as_text(container.get("image")),
                state="runs" if template else state,
                remarks=remarks,
                template=template,
            )
            yield self.container(place, revision, prefix, container, image)


def _revision_state(properties: JsonObject) -> tuple[State, tuple[str, ...]]:
    if properties.get("active") is False:
        return "ended", remarks_on("ended", "not active")
    if properties.get("replicas") == 0:
        return "waits", ("scaled to zero: nothing of it runs until it is asked",)
    return state_and_remarks(as_text(properties.get("runningState")))


class AzureReplica(ObjectFormat):
    """A replica: it shows that containers run, but not their images."""

    title: ClassVar[str] = "`az containerapp replica list`"
    usable: ClassVar[str] = "revisions: what `az containerapp revision list` prints"
    whole: ClassVar[bool] = True

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if _is_type(fields, b"microsoft.app/containerapps/revisions/replicas"):
            return True
        properties = bytes(fields.get("properties", b""))
        return b'"containers"' in properties and (
            b'"logStreamEndpoint"' in properties or b'"execEndpoint"' in properties
        )

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        raise InvalidConfiguration("a replica of Container Apps does not say its image", hint=_REVISIONS)


def _is_type(fields: Fields, kind: bytes) -> bool:
    raw = fields.get("type")
    return raw is not None and bytes(raw).strip(b'"').lower() == kind
