"""The source ``kubernetes``: a cluster's pods, and workloads without pods.

``kubernetes[:CONTEXT][?namespace=a,b&selector=app%3Dx]``: a context of the kubeconfig, else the
current one; some namespaces, else all; the pods of a label selector, else all.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote

from digestry.errors import DigestryError, InvalidConfiguration, RemoteNotFound, Unauthorized, Unreachable
from digestry.inventory.engines.client import TIMEOUT
from digestry.inventory.formats.pods import observe_pods, platforms_of_nodes
from digestry.inventory.formats.workloads import Workloads
from digestry.inventory.kube.api import DEADLINE, KubeAPI
from digestry.inventory.kube.config import find_access
from digestry.inventory.kube.credentials import Credentials
from digestry.inventory.kube.informer import Informer, Refreshed
from digestry.inventory.observation import ContainerObservation, Note, Observation, Unseen
from digestry.model.digest import shown
from digestry.model.json_values import as_object, as_text
from digestry.model.platform import Platform

_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_WORKLOADS: Final = (
    ("Deployment", "/apis/apps/v1", "deployments"),
    ("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("DaemonSet", "/apis/apps/v1", "daemonsets"),
    ("CronJob", "/apis/batch/v1", "cronjobs"),
    ("Job", "/apis/batch/v1", "jobs"),
)
_PARALLEL: Final = 8
_WATCH: Final = "what stands between here and the API server may have changed what it said"
_GRANT: Final = "grant it with deploy/kubernetes/base/rbac.yaml (docs/kubernetes.md)"


@dataclass(frozen=True, slots=True)
class Where:
    """A cluster, or a part of it. No ``namespaces`` are all of them."""

    context: str = ""
    namespaces: tuple[str, ...] = ()
    selector: str = ""

    @classmethod
    def parse(cls, where: str) -> Where:
        """Read ``[CONTEXT][?namespace=a,b&selector=…]``. Raises :class:`InvalidConfiguration`.

        A context with a question mark in its name has it as ``%3F``.
        """
        context, _, query = where.partition("?")
        namespaces: list[str] = []
        selector = ""
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key == "namespace":
                namespaces += [name for name in value.split(",") if name]
            elif key == "selector" and not selector:
                selector = value
            else:
                raise InvalidConfiguration(
                    f"the source 'kubernetes' does not know {shown(key)}, or only once",
                    hint="write kubernetes:CONTEXT?namespace=a,b&selector=app%3Dx",
                )
        for name in namespaces:
            if not _NAMESPACE.fullmatch(name):
                raise InvalidConfiguration(f"{shown(name)} is not a name of a namespace")
        return cls(unquote(context), tuple(dict.fromkeys(namespaces)), selector)


class KubernetesSource:
    """The containers of one cluster. ``timeout`` is in seconds, for each answer, and ``deadline`` for
    all of them."""

    def __init__(
        self,
        name: str,
        where: Where,
        *,
        include_stopped: bool = False,
        timeout: float = TIMEOUT,
        deadline: float = DEADLINE,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._name = name
        self._where = where
        self._include_stopped = include_stopped
        self._timeout = timeout
        self._deadline = deadline
        self._environment = environment
        self._kept: dict[tuple[str, str], Informer] | None = None
        self._busy = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    def keep(self) -> None:
        """Keep the pods from one observation to the next, which requests only the changes."""
        if self._kept is None:
            self._kept = {}

    def observe(self) -> Iterator[Observation]:
        if not self._busy.acquire(blocking=False):
            yield Unseen(self._name, "it has not answered the request of the round before")
            return
        try:
            yield from self._observe()
        finally:
            self._busy.release()

    def _observe(self) -> Iterator[Observation]:
        try:
            access = find_access(self._where.context, environment=self._environment)
            credentials = Credentials(access.user, access.cluster, environment=self._environment)
            api = KubeAPI(access, credentials, timeout=self._timeout, deadline=self._deadline)
            api.prepare()
        except DigestryError as error:
            yield Unseen(self._name, error.message, error.hint)
            return
        try:
            followed = self._followed(api.server)
            reading = _Reading(
                self._name, self._where, api, include_stopped=self._include_stopped, followed=followed
            )
            yield from reading.all()
        finally:
            api.close()

    def _followed(self, server: str) -> dict[str, Informer] | None:
        """Return the pods of each namespace, as the round before left them at this server."""
        if self._kept is None:
            return None
        kept: dict[tuple[str, str], Informer] = {}
        for namespace in self._where.namespaces or ("",):
            path = pods_path(namespace)
            kept[server, namespace] = self._kept.get((server, namespace)) or Informer(
                path, "pods", "Pod", query_of(self._where)
            )
        self._kept = kept
        return {namespace: informer for (_, namespace), informer in kept.items()}


class _Reading:
    """One reading of a cluster, from its nodes to the workloads that have no pods."""

    def __init__(
        self,
        name: str,
        where: Where,
        api: KubeAPI,
        *,
        include_stopped: bool,
        followed: Mapping[str, Informer] | None = None,
    ) -> None:
        self._followed = followed
        self._name = name
        self._where = where
        self._api = api
        self._include_stopped = include_stopped
        self._workloads = Workloads(name)
        self._whole = not where.selector
        self._silent = False

    def all(self) -> Iterator[Observation]:
        nodes, why = self._nodes()
        yield from self._templates()
        empty = []
        fresh = self._refresh()
        for namespace in self._where.namespaces or ("",):
            count = 0
            for seen in self._pods(namespace, nodes, why, fresh.get(namespace)):
                count += 1
                yield seen
            if not count and namespace:
                empty.append(namespace)
        rows = list(self._workloads.idle(whole=self._whole))
        yield from rows
        yield from self._missing(empty, rows)

    # -- the parts ----------------------------------------------------------------------------

    def _nodes(self) -> tuple[dict[str, Platform], str]:
        """Return the platforms of the nodes, and the reason if they cannot be had."""
        nodes: dict[str, Platform] = {}
        try:
            for page in self._api.pages("/api/v1/nodes", "list nodes"):
                nodes |= platforms_of_nodes(page)
        except Unauthorized as error:
            return nodes, 'this user lacks the verb "list" on "nodes"' if error.status == 403 else ""
        except DigestryError as error:
            self._silent = isinstance(error, Unreachable)
            return nodes, error.message
        return nodes, ""

    def _templates(self) -> Iterator[Unseen]:
        # A server that is silent has one more chance, and that is for the pods.
        for kind, group, resource in () if self._silent else _WORKLOADS:
            for namespace in self._where.namespaces or ("",):
                try:
                    for page in self._pages(group, resource, namespace):
                        for entry in page:
                            problem = self._workloads.add(kind, entry)
                            if problem is not None:
                                yield problem
                except DigestryError as error:
                    if isinstance(error, Unauthorized) and error.status == 401:
                        return  # the pods will say so, once
                    yield self._problem(error, f"{resource} that have no pods are not listed")
                    if isinstance(error, Unreachable):
                        return

    def _refresh(self) -> dict[str, Future[Refreshed]]:
        """Start to refresh the pods of each namespace that is followed, several at once."""
        if self._followed is None:
            return {}
        with ThreadPoolExecutor(_PARALLEL, "watch") as pool:
            return {
                name: pool.submit(informer.refresh, self._api) for name, informer in self._followed.items()
            }

    def _pods(
        self, namespace: str, nodes: Mapping[str, Platform], why: str, fresh: Future[Refreshed] | None
    ) -> Iterator[Observation]:
        try:
            pods: Iterable[object]
            if fresh is None:
                pods = _once(self._pages("/api/v1", "pods", namespace))
            else:
                result = fresh.result()
                pods = result.objects
                yield from (Note(self._name, text) for text in result.notes)
                yield from (Unseen(self._name, text, _WATCH) for text in result.problems)
            yield from observe_pods(
                self._workloads.seeing(pods),
                source=self._name,
                nodes=nodes,
                nodes_unknown=why,
                include_stopped=self._include_stopped,
                remark=self._workloads.remark,
            )
        except DigestryError as error:
            self._whole = False
            hint = ""
            if isinstance(error, Unauthorized) and error.status == 403:
                hint = _GRANT
                if not namespace:
                    hint += ", or name the namespaces that it may list: kubernetes:CONTEXT?namespace=a,b"
            yield self._problem(error, "", hint)

    def _missing(self, empty: list[str], rows: Iterable[ContainerObservation]) -> Iterator[Unseen]:
        """Yield problems for namespaces in which nothing was seen because they do not exist."""
        used = {row.namespace for row in rows}
        for namespace in empty:
            if namespace in used:
                continue
            try:
                self._api.get(f"/api/v1/namespaces/{namespace}", "get namespaces")
            except RemoteNotFound:
                yield Unseen(
                    self._name,
                    f"there is no namespace {shown(namespace)}",
                    "check the name for a typo",
                )
            except DigestryError:
                continue  # it may exist and be empty: without the right to see namespaces that is not known

    # -- asking -------------------------------------------------------------------------------

    def _pages(self, group: str, resource: str, namespace: str) -> Iterator[list[object]]:
        path = f"{group}{_scope(namespace)}/{resource}"
        return self._api.pages(path, f"list {resource}", **query_of(self._where))

    def _problem(self, error: DigestryError, consequence: str, hint: str = "") -> Unseen:
        message = f"{error.message}; {consequence}" if consequence else error.message
        if isinstance(error, Unauthorized) and error.status == 403:
            hint = hint or _GRANT
        return Unseen(self._name, message, hint or error.hint)


def pods_path(namespace: str) -> str:
    """Return the path of the pods of a namespace, or, if it is empty, of all."""
    return f"/api/v1{_scope(namespace)}/pods"


def _scope(namespace: str) -> str:
    return f"/namespaces/{namespace}" if namespace else ""


def query_of(where: Where) -> dict[str, str]:
    """Return the query of a list, or a watch, of the pods that ``where`` selects."""
    return {"labelSelector": where.selector} if where.selector else {}


def _once(pages: Iterator[list[object]]) -> Iterator[object]:
    """Yield the objects of ``pages``, each once: a list may have been begun again."""
    seen: set[tuple[str, str, str]] = set()
    for page in pages:
        for entry in page:
            metadata = as_object(as_object(entry).get("metadata"))
            key = (
                as_text(metadata.get("namespace")),
                as_text(metadata.get("name")),
                as_text(metadata.get("uid")),
            )
            if key[1] and key in seen:
                continue
            seen.add(key)
            yield entry
