"""Prometheus metrics of containers: kube-state-metrics and cAdvisor.

``kube_pod_container_info`` has each container's image and ``image_id``, those of finished pods too; whether
it runs is in ``kube_pod_container_status_running`` and its like. Both the text of an exporter and Prometheus'
answer to an instant query are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final, TypeAlias

from digestry.errors import InvalidConfiguration
from digestry.inventory.formats.container_states import State
from digestry.inventory.formats.declared_images import ObjectFormat, declared_image, remarks_on
from digestry.inventory.formats.json_documents import Input
from digestry.inventory.formats.locations import SourceLocation
from digestry.inventory.formats.rows import Fields, Item, Reading, Row, begins_with
from digestry.model.digest import shown
from digestry.model.json_values import JsonObject, as_list, as_object, as_text

_Labels: TypeAlias = Mapping[str, str]
_Key: TypeAlias = tuple[str, str, str, str]

_INFO: Final = frozenset(
    {"kube_pod_container_info", "kube_pod_init_container_info", "kube_pod_ephemeral_container_info"}
)
_STATUS: Final = re.compile(r"kube_pod_(?:init_|ephemeral_)?container_status_(running|terminated|waiting)")
_SEEN: Final = "container_last_seen"
_NODES: Final = "kube_pod_info"
_PHASES: Final = "kube_pod_status_phase"
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*(?:#.*)?")
_LABEL: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_COMMENT: Final = re.compile(r"# (HELP|TYPE|EOF|UNIT)\b")
_ESCAPES: Final = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
_NO_STATE: Final = "the metrics do not say whether it runs: a finished pod's containers are among them"
_ASK: Final = "query kube_pod_container_status_running as well"
_WHOLE: Final = "ask again, until the answer has neither"
_NEEDED: Final = "kube_pod_container_info, or cAdvisor's container_last_seen, has images"


def is_exposition(first: str) -> bool:
    """Return whether ``first`` is the first line of an exporter's text."""
    match = _SAMPLE.fullmatch(first.strip())
    return _COMMENT.match(first) is not None or (match is not None and _is_number(match[3]) and "{" in first)


def read_exposition(source: Input, line: str, reading: Reading) -> Iterator[Item]:
    """Yield the containers of the metrics in ``source``, after ``line`` was read.

    Raises ``UnicodeDecodeError``, of the line that is ``source.number``.
    """
    metrics = _Metrics(reading)
    while line:
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            match = _SAMPLE.fullmatch(stripped)
            if match is None or not _is_number(match[3]):
                yield reading.problem_on(source.number, "no sample of a metric")
            elif (labels := _labels(match[2] or "")) is None:
                yield reading.problem_on(source.number, "a sample whose labels cannot be read")
            else:
                metrics.add(match[1], labels, float(match[3]))
        line = source.line().decode()
    yield from metrics.rows()
    yield reading.note("read as metrics in Prometheus' text format")


def _labels(text: str) -> dict[str, str] | None:
    """Return the labels of a sample; None if they cannot be read, or one is there twice."""
    pairs = _LABEL.findall(text)
    labels = {name: _unescaped(value) for name, value in pairs}
    return None if len(labels) != len(pairs) or _LABEL.sub("", text).strip() else labels


class PrometheusAnswer(ObjectFormat):
    """The answer of Prometheus' HTTP API to an instant query, or its list of results alone."""

    title: ClassVar[str] = "Prometheus' answer to a query"
    usable: ClassVar[str] = "results of the metric kube_pod_container_info"
    whole: ClassVar[bool] = True

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        self._metrics = _Metrics(reading)

    @staticmethod
    def recognises(fields: Fields, kind: str) -> bool:
        if begins_with(fields.get("metric"), "{"):
            return "value" in fields or "values" in fields
        data = fields.get("data")
        return "status" in fields and begins_with(data, "{") and b'"resultType"' in bytes(data or b"")

    def read_entry(self, entry: JsonObject, fields: Fields, place: SourceLocation) -> Iterable[Item]:
        data = as_object(entry.get("data"))
        status = as_text(entry.get("status"))
        if "data" in entry and status != "success":
            error = as_text(entry.get("error")) or "no error is given"
            raise InvalidConfiguration(f"the answer has the status {shown(status)}: {error}", hint=_WHOLE)
        results = (
            [entry] if "metric" in entry else [as_object(result) for result in as_list(data.get("result"))]
        )
        if as_text(data.get("resultType")) == "matrix" or any("values" in result for result in results):
            raise InvalidConfiguration(
                "a query over a range of time has what ran then, and not what runs",
                hint="ask for an instant: /api/v1/query",
            )
        for result in results:
            labels = {str(name): as_text(value) for name, value in as_object(result.get("metric")).items()}
            value = as_list(result.get("value"))
            amount = as_text(value[1]) if len(value) > 1 else ""
            # Without a name it is the result of an expression, such as a join of two metrics.
            name = labels.get("__name__", "kube_pod_container_info" if "image_id" in labels else "")
            self._metrics.add(name, labels, float(amount) if _is_number(amount) else 1.0)
        warnings = [as_text(warning) for warning in as_list(entry.get("warnings"))]
        if not warnings:
            return ()
        return (
            self._reading.problem(f"the answer need not be whole: it warns of {shown(warnings[0])}", _WHOLE),
        )

    def finish(self) -> Iterable[Item]:
        return self._metrics.rows()


class _Metrics:
    """Samples, collected until all were read: several describe one container."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._infos: dict[tuple[_Key, str, str], _Labels] = {}
        self._seen: dict[tuple[_Key, str], _Labels] = {}
        self._states: dict[_Key, dict[str, float]] = {}
        self._phases: dict[_Key, str] = {}
        self._nodes: dict[_Key, str] = {}
        self._stated = False

    def add(self, name: str, labels: _Labels, value: float) -> None:
        key = _key(labels)
        pod = (*key[:3], "")
        if name in _INFO:
            if value:
                self._infos[key, labels.get("image_id", ""), labels.get("container_id", "")] = labels
        elif name == _SEEN:
            self._seen[key, labels.get("id", "")] = labels
        elif name == _NODES:
            self._nodes[pod] = labels.get("node", "")
        elif name == _PHASES:
            if value:
                self._phases[pod] = labels.get("phase", "")
            self._stated = True
        elif match := _STATUS.fullmatch(name):
            self._states.setdefault(key, {})[match[1]] = value
            self._stated = True

    def rows(self) -> Iterator[Item]:
        if self._infos:
            yield from self._of_pods()
        elif any(labels.get("image") for labels in self._seen.values()):
            yield from self._of_cadvisor()
        else:
            yield self._reading.problem("there is no metric in it that names an image", _NEEDED)

    def _of_pods(self) -> Iterator[Item]:
        if not self._stated:
            yield self._reading.note(_NO_STATE, _ASK)
        for (key, image_id, container), labels in self._infos.items():
            state, remarks = self._state(key)
            if state == "ended" and self._reading.left_out(runs=False):
                continue
            shown = labels.get("image", "")
            typed = labels.get("image_spec", "") or ("" if shown.startswith("sha256:") else shown)
            image = declared_image(self._reading, typed, ("image_id", image_id), state=state, remarks=remarks)
            cluster, namespace, pod, name = key
            host = self._nodes.get((*key[:3], ""), "") or labels.get("node", "") or cluster
            yield Row(host, namespace, f"{pod}/{name}", container.rpartition("://")[2], image)

    def _state(self, key: _Key) -> tuple[State, tuple[str, ...]]:
        phase = self._phases.get((*key[:3], ""), "")
        if phase in _ENDED:
            return "ended", remarks_on("ended", phase)
        states = self._states.get(key, {})
        if states.get("running") == 1:
            return "runs", ()
        if states.get("terminated") == 1:
            return "ended", remarks_on("ended", "terminated")
        if states.get("waiting") == 1:
            return "waits", remarks_on("waits", "waiting")
        if states.get("running") == 0 and "terminated" not in states:
            return "ended", remarks_on("ended", "not running")
        return ("", (_NO_STATE,)) if not states else ("", remarks_on("", "neither running nor ended"))

    def _of_cadvisor(self) -> Iterator[Item]:
        for (key, identity), labels in self._seen.items():
            shown = labels.get("image", "")
            if not shown:
                continue  # a control group that is no container
            bare = shown.startswith("sha256:")
            image = declared_image(self._reading, "" if bare else shown, ("image", shown if bare else ""))
            _, namespace, pod, name = key
            called = "/".join(part for part in (pod, name or labels.get("name", "")) if part)
            host = labels.get("node", "") or labels.get("instance", "")
            yield Row(host, namespace, called, identity.rpartition("/")[2], image)


def _key(labels: _Labels) -> _Key:
    """Return the cluster, the namespace, the pod and the name of a container.

    Where Prometheus' own labels of the exporter's pod took these names, they are called exported_….
    """
    namespace, pod, name = (
        labels.get(f"exported_{label}") or labels.get(label, "")
        for label in ("namespace", "pod", "container")
    )
    return labels.get("cluster", ""), namespace, pod, name


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _unescaped(value: str) -> str:
    return re.sub(r"\\[n\"\\]", lambda match: _ESCAPES[match[0]], value) if "\\" in value else value
